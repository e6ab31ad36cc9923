"""An undo that failed, or must not be tried (F10): the policy is locked first, then evidence is gathered once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from patching.change import Outcome
from patching.errors import ChannelError, LedgerConflict, TransitionRefused
from patching.ledger.base import Ledger, RolloutRow, TargetRow
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Plan, PlannedTarget
from patching.probes.checks import run_probes
from patching.report.sentences import names
from patching.rollout.incidents import RUNBOOK, Incident, incidents, lock_of, open_incident
from patching.rollout.probing import probe
from patching.rollout.reversibility import RUNBOOK as IRREVERSIBLE
from patching.rollout.reversibility import told
from patching.rollout.site import Site
from patching.rollout.states import AT_WORK, RolloutState
from patching.rollout.undo_stop import left_by_stop, told_left
from patching.target import Snapshot
from patching.value import JsonValue

NOT_UNDONE = (Outcome.FAILED, Outcome.UNKNOWN, Outcome.STAYS_CHANGED)
LAST_STEPS = 6
TAIL = 2000
MOST = 1000


async def tend_failed_undo(site: Site, plan: Plan) -> Incident | None:
    """Open the incident of a rollout whose undo failed, or must not be, on some target, and gather the evidence.

    Gives the open one.

    Idempotent: one incident for as long as nobody has released it, one piece of evidence for each failed undo. The
    lock is written before anything is asked of a target. Raises LedgerUnavailable.
    """
    rows = site.ledger.targets(plan.rollout)
    failed = [row for row in rows if row.undo_outcome in NOT_UNDONE]
    new = [row for row in failed if site.ledger.find(CONTROL, _evidence_key(row)) is None]
    if not new:
        return _open_one(site.ledger, plan.rollout)
    found = _lock(site.ledger, plan, new, left=told_left(left_by_stop(rows)))
    _hold_policy(site.ledger, plan.policy.name, found)
    room = asyncio.Semaphore(site.concurrency)

    async def one(row: TargetRow) -> None:
        async with room:
            _keep(site.ledger, found, row, await gather_evidence(site, plan, row))

    await asyncio.gather(*(one(row) for row in new))
    return _open_one(site.ledger, plan.rollout)


def _open_one(ledger: Ledger, rollout: str) -> Incident | None:
    return next((item for item in incidents(ledger, rollout=rollout) if item.locks), None)


def _evidence_key(row: TargetRow) -> str:
    return f"incident-evidence:{row.rollout}:{row.target}:{row.generation}"


def _lock(ledger: Ledger, plan: Plan, rows: Sequence[TargetRow], left: Sequence[str]) -> Incident:
    """Give the rollout's open incident, or open one; two workers at once open one."""
    known = incidents(ledger, rollout=plan.rollout)
    current = next((item for item in known if item.locks), None)
    if current is not None:
        return current
    number = len(known) + 1
    name = f"undo-{plan.rollout}" + (f"-{number}" if number > 1 else "")
    open_incident(
        ledger,
        name,
        rollout=plan.rollout,
        policy=plan.policy.name,
        cause="; ".join([_cause(rows), *left]),
        targets=[row.target for row in rows],
        runbook=_runbook(rows),
    )
    return next(item for item in incidents(ledger, rollout=plan.rollout) if item.id == name)


def _cause(rows: Sequence[TargetRow]) -> str:
    """Say on which targets the undo failed, and which stay changed because it was not even tried."""
    failed = [row.target for row in rows if row.undo_outcome is not Outcome.STAYS_CHANGED]
    said = [f"the undo failed on {names(failed)}"] if failed else []
    stays = told({row.target: row.detail for row in rows if row.undo_outcome is Outcome.STAYS_CHANGED})
    return "; ".join([*said, *([f"not undone: {stays}"] if stays else [])])


def _runbook(rows: Sequence[TargetRow]) -> str:
    return IRREVERSIBLE if all(row.undo_outcome is Outcome.STAYS_CHANGED for row in rows) else RUNBOOK


def _hold_policy(ledger: Ledger, policy: str, found: Incident) -> None:
    """Hold every rollout of the policy that is at work, an emergency too: their jobs see it before they begin more."""
    for row in ledger.rollouts(policy=policy, open_only=True, limit=MOST):
        # One that is being undone by now must not be held for the failure of another.
        if row.state in AT_WORK:
            with contextlib.suppress(TransitionRefused):
                ledger.transition(row.id, RolloutState.HELD, reason=found.sentence, only_from=AT_WORK)


def _keep(ledger: Ledger, found: Incident, row: TargetRow, evidence: dict[str, JsonValue]) -> None:
    document = ledger.store_document("evidence", evidence)
    body = {"id": found.id, "rollout": row.rollout, "evidence": document}
    entry = NewEntry(
        chain=CONTROL, kind=EntryKind.INCIDENT_EVIDENCE, key=_evidence_key(row), target=row.target, body=body
    )
    # Another worker may have looked at this target for the same failed undo: what was seen first is kept.
    with contextlib.suppress(LedgerConflict):
        ledger.append(entry)


async def gather_evidence(site: Site, plan: Plan, row: TargetRow) -> dict[str, JsonValue]:
    """Gather what a person needs to repair one target: its last steps, and what it says now if it answers.

    Only reads. Raises LedgerUnavailable; what the target does not tell is said, never left out.
    """
    planned = plan.planned(row.target)
    entries = site.ledger.entries(plan.rollout, target=row.target)
    changes = planned.patches if planned else ()
    return {
        "target": row.target,
        "outcome": row.undo_outcome.value if row.undo_outcome else None,
        "reason": row.detail,
        "wanted_back": {patch.component: patch.before for patch in changes},
        "steps": last_steps(entries),
        "now": await _now(site, plan, planned) if planned else {"answers": False, "detail": "it is not in the plan"},
        "runbook": _runbook([row]),
    }


def last_steps(entries: Sequence[LedgerEntry]) -> list[dict[str, JsonValue]]:
    """Give the last steps of one target with their ends and the tails of what they printed, oldest first."""
    ends = {entry.step: entry for entry in entries if entry.kind is EntryKind.STEP_OUTCOME}
    begun = [entry for entry in entries if entry.kind is EntryKind.INTENT][-LAST_STEPS:]
    return [_step(entry, ends.get(entry.step)) for entry in begun]


def _step(begun: LedgerEntry, ended: LedgerEntry | None) -> dict[str, JsonValue]:
    body = ended.body if ended else {}
    return {
        "name": begun.body["step"]["name"],
        "phase": begun.body["step"]["phase"],
        "began_at": begun.at.isoformat(),
        "ended_at": ended.at.isoformat() if ended else None,
        "ok": body.get("ok"),
        "exit_code": body.get("exit_code"),
        "detail": str(body.get("detail") or ("" if ended else "nobody saw how it ended")),
        "stdout": str(body.get("stdout") or "")[-TAIL:],
        "stderr": str(body.get("stderr") or "")[-TAIL:],
    }


async def _now(site: Site, plan: Plan, planned: PlannedTarget) -> dict[str, JsonValue]:
    """Ask the target for its package state and its checks; a target that does not answer is said so."""
    spec = plan.policy.spec
    driving = site.driver(spec.driver.name, dict(spec.driver.options))
    try:
        session = await site.channel(spec.driver.connection).open(planned.target)
    except ChannelError as error:
        return {"answers": False, "detail": str(error)}
    try:
        found = await probe(session, driving, planned.target, (), site.clock)
        checks = await run_probes(session, planned.target, spec.verify)
    except ChannelError as error:
        return {"answers": False, "detail": f"the connection was lost while it was asked: {error}"}
    finally:
        await session.close()
    said = [{"check": item.check, "ok": item.ok, "detail": item.detail} for item in checks]
    return {"answers": True, **_state(found, planned), "checks": said}


def _state(found: Snapshot, planned: PlannedTarget) -> dict[str, JsonValue]:
    return {
        "taken_at": found.taken_at.isoformat(),
        "versions": {patch.component: found.version(patch.component) for patch in planned.patches},
        "half_installed": list(found.half_installed),
        "held": list(found.held),
        "kernel": found.kernel,
        "reboot_required": found.reboot_required,
        "stale_services": list(found.stale_services),
    }


def locked_sentence(ledger: Ledger, row: RolloutRow) -> str:
    """Say what locks a rollout's policy; empty where nothing does."""
    found = lock_of(ledger, row.policy)
    return found.sentence if found else ""
