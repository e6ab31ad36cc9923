"""Projections: what each kind of entry changes in the tables of current state.

Every function takes a connection and an entry and depends on nothing else, so replaying all entries in the order of
their ``position`` gives the same rows again (``SqlLedger.rebuild``). The table of meanings is in ``ledger.entry``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from patching.change import Outcome, Phase, TargetState
from patching.errors import LedgerConflict, LedgerError
from patching.ledger import schema
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry, NewEntry
from patching.ledger.upsert import insert_unless_there
from patching.rollout.states import FINAL, RolloutState
from patching.value import canonical

ROLLOUT, TARGET, INTENT = schema.rollout.c, schema.target_row.c, schema.intent.c

LEASE, CLAIM = schema.lease.c, schema.lease_claim.c

# Made once, for what every change job writes: building a statement costs more than running it.
_THIS_STEP = (INTENT.rollout == sa.bindparam("in_rollout"), INTENT.step_id == sa.bindparam("of_step"))
_CLOSE_STEP = schema.intent.update().where(*_THIS_STEP).values(open=False)
_INSERT_STEP = insert_unless_there(schema.intent, "rollout", "step_id")
_DROP_CLAIMS = schema.lease_claim.delete().where(CLAIM.lease == sa.bindparam("of_lease"))
_DROP_LEASE = schema.lease.delete().where(LEASE.id == sa.bindparam("of_lease"))
_END_LEASE = schema.lease.update().where(LEASE.id == sa.bindparam("of_lease")).values(released=True)
_INSERT_LEASE, _INSERT_CLAIM = schema.lease.insert(), schema.lease_claim.insert()

Projection = Callable[[sa.Connection, LedgerEntry, int], None]


def apply(connection: sa.Connection, entry: LedgerEntry, position: int) -> None:
    """Change the projected state as an entry says; raises LedgerError when it speaks of what does not exist."""
    projection = _PROJECTIONS.get(entry.kind)
    if projection is None:
        return
    try:
        projection(connection, entry, position)
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(
            f'"{entry.key}" of {entry.chain} lacks or misuses a field of kind {entry.kind.value} '
            f"({type(error).__name__}: {error}): nothing was written; docs of ledger.entry list the fields"
        ) from error


def clear(connection: sa.Connection) -> None:
    """Empty every projection, before a rebuild."""
    for table in schema.PROJECTIONS:
        connection.execute(table.delete())


def _rollout_opened(connection: sa.Connection, entry: LedgerEntry, position: int) -> None:
    if connection.execute(sa.select(ROLLOUT.id).where(ROLLOUT.id == entry.chain)).first():
        raise LedgerConflict(f"rollout {entry.chain} is open already: it was opened under another key")
    row = {
        "id": entry.chain,
        "policy": str(entry.body["policy"]),
        "state": RolloutState.PLANNED.value,
        "plan_digest": None,
        "emergency": bool(entry.body.get("emergency", False)),
        "opened_at": entry.at.isoformat(),
        "opened_position": position,
        "updated_at": entry.at.isoformat(),
        "waits_for": "",
        "reason": "",
        "run": None,
    }
    connection.execute(schema.rollout.insert().values(row))


def _plan_frozen(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    begun = sa.select(TARGET.target).where(TARGET.rollout == entry.chain, TARGET.began_position.is_not(None))
    if connection.execute(begun.limit(1)).first():
        raise LedgerConflict(
            f"rollout {entry.chain} has begun to carry out its plan: another plan needs another rollout"
        )
    _update_rollout(connection, entry, plan_digest=str(entry.body["plan"]))
    connection.execute(schema.target_row.delete().where(TARGET.rollout == entry.chain))
    rows = [_pending(entry.chain, str(item["name"]), int(item["wave"])) for item in entry.body["targets"]]
    if rows:
        connection.execute(schema.target_row.insert(), rows)


def _pending(rollout: str, target: str, wave: int) -> dict[str, Any]:
    return {
        "rollout": rollout,
        "target": target,
        "wave": wave,
        "generation": 0,
        "detail": "",
        "began_at": None,
        "began_position": None,
        **_NOT_ENDED,
        "state": TargetState.PENDING.value,
    }


_NOT_ENDED = {"phase": "", "outcome": None, "waits_for": "", "undo_outcome": None, "ended_at": None, "signature": None}


def _transition(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    to = RolloutState(entry.body["to"])
    changes: dict[str, Any] = {"state": to.value, "reason": str(entry.body.get("reason", ""))}
    if to in FINAL:
        changes["waits_for"] = ""
    _update_rollout(connection, entry, **changes)


def _run_began(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    if entry.chain == CONTROL:
        return
    run, began = str(entry.body["run"]), entry.at.isoformat()
    _update_rollout(connection, entry, run=run)
    connection.execute(schema.run.delete().where(schema.run.c.run == run))
    row = {"run": run, "rollout": entry.chain, "mode": str(entry.body.get("mode", "")), "began_at": began}
    connection.execute(schema.run.insert().values(row))


def _run_ended(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    if entry.chain == CONTROL:
        return
    run, columns = str(entry.body["run"]), schema.run.c
    mine = (columns.run == run) & (columns.rollout == entry.chain)
    connection.execute(schema.run.update().where(mine).values(ended_at=entry.at.isoformat()))
    ended = schema.rollout.update().where(ROLLOUT.id == entry.chain, ROLLOUT.run == run)
    connection.execute(ended.values(run=None, updated_at=entry.at.isoformat()))
    # Nobody waits any more: a sentence that stays behind would name a holder that is long gone.
    waiting = (TARGET.rollout == entry.chain, TARGET.state == TargetState.WAITING.value)
    calm = {"state": TargetState.PENDING.value, "waits_for": ""}
    connection.execute(schema.target_row.update().where(*waiting).values(calm))


def _waits(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    sentence = str(entry.body["sentence"])
    if entry.target is None:
        _update_rollout(connection, entry, waits_for=sentence)
        return
    _update_target(connection, entry, waits_for=sentence)
    old, new = (TargetState.PENDING, TargetState.WAITING) if sentence else (TargetState.WAITING, TargetState.PENDING)
    _update_target(connection, entry, TARGET.state == old.value, state=new.value)


def _target_began(connection: sa.Connection, entry: LedgerEntry, position: int) -> None:
    began, running = entry.at.isoformat(), TargetState.RUNNING.value
    _update_target(connection, entry, state=running, waits_for="", began_at=began, began_position=position)


def _intent(connection: sa.Connection, entry: LedgerEntry, position: int) -> None:
    row = {**intent_row(entry), "at": entry.at.isoformat(), "position": position}
    if not connection.execute(_INSERT_STEP[connection.dialect.name], row).rowcount:
        raise LedgerConflict(f"step {entry.step} of {entry.chain} has an intent already: it must not run twice")


def intent_row(entry: NewEntry) -> dict[str, Any]:
    """Give the row of an intent but for its moment and position; raises LedgerError, and what ``apply`` translates."""
    if entry.step is None:
        raise LedgerError(f'intent "{entry.key}" of {entry.chain} names no step id: nothing was written')
    return {
        "rollout": entry.chain,
        "step_id": entry.step,
        "target": _target(entry),
        "step": canonical(dict(entry.body["step"])).decode(),
        "generation": int(entry.body["generation"]),
        "handle": None,
        "open": True,
    }


def _step_outcome(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    connection.execute(_CLOSE_STEP, _this_step(entry))


def projected(kind: EntryKind) -> bool:
    """Whether entries of this kind change anything in the tables of current state."""
    return kind in _PROJECTIONS


def _target_progress(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    phase = str(entry.body.get("phase", ""))
    changes: dict[str, Any] = {"phase": phase, "detail": str(entry.body.get("detail", ""))}
    if phase == Phase.UNDO.value:
        changes["state"] = TargetState.UNDOING.value
    _update_target(connection, entry, waits_for="", **changes)
    if entry.body.get("handle") is not None and entry.step is not None:
        handle = canonical(dict(entry.body["handle"])).decode()
        connection.execute(schema.intent.update().where(*_THIS_STEP).values(handle=handle), _this_step(entry))


def _target_outcome(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    outcome, ended = Outcome(entry.body["outcome"]).value, entry.at.isoformat()
    changes: dict[str, Any] = {"state": TargetState.ENDED.value, "waits_for": ""}
    changes["detail"] = str(entry.body.get("reason") or "")
    if entry.body.get("undo"):
        changes |= {"undo_outcome": outcome}
        _update_target(connection, entry, TARGET.ended_at.is_(None), ended_at=ended)
    else:
        changes |= {"outcome": outcome, "ended_at": ended, "signature": entry.body.get("signature")}
    _update_target(connection, entry, **changes)


def _generation_raised(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    generation = int(entry.body["generation"])
    changes: dict[str, Any] = {"generation": generation}
    if entry.body.get("reopen"):
        # It stays begun: a target that was changed by half must be undone and looked after until it has an end.
        changes |= {**_NOT_ENDED, "state": TargetState.PENDING.value}
    if entry.body.get("reopen_undo"):
        changes |= {"undo_outcome": None}
    where = (TARGET.rollout == entry.chain, TARGET.target == _target(entry), TARGET.generation < generation)
    if connection.execute(schema.target_row.update().where(*where).values(changes)).rowcount == 0:
        raise LedgerConflict(
            f"{entry.target} of {entry.chain} has generation {generation} or a later one already, or is not in its "
            "plan: a generation only rises; nothing was written"
        )


def _quarantined(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    target = _target(entry)
    connection.execute(schema.quarantine.delete().where(schema.quarantine.c.target == target))
    row = {
        "target": target,
        "rollout": entry.chain,
        "reason": str(entry.body.get("reason", "")),
        "since": entry.at.isoformat(),
        "until": entry.body.get("until"),
    }
    connection.execute(schema.quarantine.insert().values(row))


def _released(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    if entry.body.get("what", "quarantine") == "quarantine":
        connection.execute(schema.quarantine.delete().where(schema.quarantine.c.target == _target(entry)))


def _superseded_targets(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    names = [str(name) for name in entry.body["targets"]]
    by = str(entry.body.get("by", "another rollout"))
    open_ones = (TARGET.rollout == entry.chain, TARGET.began_at.is_(None), TARGET.outcome.is_(None))
    changes = {
        "state": TargetState.ENDED.value,
        "outcome": Outcome.SUPERSEDED.value,
        "detail": f"superseded by {by}",
        "waits_for": "",
        "ended_at": entry.at.isoformat(),
    }
    for start in range(0, len(names), 500):
        chunk = TARGET.target.in_(names[start : start + 500])
        connection.execute(schema.target_row.update().where(*open_ones, chunk).values(changes))


def _lease_held(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    body = entry.body
    if connection.execute(_DROP_LEASE, {"of_lease": body["lease"]}).rowcount:
        connection.execute(_DROP_CLAIMS, {"of_lease": body["lease"]})
    row = {
        "id": body["lease"],
        "owner": body["owner"],
        "epoch": body["epoch"],
        "rollout": entry.chain,
        "target": _target(entry),
        "expires_at": body["expires_at"],
        "released": False,
    }
    connection.execute(_INSERT_LEASE, row)
    claims = [
        {"lease": body["lease"], "kind": item["kind"], "name": item["name"], "max_holders": item["limit"]}
        for item in body["claims"]
    ]
    if claims:
        connection.execute(_INSERT_CLAIM, claims)


def _lease_ended(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    connection.execute(_DROP_CLAIMS, {"of_lease": entry.body["lease"]})
    connection.execute(_END_LEASE, {"of_lease": entry.body["lease"]})


def _stop_switch(connection: sa.Connection, entry: LedgerEntry, _: int) -> None:
    if entry.chain != CONTROL:
        raise LedgerError(f'the stop switch belongs to chain "{CONTROL}", not to {entry.chain}: nothing was written')
    connection.execute(schema.stop_switch.delete())
    row = {
        "id": 1,
        "engaged": bool(entry.body["on"]),
        "reason": str(entry.body.get("reason") or ""),
        "actor": entry.actor,
        "at": entry.at.isoformat(),
    }
    connection.execute(schema.stop_switch.insert().values(row))


def _this_step(entry: LedgerEntry) -> dict[str, Any]:
    return {"in_rollout": entry.chain, "of_step": entry.step}


def _target(entry: NewEntry) -> str:
    if entry.target is None:
        raise LedgerError(f'"{entry.key}" ({entry.kind.value}) of {entry.chain} names no target: nothing was written')
    return entry.target


def _update_rollout(connection: sa.Connection, entry: LedgerEntry, **changes: Any) -> None:
    update = schema.rollout.update().where(ROLLOUT.id == entry.chain)
    if connection.execute(update.values(updated_at=entry.at.isoformat(), **changes)).rowcount == 0:
        raise LedgerError(f'rollout {entry.chain} was never opened: "{entry.key}" ({entry.kind.value}) was not written')


def _update_target(
    connection: sa.Connection, entry: LedgerEntry, only: sa.ColumnElement[bool] | None = None, **changes: Any
) -> None:
    update = _target_update(frozenset(changes))
    if only is not None:
        update = update.where(only)
    values = {f"new_{name}": value for name, value in changes.items()}
    found = connection.execute(update, {"in_rollout": entry.chain, "of_target": _target(entry), **values}).rowcount
    if found == 0 and only is None:
        raise LedgerError(
            f'{entry.target} is not in the plan of {entry.chain}: "{entry.key}" ({entry.kind.value}) was not written'
        )


@lru_cache(maxsize=64)
def _target_update(names: frozenset[str]) -> sa.Update:
    mine = (TARGET.rollout == sa.bindparam("in_rollout"), TARGET.target == sa.bindparam("of_target"))
    return schema.target_row.update().where(*mine).values({name: sa.bindparam(f"new_{name}") for name in sorted(names)})


_PROJECTIONS: dict[EntryKind, Projection] = {
    EntryKind.ROLLOUT_OPENED: _rollout_opened,
    EntryKind.PLAN_FROZEN: _plan_frozen,
    EntryKind.TRANSITION: _transition,
    EntryKind.RUN_BEGAN: _run_began,
    EntryKind.RUN_ENDED: _run_ended,
    EntryKind.WAITS: _waits,
    EntryKind.TARGET_BEGAN: _target_began,
    EntryKind.INTENT: _intent,
    EntryKind.STEP_OUTCOME: _step_outcome,
    EntryKind.TARGET_PROGRESS: _target_progress,
    EntryKind.TARGET_OUTCOME: _target_outcome,
    EntryKind.GENERATION_RAISED: _generation_raised,
    EntryKind.QUARANTINED: _quarantined,
    EntryKind.RELEASED: _released,
    EntryKind.SUPERSEDED_TARGETS: _superseded_targets,
    EntryKind.LEASE_TAKEN: _lease_held,
    EntryKind.LEASE_TAKEN_OVER: _lease_held,
    EntryKind.LEASE_ENDED: _lease_ended,
    EntryKind.STOP_SWITCH: _stop_switch,
}
