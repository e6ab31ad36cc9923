"""Random histories: acts on a few rollouts, targets and steps, most of them sensible, some refused."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st

from ledger_suite.values import K, claim, entry
from patching.errors import LedgerError
from patching.ledger import schema
from patching.ledger.entry import CONTROL, NewEntry
from patching.ledger.store import SqlLedger
from patching.rollout.states import RolloutState

ROLLOUTS, TARGETS, STEPS = ("r1", "r2"), ("a", "b"), ("s1", "s2", "s3")
rollout, target, step = st.sampled_from(ROLLOUTS), st.sampled_from(TARGETS), st.sampled_from(STEPS)
number = st.integers(0, 3)


def _made(kind: Any, body: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[NewEntry]:
    """An entry of a random rollout; its key has a random number, so that repetitions and conflicts happen."""
    bodies = st.fixed_dictionaries({name: _strategy(value) for name, value in body.items()})
    return st.builds(
        lambda chain, key, content, rest: entry(kind, f"{kind}:{key}", chain=chain, **rest).model_copy(
            update={"body": content}
        ),
        st.just(CONTROL) if kind is K.STOP_SWITCH else rollout,
        number,
        bodies,
        st.fixed_dictionaries(fields),
    )


def _strategy(value: Any) -> st.SearchStrategy[Any]:
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


_STEP = {"name": "upgrade", "phase": "apply", "kind": "act", "call": {"script": "true"}}
_WAVES = [{"name": "a", "wave": 1}, {"name": "b", "wave": 2}]
_UNTIL = st.sampled_from([None, "2026-12-01T00:00:00+00:00"])
_RUN = st.sampled_from(["dag::1", "dag::2"])
_OUTCOME = st.sampled_from(["applied", "failed", "unknown", "undone", "nothing_to_do"])

entries = st.one_of(
    _made(K.ROLLOUT_OPENED, {"policy": "web", "emergency": st.booleans()}),
    _made(K.PLAN_FROZEN, {"plan": st.sampled_from(["p1", "p2"]), "targets": _WAVES}),
    _made(K.RUN_BEGAN, {"run": _RUN, "mode": "apply"}),
    _made(K.RUN_ENDED, {"run": _RUN}),
    _made(K.WAITS, {"sentence": st.sampled_from(["", "waits"])}, target=st.none() | target),
    _made(K.TARGET_BEGAN, {"wave": 1}, target=target),
    _made(K.INTENT, {"step": _STEP, "generation": 0}, target=target, step=step),
    _made(K.STEP_OUTCOME, {"exit_code": 0}, target=target, step=step),
    _made(
        K.TARGET_PROGRESS,
        {"phase": st.sampled_from(["apply", "undo"]), "handle": st.none() | st.just({"id": 1})},
        target=target,
        step=st.none() | step,
    ),
    _made(K.TARGET_OUTCOME, {"outcome": _OUTCOME, "reason": "x", "undo": st.booleans()}, target=target),
    _made(K.GENERATION_RAISED, {"generation": number, "reason": "x", "reopen": st.booleans()}, target=target),
    _made(K.SUPERSEDED_TARGETS, {"targets": list(TARGETS), "by": "r9"}),
    _made(K.QUARANTINED, {"reason": "x", "until": _UNTIL}, target=target),
    _made(K.RELEASED, {"reason": "x"}, target=target),
    _made(K.STOP_SWITCH, {"on": st.booleans(), "reason": "x"}),
    _made(K.GATE, {"wave": 1}),
)

Act = NewEntry | tuple[str, Any, Any]

acts: st.SearchStrategy[Act] = st.one_of(
    entries,
    entries,
    st.tuples(st.just("transition"), rollout, st.sampled_from(list(RolloutState))),
    st.tuples(st.sampled_from(["acquire", "release", "heartbeat", "reboot"]), rollout, target),
)


def act(ledger: SqlLedger, wanted: Act) -> None:
    """Do one act; what the ledger refuses must leave nothing behind, which the caller checks by comparing."""
    try:
        if isinstance(wanted, NewEntry):
            ledger.append(wanted)
        elif wanted[0] == "transition":
            ledger.transition(wanted[1], wanted[2], reason="x")
        else:
            _lease(ledger, *wanted)
    except LedgerError:
        return


def _lease(ledger: SqlLedger, verb: str, rollout: str, target: str) -> None:
    if verb == "acquire":
        ledger.acquire("me", rollout, target, [claim("target", target), claim("domain", "az", 2)], ttl=30)
        return
    for lease in ledger.leases():
        if (lease.rollout, lease.target) != (rollout, target):
            continue
        if verb == "release":
            ledger.release(lease)
        elif verb == "heartbeat":
            ledger.heartbeat(lease, ttl=90)
        else:
            ledger.extend(lease, [claim("reboot", "all")])


def projected(ledger: SqlLedger) -> dict[str, list[dict[str, Any]]]:
    """Give all rows of all projections, in a stable order."""
    found = {}
    with ledger._database.reading() as connection:
        for table in schema.PROJECTIONS:
            rows = connection.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings()
            found[table.name] = [dict(row) for row in rows]
    return found
