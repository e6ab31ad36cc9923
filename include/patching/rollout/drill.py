"""The rollback drill: the first canary is changed, undone, proven, and changed again, before anybody else follows.

An undo that was never tried is a hope. Where the policy asks for it, wave 1 is not judged before the drill has passed;
a drill whose undo fails locks the policy as any failed undo does. Everything goes by the ledger, so that a worker that
dies in the middle is resumed: ``drill`` entries say what has begun and what was proven.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patching.change import JobResult, Outcome
from patching.channels.base import Channel
from patching.drivers.base import PatchDriver
from patching.errors import FenceLost
from patching.ledger.base import Busy, TargetRow
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.document import Plan, PlannedTarget
from patching.rollout.brake import Brake
from patching.rollout.record import Record
from patching.rollout.reversibility import PROVEN
from patching.rollout.site import Site
from patching.rollout.undo_failure import tend_failed_undo
from patching.rollout.undo_job import UndoJob
from patching.rollout.undo_wait import UndoWait

WAVE = 1
BUSY_PAUSE = 0.5


def missing(site: Site, plan: Plan, wave: int, rows: Sequence[TargetRow]) -> str | None:
    """Say why a wave must not be judged yet: its drill is not proven; None where none is asked for or needed."""
    if wave != WAVE or not plan.policy.spec.rollout.drill or _candidate(plan, rows) is None:
        return None
    if site.ledger.find(plan.rollout, PROVEN) is not None:
        return None
    return "the rollback drill on the first canary is not done: nobody knows yet whether the change can be undone"


def failed_drill(site: Site, plan: Plan, wave: int, rows: Sequence[TargetRow]) -> str | None:
    """Say how the drill of a wave failed: an undo that did not bring the canary back, or no second change after it."""
    if wave != WAVE or not plan.policy.spec.rollout.drill:
        return None
    proven = site.ledger.find(plan.rollout, PROVEN)
    if proven is None:
        tried = _candidate(plan, rows)
        if tried is None or tried.undo_outcome is None:
            return None
        return f"the rollback drill failed: {tried.target} was changed and is not back: {tried.detail}"
    again = next((row for row in rows if row.target == proven.target), None)
    if again is None or again.outcome in (None, Outcome.APPLIED, Outcome.UNKNOWN):
        return None
    return f"the rollback drill failed: {again.target} was undone, and could not be changed again: {again.detail}"


async def drill(record: Record, plan: Plan, brake: Brake, channel: Channel, driver: PatchDriver) -> bool:
    """Undo the first changed canary, and open it again where that is proven; True where it must be changed once more.

    Does nothing outside of the first wave, nothing while launching is stopped, and nothing twice.
    Where another worker takes the canary over, the drill is theirs. Raises LedgerUnavailable.
    """
    site = record.site
    rows = await record.call(site.ledger.targets, plan.rollout)
    if missing(site, plan, brake.wave, rows) is None:
        return False
    row = _candidate(plan, rows)
    planned = plan.planned(row.target) if row is not None else None
    if row is None or planned is None or await brake.holds(planned):
        return False

    def due(now: TargetRow) -> bool:
        return now.outcome is Outcome.APPLIED and site.ledger.find(plan.rollout, PROVEN) is None

    await record.append(EntryKind.DRILL, f"drill:begun:{row.target}", {"what": "begun"}, target=row.target)
    site.log(f"rollback drill: {row.target} is undone, and changed again when that is proven")
    site.crash("drill-begun")
    # What people declared is put to the test here; what the driver found cannot be done at all.
    against = [item for item in planned.undo.irreversible if not item.declared]
    job = UndoJob(record, plan, planned, channel, driver, row, obstacles=against)
    try:
        answer = await _undone(record, brake, job, planned, due)
    except FenceLost as error:
        site.log(f"rollback drill: {row.target}: another worker has taken over ({error})")
        return False
    if isinstance(answer, Busy):
        site.log(f"rollback drill: {row.target} {answer.sentence}: it is not undone now, so nothing is proven")
        return False
    site.log(f"rollback drill: {row.target}: {answer.outcome.value}: {answer.reason}")
    if answer.outcome is not Outcome.UNDONE:
        await tend_failed_undo(site, plan)
        return False
    await _open_again(record, plan, row.target)
    return True


async def _undone(
    record: Record, brake: Brake, job: UndoJob, planned: PlannedTarget, due: Callable[[TargetRow], bool]
) -> JobResult | Busy:
    """Undo the canary; gives what it waits for where it is no use to wait, or launching stops meanwhile."""
    wait = UndoWait(record, {planned.target.name})
    while isinstance(answer := await job.run(due), Busy):
        await record.free_left()
        if await wait.in_vain(answer) is not None or await brake.holds(planned, busy=answer):
            await record.write(lambda transaction: transaction.leave_queue(record.rollout, planned.target.name))
            return answer
        await record.site.pause(BUSY_PAUSE)
    return answer


def _candidate(plan: Plan, rows: Sequence[TargetRow]) -> TargetRow | None:
    """Give the first canary, in the plan's order, that was changed: if any, one with declared irreversible patches.

    Those need the proof most, and it holds for all targets that get the same ones. What the driver knows that it cannot
    be undone is taken only where every canary is so.
    """
    changed = {row.target: row for row in rows if row.wave == WAVE and row.outcome is Outcome.APPLIED}
    found = plan.wave(WAVE)
    canaries = [item for item in map(plan.planned, found.targets if found else ()) if item is not None]
    canaries.sort(key=_fit_for_proof)
    return next((changed[item.target.name] for item in canaries if item.target.name in changed), None)


def _fit_for_proof(item: PlannedTarget) -> tuple[bool, bool]:
    declared = [one.declared for one in item.undo.irreversible]
    return not all(declared), not any(declared)


async def _open_again(record: Record, plan: Plan, name: str) -> None:
    """Write the proof and the new generation in one transaction: a crash leaves both or none."""
    ledger = record.site.ledger
    row = await record.call(ledger.target, plan.rollout, name)
    # In this order: whoever reads a generation from after the proof finds the proof, and raises no further one.
    if await record.call(ledger.find, plan.rollout, PROVEN) is not None:
        return
    generation = (row.generation if row is not None else 0) + 1
    proof = NewEntry(
        chain=plan.rollout, kind=EntryKind.DRILL, key=PROVEN, target=name, body={"what": "proven", "target": name}
    )
    body = {"generation": generation, "reason": "rollback drill: the undo is proven", "reopen": True}
    again = NewEntry(
        chain=plan.rollout,
        kind=EntryKind.GENERATION_RAISED,
        key=f"generation:{name}:{generation}",
        target=name,
        body={**body, "reopen_undo": True},
    )
    await record.call(ledger.append_all, [proof, again])
