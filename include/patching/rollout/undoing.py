"""Undoing: wave by wave, newest first, at once after a bad verdict, swept again at the end; what fails is loud.

The next older wave begins when the newer one has ended, and never after one with an undo that failed: what breaks on a
few must not be tried on all. Targets whose change did not end well are brought back at once, whichever their wave:
they are out of service, and a newer wave may wait for a place that they hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from patching.change import JobResult, Outcome
from patching.errors import FenceLost
from patching.ledger.base import Busy, TargetRow
from patching.ledger.entry import EntryKind
from patching.plan.document import Plan, PlannedTarget
from patching.rollout.answers import UndoSummary
from patching.rollout.backwards import Backwards
from patching.rollout.incidents import Incident
from patching.rollout.quarantine import keep_failed_apart
from patching.rollout.record import Record, free_ended, frozen_plan, moved, say_target_waits
from patching.rollout.reversibility import Proof, proof, what_stays
from patching.rollout.site import Site
from patching.rollout.states import AT_WORK, RolloutState
from patching.rollout.undo_failure import NOT_UNDONE, tend_failed_undo
from patching.rollout.undo_job import UndoJob
from patching.rollout.undo_stop import CHANGED, left_by_stop, may_begin, told_left
from patching.rollout.undo_wait import InVain, UndoWait, told_busy

BUSY_PAUSE = 0.5
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_undo(rows: Sequence[TargetRow], state: RolloutState, wave: int | None) -> list[TargetRow]:
    """Give the targets to undo, newest change first.

    In an undoing rollout all that were changed, those in mid-change too (their job was stopped or died), whichever
    wave asks. In another one only those of the wave that failed, so that no target stays half-changed while the wave
    goes on within its budget, or waits for its next run.
    """
    undoing = state is RolloutState.UNDOING
    wanted = CHANGED if undoing else frozenset({Outcome.FAILED})
    found = [
        row
        for row in rows
        if row.outcome in wanted
        and row.began_at is not None
        and row.undo_outcome is None
        and (undoing or wave in (None, row.wave))
    ]
    return sorted(found, key=lambda row: (row.ended_at or EPOCH, row.target), reverse=True)


async def undo_wave(site: Site, rollout: str, wave: int | None, run_id: str, *, once: bool = False) -> UndoSummary:
    """Undo what must be undone after one wave, or (``wave`` None, the final sweep) in the whole rollout.

    Who finds no place waits as long as somebody may free it (``UndoWait``), with ``once`` only as long as others end;
    then it stays open, and it and the summary say so. A rollout that is being undone stays so, and reconciling goes on
    with it; one at work is held. Skipped unless the ledger says so. After the sweep the rollout is ``undone``, or
    ``held`` where an undo failed: then an incident locks the policy (F10).
    """
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    if row is None or plan is None:
        return UndoSummary(wave=wave, sentence="nothing was planned, so nothing can be undone", skipped=True)
    if row.state not in (RolloutState.UNDOING, *AT_WORK, RolloutState.HELD):
        return UndoSummary(wave=wave, sentence=f'the rollout is "{row.state.value}": nothing to undo', skipped=True)
    never = plan.policy.spec.on_failure.undo == "never" and row.state is not RolloutState.UNDOING
    found = [] if never else to_undo(site.ledger.targets(rollout), row.state, wave)
    record = Record(site, rollout)
    try:
        stays = _mates(site, plan) if row.state is RolloutState.UNDOING else {}
        busy, for_person = await _undo_all(record, plan, found, wave, stays, once=once)
        await keep_failed_apart(record, plan)
    finally:
        await record.close()
    if never:
        return UndoSummary(wave=wave, sentence="the policy says onFailure.undo: never", skipped=True)
    free_ended(site, rollout)
    if for_person and row.state in AT_WORK:
        # It must not be completed, or go on, while a target that failed is not undone. Where its own next run must go
        # on first, something is open in it and it is not completed anyway.
        reason = f"not all is undone yet: {told_busy(busy)}; resume it then"
        moved(site, rollout, RolloutState.HELD, reason=reason, only_from=AT_WORK)
    incident = await tend_failed_undo(site, plan)
    if wave is None:
        _close(site, rollout, row.state, incident)
    return _summary(site, rollout, wave, [item.target for item in found], busy)


def _mates(site: Site, plan: Plan) -> dict[str, str]:
    """Say which targets stay because of another one: what stands against themselves their own job finds out."""
    found, known = what_stays(site.ledger, plan), proof(site.ledger, plan)
    own = {item.target.name for item in plan.targets if item.target.name in found and known.obstacles(item)}
    return {name: said for name, said in found.items() if name not in own}


async def _undo_all(
    record: Record,
    plan: Plan,
    rows: Sequence[TargetRow],
    wave: int | None,
    stays: Mapping[str, str],
    *,
    once: bool = False,
) -> tuple[dict[str, str], bool]:
    """Undo all, in rounds, until one ends nobody.

    Gives who found no place then, and why not; and whether more is needed than the rollout's next run.
    """
    wait = UndoWait(record, {row.target for row in rows})
    work = _UndoRun(record, plan, wave, stays, await record.call(proof, record.site.ledger, plan), wait, once=once)
    while True:
        left = await work.round(rows)
        if len(left) in (0, len(rows)):
            return work.busy, not work.busy.keys() <= work.next_run
        rows = left


class _UndoRun:
    """The undo jobs of one worker, as many at once as the site allows.

    With ``once`` each is tried once in a round; ``busy`` are those that found no place, with the reason, ``next_run``
    those of them that wait for the next run of their own rollout.
    """

    def __init__(
        self,
        record: Record,
        plan: Plan,
        wave: int | None,
        stays: Mapping[str, str],
        known: Proof,
        wait: UndoWait,
        *,
        once: bool,
    ) -> None:
        self.record, self.plan, self.wave = record, plan, wave
        self.stays, self.known, self.wait, self.once = stays, known, wait, once
        self.busy: dict[str, str] = {}
        self.next_run: set[str] = set()
        driver = plan.policy.spec.driver
        self.channel = record.site.channel(driver.connection)
        self.driver = record.site.driver(driver.name, dict(driver.options))
        self.room = asyncio.Semaphore(record.site.concurrency)

    async def round(self, rows: Sequence[TargetRow]) -> list[TargetRow]:
        """Undo these, wave by wave; gives who is left: who found no place, and the waves that did not begin."""
        self.busy, self.next_run = {}, set()
        begun = [row for row in rows if row.outcome is not Outcome.APPLIED]
        async with asyncio.TaskGroup() as jobs:
            at_once = list(zip(begun, self._begin(jobs, begun), strict=True))
            for number in sorted({row.wave for row in rows}, reverse=True):
                if not may_begin(await self.record.call(self.record.site.ledger.targets, self.plan.rollout), number):
                    break
                whole = [row for row in rows if row.wave == number and row.outcome is Outcome.APPLIED]
                begun += whole
                await asyncio.wait([*self._begin(jobs, whole), *(task for row, task in at_once if row.wave == number)])
        ended = {row.target for row in begun} - self.busy.keys()
        return [row for row in rows if row.target not in ended]

    def _begin(self, jobs: asyncio.TaskGroup, rows: Sequence[TargetRow]) -> list[asyncio.Task[None]]:
        """Begin the undo of targets that wait for each other only as their order says."""
        order = Backwards(self.plan, rows)
        return [jobs.create_task(self._tolerating_takeover(row, order)) for row in rows]

    async def _tolerating_takeover(self, row: TargetRow, order: Backwards) -> None:
        """Undo one target in its turn; one that another worker has taken over is theirs."""
        await order.turn(row.target)
        try:
            await self._one(row, order)
        except FenceLost as error:
            self.record.site.log(f"{row.target}: another worker has taken over ({error})")
        finally:
            order.passed(row.target)

    async def _one(self, row: TargetRow, order: Backwards) -> None:
        record, planned = self.record, self.plan.planned(row.target)
        if planned is None:
            return
        later = await record.call(record.site.ledger.later_rollouts, self.plan.rollout, row.target)
        if later:
            await _conclude_refused(record, row, f"not undone: rollout {later[0]} changed it later")
            return
        said = ""
        while isinstance(answer := await self._try(planned, row), Busy):
            # Neither the room nor the order is kept by who waits: an earlier target may hold what it waits for.
            order.passed(row.target)
            in_vain = await self.wait.in_vain(answer)
            if in_vain is not None or self.once:
                await self._leave_open(row, in_vain or InVain(answer.sentence))
                return
            if answer.sentence != said:
                said = answer.sentence
                await say_target_waits(record, row.target, f"{said}; then it is undone")
            await record.free_left()
            await asyncio.sleep(BUSY_PAUSE)
        record.site.log(f"{row.target}: undo: {answer.outcome.value}: {answer.reason}")

    async def _leave_open(self, row: TargetRow, why: InVain) -> None:
        """Leave an undo for later; who may yet have its place keeps its turn in the queue for it."""
        self.busy[row.target] = why.sentence
        if why.next_run:
            self.next_run.add(row.target)
        await say_target_waits(self.record, row.target, f"{why.sentence}; then it is undone")
        if why.for_good:
            await self.record.write(lambda transaction: transaction.leave_queue(self.plan.rollout, row.target))

    async def _try(self, planned: PlannedTarget, row: TargetRow) -> JobResult | Busy:
        against, why = self.known.obstacles(planned), self.stays.get(row.target, "")
        async with self.room:
            job = UndoJob(self.record, self.plan, planned, self.channel, self.driver, row, obstacles=against, stays=why)
            with self.wait.trying(job):
                return await job.run(self._due)

    def _due(self, row: TargetRow) -> bool:
        now = self.record.site.ledger.rollout(self.plan.rollout)
        return now is not None and bool(to_undo([row], now.state, self.wave))


async def _conclude_refused(record: Record, row: TargetRow, reason: str) -> None:
    body = {"outcome": Outcome.SKIPPED.value, "reason": reason, "signature": None, "active": True, "undo": True}
    key = f"target-outcome:{row.target}:{row.generation}:undo"
    await record.append(EntryKind.TARGET_OUTCOME, key, body, target=row.target)


def _close(site: Site, rollout: str, state: RolloutState, incident: Incident | None) -> None:
    if state is not RolloutState.UNDOING:
        return
    rows = site.ledger.targets(rollout)
    kept = left_by_stop(rows)
    if len(to_undo(rows, state, None)) > len(kept):
        return
    undone = sum(row.undo_outcome is Outcome.UNDONE for row in rows)
    bad = [row.target for row in rows if row.undo_outcome in NOT_UNDONE]
    if bad:
        lock = f"incident {incident.id} locks the policy" if incident else "a person must look"
        reason = "; ".join([f"{undone} undone", f"NOT undone: {', '.join(bad)}", *told_left(kept), lock])
        moved(site, rollout, RolloutState.HELD, reason=reason, only_from=(RolloutState.UNDOING,))
        return
    moved(site, rollout, RolloutState.UNDONE, reason=_put_back(site, rollout, rows, undone))


def _put_back(site: Site, rollout: str, rows: Sequence[TargetRow], undone: int) -> str:
    """Say what an undo reached, what was never touched, and why it was done, for who looks the next morning."""
    changed = sum(row.began_at is not None for row in rows)
    text = f"{undone} of {changed} changed targets run what they ran before"
    if changed < len(rows):
        text += f", {len(rows) - changed} were never touched"
    moves = site.ledger.entries(rollout, kinds=[EntryKind.TRANSITION])
    why = [str(entry.body["reason"]) for entry in moves if entry.body["to"] == RolloutState.UNDOING]
    return f"{text}. Why: {why[-1]}" if why else text


def _summary(site: Site, rollout: str, wave: int | None, asked: Sequence[str], busy: Mapping[str, str]) -> UndoSummary:
    known, names = site.ledger.targets(rollout), set(asked)
    rows = [row for row in known if row.target in names]
    counts: dict[str, int] = {}
    for row in rows:
        name = row.undo_outcome.value if row.undo_outcome else "open"
        counts[name] = counts.get(name, 0) + 1
    if not rows:
        return UndoSummary(wave=wave, sentence="nothing to undo", skipped=True)
    kept = [row for row in left_by_stop(known) if row.target in names]
    left = {row.target for row in kept}
    bad = [row.target for row in rows if row.undo_outcome is not Outcome.UNDONE and row.target not in left]
    said = [f"{counts.get('undone', 0)} of {len(rows)} undone"]
    said += [f"NOT undone: {', '.join(bad)}"] if bad else []
    said += [*told_left(kept), *([told_busy(busy)] if busy else [])]
    return UndoSummary(wave=wave, counts=counts, sentence="; ".join(said), bad=bool(bad or kept))
