"""Queries on the projected state: rows in, values out; nothing here writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from patching.change import Outcome, TargetState
from patching.ledger import schema
from patching.ledger.base import Intent, Known, OutcomeCount, PastJob, Quarantine, RolloutRow, Standing, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.ledger.recorder import entry_from
from patching.rollout.states import FINAL

ENTRY, ROLLOUT, TARGET, INTENT = schema.entry.c, schema.rollout.c, schema.target_row.c, schema.intent.c

# Made once, for what is read all the time: building a statement costs more than running it.
_ROLLOUT = sa.select(schema.rollout).where(ROLLOUT.id == sa.bindparam("of_rollout"))
_TARGET = sa.select(schema.target_row).where(
    TARGET.rollout == sa.bindparam("in_rollout"), TARGET.target == sa.bindparam("of_target")
)
_GROUP = (TARGET.wave, TARGET.outcome, TARGET.signature)
_OUTCOMES = (
    sa.select(*_GROUP, sa.func.count().label("targets"))
    .where(TARGET.rollout == sa.bindparam("in_rollout"))
    .group_by(*_GROUP)
)
_BROKEN = (
    (TARGET.outcome == Outcome.FAILED.value)
    & TARGET.began_at.is_not(None)
    & sa.func.coalesce(TARGET.undo_outcome, "").not_in([Outcome.UNDONE.value, Outcome.UNKNOWN.value])
)
_REOPENED = (
    TARGET.outcome.is_(None)
    & TARGET.began_at.is_not(None)
    & TARGET.state.in_([TargetState.PENDING.value, TargetState.WAITING.value])
)
_DOWN = (
    sa.select(schema.target_row)
    .where(
        TARGET.rollout == sa.bindparam("in_rollout"),
        (TARGET.outcome == Outcome.OFFLINE.value) | _BROKEN | _REOPENED,
    )
    .order_by(TARGET.wave, TARGET.target)
)
_SWITCH = sa.select(schema.stop_switch)
_KEPT_APART = sa.select(schema.quarantine).order_by(schema.quarantine.c.target)
_OF_TARGET = (
    sa.select(schema.entry)
    .where(
        ENTRY.chain == sa.bindparam("in_chain"),
        ENTRY.target == sa.bindparam("of_target"),
        ENTRY.seq > sa.bindparam("after"),
    )
    .order_by(ENTRY.seq)
)

_FINAL = tuple(state.value for state in FINAL)
# Outcomes after which a target is certainly as it was before the rollout began it.
_UNCHANGED = (Outcome.NOTHING_TO_DO, Outcome.UNDONE, Outcome.DRIFTED, Outcome.SKIPPED, Outcome.SUPERSEDED)
_UNCHANGED_VALUES = tuple(outcome.value for outcome in (*_UNCHANGED, Outcome.OFFLINE))


def entries(
    connection: sa.Connection,
    chain: str,
    after: int,
    kinds: Sequence[EntryKind],
    target: str | None,
    limit: int | None,
) -> list[LedgerEntry]:
    """Read a chain in order, filtered."""
    if target is not None and not kinds and limit is None:
        of_target = {"in_chain": chain, "of_target": target, "after": after}
        return [entry_from(row) for row in connection.execute(_OF_TARGET, of_target).mappings()]
    query = sa.select(schema.entry).where(ENTRY.chain == chain, ENTRY.seq > after).order_by(ENTRY.seq)
    if kinds:
        query = query.where(ENTRY.kind.in_([kind.value for kind in kinds]))
    if target is not None:
        query = query.where(ENTRY.target == target)
    if limit is not None:
        query = query.limit(limit)
    return [entry_from(row) for row in connection.execute(query).mappings()]


def rollout_row(connection: sa.Connection, rollout: str) -> RolloutRow | None:
    """Read one rollout."""
    row = connection.execute(_ROLLOUT, {"of_rollout": rollout}).mappings().first()
    return _rollout(row) if row else None


def rollout_rows(connection: sa.Connection, policy: str | None, open_only: bool, limit: int) -> list[RolloutRow]:
    """List rollouts, newest first."""
    query = sa.select(schema.rollout).order_by(ROLLOUT.opened_position.desc()).limit(limit)
    if policy is not None:
        query = query.where(ROLLOUT.policy == policy)
    if open_only:
        query = query.where(ROLLOUT.state.not_in(_FINAL))
    return [_rollout(row) for row in connection.execute(query).mappings()]


def rollout_of_run(connection: sa.Connection, run: str) -> str | None:
    """Find the rollout that a run works or worked on last."""
    query = sa.select(schema.run.c.rollout).where(schema.run.c.run == run)
    found: str | None = connection.execute(query).scalar()
    return found


def target_rows(connection: sa.Connection, rollout: str) -> list[TargetRow]:
    """List the targets of a rollout by wave, then name."""
    query = sa.select(schema.target_row).where(TARGET.rollout == rollout).order_by(TARGET.wave, TARGET.target)
    return [_target(row) for row in connection.execute(query).mappings()]


def one_target(connection: sa.Connection, rollout: str, target: str) -> TargetRow | None:
    """Read one target."""
    row = connection.execute(_TARGET, {"in_rollout": rollout, "of_target": target}).mappings().first()
    return _target(row) if row else None


def down_rows(connection: sa.Connection, rollout: str) -> list[TargetRow]:
    """List the targets that count as unavailable though no job holds their place, by wave, then name."""
    return [_target(row) for row in connection.execute(_DOWN, {"in_rollout": rollout}).mappings()]


def outcome_counts(connection: sa.Connection, rollout: str) -> list[OutcomeCount]:
    """Count targets by wave, outcome and signature."""
    rows = connection.execute(_OUTCOMES, {"in_rollout": rollout}).mappings()
    return [OutcomeCount.model_validate(dict(row)) for row in rows]


def past_jobs(connection: sa.Connection, policy: str, limit: int) -> list[PastJob]:
    """List how long the latest applied targets of a policy took, the latest first."""
    restarts = sa.select(INTENT.step_id).where(
        INTENT.rollout == TARGET.rollout, INTENT.target == TARGET.target, INTENT.step.contains('"expects_reboot":true')
    )
    query = (
        sa.select(TARGET.began_at, TARGET.ended_at, restarts.exists().label("rebooted"))
        .join(schema.rollout, ROLLOUT.id == TARGET.rollout)
        .where(ROLLOUT.policy == policy, TARGET.outcome == Outcome.APPLIED.value)
        .where(TARGET.began_at.is_not(None), TARGET.ended_at.is_not(None))
        .order_by(TARGET.ended_at.desc())
        .limit(limit)
    )
    return [
        PastJob(seconds=_lasted(row.began_at, row.ended_at), rebooted=bool(row.rebooted))
        for row in connection.execute(query)
    ]


def _lasted(began: str, ended: str) -> float:
    return max((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds(), 0.0)


def holding(connection: sa.Connection, target: str, other_than: str | None) -> list[TargetRow]:
    """List where a target has begun and not ended, in open rollouts."""
    query = (
        sa.select(schema.target_row)
        .join(schema.rollout, ROLLOUT.id == TARGET.rollout)
        .where(
            TARGET.target == target,
            TARGET.began_at.is_not(None),
            TARGET.state != TargetState.ENDED.value,
            ROLLOUT.state.not_in(_FINAL),
        )
        .order_by(ROLLOUT.opened_position)
    )
    if other_than is not None:
        query = query.where(TARGET.rollout != other_than)
    return [_target(row) for row in connection.execute(query).mappings()]


def later_rollouts(connection: sa.Connection, rollout: str, target: str) -> list[str]:
    """List rollouts that began the target later and did not certainly leave it as it was, latest first.

    A failed, unknown or still running change counts as a change: it may have been one. Later than the rollout began the
    target or, where it never did, than it began its first one.
    """
    own = sa.select(TARGET.began_position).where(TARGET.rollout == rollout, TARGET.target == target).scalar_subquery()
    first = sa.select(sa.func.min(TARGET.began_position)).where(TARGET.rollout == rollout).scalar_subquery()
    mine = sa.func.coalesce(own, first)
    query = (
        sa.select(TARGET.rollout)
        .where(
            TARGET.target == target,
            TARGET.rollout != rollout,
            TARGET.began_position > mine,
            sa.or_(TARGET.outcome.is_(None), TARGET.outcome.not_in(_UNCHANGED_VALUES)),
            sa.or_(TARGET.undo_outcome.is_(None), TARGET.undo_outcome != Outcome.UNDONE.value),
        )
        .order_by(TARGET.began_position.desc())
    )
    return list(connection.execute(query).scalars())


def intents(connection: sa.Connection, rollout: str | None, target: str | None, open_only: bool) -> list[Intent]:
    """List intents in the order in which they were written."""
    query = sa.select(schema.intent).order_by(INTENT.position)
    if rollout is not None:
        query = query.where(INTENT.rollout == rollout)
    if target is not None:
        query = query.where(INTENT.target == target)
    if open_only:
        query = query.where(INTENT.open.is_(sa.true()))
    return [_intent(row) for row in connection.execute(query).mappings()]


def quarantines(connection: sa.Connection, now: datetime) -> list[Quarantine]:
    """List targets in quarantine at a moment, by name."""
    found = [Quarantine.model_validate(dict(row)) for row in connection.execute(_KEPT_APART).mappings()]
    return [item for item in found if item.until is None or item.until > now]


def stopped(connection: sa.Connection) -> str | None:
    """Give the stop switch's reason while it is on."""
    row = connection.execute(_SWITCH).first()
    if row is None or not row.engaged:
        return None
    return row.reason or "the stop switch is on; no reason was given"


def standing(connection: sa.Connection, rollout: str, now: datetime) -> Standing:
    """Give what decides whether a rollout may begin more."""
    row = rollout_row(connection, rollout)
    return Standing(
        stopped=stopped(connection),
        state=row.state if row else None,
        outcomes=tuple(outcome_counts(connection, rollout)),
        quarantines=tuple(quarantines(connection, now)),
    )


def known(connection: sa.Connection, rollout: str, target: str) -> Known:
    """Give one target's row and entries, and which targets of its rollout are down."""
    return Known(
        row=one_target(connection, rollout, target),
        entries=tuple(entries(connection, rollout, 0, (), target, None)),
        down=frozenset(row.target for row in down_rows(connection, rollout)),
    )


def _rollout(row: sa.RowMapping) -> RolloutRow:
    return RolloutRow.model_validate({name: row[name] for name in RolloutRow.model_fields})


def _target(row: sa.RowMapping) -> TargetRow:
    return TargetRow.model_validate({name: row[name] for name in TargetRow.model_fields})


def _intent(row: sa.RowMapping) -> Intent:
    fields: dict[str, Any] = {name: row[name] for name in Intent.model_fields}
    fields["step"] = json.loads(row["step"])
    fields["handle"] = json.loads(row["handle"]) if row["handle"] else None
    return Intent.model_validate(fields)
