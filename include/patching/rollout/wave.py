"""Applying one shard of a wave: a sliding window of change jobs, never a barrier, stopped by budgets at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice

from patching.change import JobResult, Outcome
from patching.errors import FenceLost, LedgerError
from patching.ledger.base import Busy, Claim, TargetRow
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.capacity import target_claims
from patching.plan.document import Plan, PlannedTarget
from patching.rollout.ahead import Ahead
from patching.rollout.answers import WaveSummary
from patching.rollout.brake import Brake
from patching.rollout.budgets import Stop, count
from patching.rollout.change_job import ChangeJob
from patching.rollout.drill import drill
from patching.rollout.error_budget import watched
from patching.rollout.gates import leave_for_next_window, verdict_of
from patching.rollout.late import look_for_returned, of_earlier_waves
from patching.rollout.memory import seldom_searched
from patching.rollout.polling import polling
from patching.rollout.quarantine import left_in_quarantine
from patching.rollout.record import Record, first_written, free_ended, frozen_plan, say_target_waits
from patching.rollout.retries import TryLater, bounded, not_before
from patching.rollout.site import Site
from patching.rollout.states import RolloutState
from patching.rollout.steps import StoppedHere
from patching.rollout.turns import HeldBack, Turns

BUSY_PAUSE = 0.5
LONGEST_PAUSE = 2.0
"""A waiting target looks at least this often (seconds) whether launching has stopped."""


def _lease(waits: Busy | TryLater | None) -> Busy | None:
    return waits if isinstance(waits, Busy) else None


def open_rows(rows: Sequence[TargetRow], wave: int) -> list[TargetRow]:
    """Give the targets of a wave that have no final outcome yet; an unknown one is not final."""
    return [row for row in rows if row.wave == wave and (row.outcome is None or row.outcome is Outcome.UNKNOWN)]


def shard_of(plan: Plan, wave: int, shard: int, shards: int) -> list[PlannedTarget]:
    """Give a shard's targets: every ``shards``-th target of the wave, in plan order."""
    found = plan.wave(wave)
    names = found.targets[shard::shards] if found else ()
    return [item for item in (plan.planned(name) for name in names) if item is not None]


def refusal(site: Site, rollout: str, wave: int) -> str | None:
    """Say why a wave must not be worked on now: only the ledger decides, whatever Airflow shows."""
    row = site.ledger.rollout(rollout)
    if row is None:
        return "there is no rollout for this run"
    if row.state is not RolloutState.RUNNING:
        return f'the rollout is "{row.state.value}", not running'
    if site.ledger.find(rollout, f"wave-started:{wave}") is None:
        return f"no gate has opened wave {wave}"
    if verdict_of(site.ledger, rollout, wave) is not None:
        return f"wave {wave} has its verdict already"
    return None


class ShardRun:
    """The sliding window of one shard."""

    def __init__(self, record: Record, plan: Plan, wave: int, stop: Callable[[], str | None]) -> None:
        self.record = record
        self.site = record.site
        self.plan = plan
        self.wave = wave
        self.brake = Brake(record, plan, wave, stop)
        self.turns = Turns(record, plan, wave)
        self.room = asyncio.Semaphore(self.site.concurrency)
        self.freed = asyncio.Event()
        self.asking: dict[str, tuple[str, str]] = {}
        self.claims: dict[str, list[Claim]] = {}
        driver = plan.policy.spec.driver
        self.channel = Ahead(self.site.channel(driver.connection), record, plan.rollout, self.brake)
        self.driver = self.site.driver(driver.name, dict(driver.options))

    def ease(self, plan: Plan) -> None:
        """Go on by a plan that lets more, or fewer, be changed at once; what has begun keeps its places."""
        self.plan = self.brake.plan = plan
        self.claims.clear()

    async def run(self, targets: Sequence[PlannedTarget]) -> None:
        """Carry out every target that is still open, as many at once as leases and the site allow.

        Those whose outcome is unknown are settled first, whichever shard they are of: while one is left, nothing new
        begins in any shard.
        """
        try:
            with seldom_searched():
                await self._launch(await self._unknown(), settling=True, own={item.target.name for item in targets})
                await self._launch(targets)
        finally:
            await self.channel.close()

    async def _unknown(self) -> list[PlannedTarget]:
        groups = await self.record.call(self.site.ledger.outcomes, self.plan.rollout)
        if not any(group.wave == self.wave and group.outcome is Outcome.UNKNOWN for group in groups):
            return []
        rows = await self.record.call(self.site.ledger.targets, self.plan.rollout)
        names = [row.target for row in rows if row.wave == self.wave and row.outcome is Outcome.UNKNOWN]
        return [item for item in map(self.plan.planned, names) if item is not None]

    async def _launch(
        self, targets: Sequence[PlannedTarget], *, settling: bool = False, own: Collection[str] | None = None
    ) -> None:
        left = {item.target.name: item for item in targets}
        async with asyncio.TaskGroup() as jobs:
            while left:
                await self._place(self._coming(left), settling=settling)
                planned = next(iter(self._coming(left)), None)
                if planned is None:
                    self.room.release()
                    if await self.brake.stops(settling=settling):
                        return
                    await self._wait_for_room()
                    continue
                del left[planned.target.name]
                if await self.brake.holds(planned, settling=settling):
                    self.room.release()
                    if self.brake.stopped is not None:
                        await self.channel.close()
                        return
                    await self.channel.drop(planned.target.name)
                    continue
                retry = own is None or planned.target.name in own
                jobs.create_task(self._one(planned, settling=settling, retry=retry))

    def _coming(self, left: Mapping[str, PlannedTarget]) -> list[PlannedTarget]:
        """Give those that come next: not those that would only stand behind as many waiters as there are places.

        So the ledger is asked by few, however many are left, and who needs another resource is not behind them.
        """
        asked = Counter(self.asking.values())
        free = (item for item in left.values() if not self._crowded(item, asked))
        return list(islice(free, self.channel.most))

    def _crowded(self, planned: PlannedTarget, asked: Mapping[tuple[str, str], int]) -> bool:
        if not asked:
            return False
        claims = self.claims.setdefault(planned.target.name, target_claims(self.plan, planned.target))
        most = self.site.concurrency
        return any(asked.get((item.kind, item.name), 0) >= min(item.limit, most) for item in claims)

    async def _place(self, coming: Sequence[PlannedTarget], *, settling: bool) -> None:
        """Wait for a place in this process; the next who come are logged in to meanwhile, unless launching stops."""
        anew = False
        while self.room.locked():
            await self.channel.expect(coming, anew=anew)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_PAUSE):
                    await self.room.acquire()
                    return
            anew = True
            await self.brake.stops(settling=settling)
        await self.room.acquire()

    async def _one(self, planned: PlannedTarget, *, settling: bool, retry: bool) -> None:
        try:
            await self._until_ended(planned, settling=settling, retry=retry)
        except FenceLost as error:
            self.site.log(f"{planned.target.name}: another worker has taken over ({error})")
        except StoppedHere as stop:
            self.site.log(str(stop))
            self.brake.stop(str(stop))
        finally:
            self.asking.pop(planned.target.name, None)
            self.room.release()
            self._say_freed()
            await self.channel.drop(planned.target.name)

    async def _until_ended(self, planned: PlannedTarget, *, settling: bool, retry: bool) -> None:
        name, busy = planned.target.name, None
        asked = True  # by `_launch`, a moment ago
        while asked or not await self.brake.holds(planned, settling=settling, busy=_lease(busy)):
            asked = False
            row = await self._row(name)
            if row.outcome not in (None, Outcome.UNKNOWN):  # perhaps undoing: a drill that was interrupted
                break
            if await self._not_due(planned, row, settling=settling):
                continue
            if await left_in_quarantine(self.record, row, self.brake.kept_apart):
                break
            if (held := await self._held_back(planned, row)) is not None:
                if held.again:
                    continue
                break
            some_down = busy is not None or self.brake.some_down
            before, busy = busy, await self._try(planned, row, retry=retry, some_down=some_down)
            if busy is None:
                return
            await self._wait_for_lease(planned, busy, before)
        if busy is not None:
            await self.record.write(lambda transaction: transaction.leave_queue(self.plan.rollout, name))

    async def _try(
        self, planned: PlannedTarget, row: TargetRow, *, retry: bool, some_down: bool
    ) -> Busy | TryLater | None:
        """Run the change job once; None where the target has ended."""
        job = ChangeJob(self.record, self.plan, planned, self.channel, self.driver, row)
        answer = await job.run(retry=retry, some_down=some_down, placed=lambda: self.asking.pop(row.target, None))
        if isinstance(answer, JobResult):
            self.site.log(f"{row.target}: {answer.outcome.value}: {answer.reason}")
            return None
        if isinstance(answer, TryLater):
            self.site.log(f"{row.target} {answer.sentence}")
        return answer

    async def _wait_for_lease(
        self, planned: PlannedTarget, busy: Busy | TryLater, before: Busy | TryLater | None
    ) -> None:
        name = planned.target.name
        if not isinstance(busy, Busy):
            return
        if before is None or busy.sentence != before.sentence:
            await say_target_waits(self.record, name, busy.sentence)
        self.asking[name] = busy.kind, busy.name
        self.channel.begin(planned.target)
        await self.record.free_left()
        # Whoever needs another resource has this place of the process meanwhile.
        self.room.release()
        try:
            await self._wait_for_room()
        finally:
            await self.room.acquire()

    async def _not_due(self, planned: PlannedTarget, row: TargetRow, *, settling: bool) -> bool:
        """Wait for the time of a target's next try; False where it is due.

        The wait takes no place of this process. It ends early when launching stops.
        """
        if not row.generation:
            return False
        kinds = (EntryKind.GENERATION_RAISED, EntryKind.TARGET_OUTCOME)
        entries = await self.record.call(
            self.site.ledger.entries, self.plan.rollout, kinds=kinds, target=planned.target.name
        )
        due = not_before(entries)
        if due is None or self.site.clock() >= due:
            return False
        due = bounded(due, self.plan.policy.spec.on_failure.retry, self.site.clock())
        self.room.release()
        self._say_freed()
        try:
            while (left := (due - self.site.clock()).total_seconds()) > 0:
                await self.site.pause(min(left, LONGEST_PAUSE))
                if await self.brake.holds(planned, settling=settling):
                    break
        finally:
            await self.room.acquire()
        return True

    def _say_freed(self) -> None:
        """Wake who waits now; whoever comes later waits for the next."""
        self.freed.set()
        self.freed = asyncio.Event()

    async def _held_back(self, planned: PlannedTarget, row: TargetRow) -> HeldBack | None:
        """Say why it is not this target's turn, after a moment's wait where it is asked again; None where it is."""
        held = await self.turns.holds_back(planned, row)
        if held is None:
            return None
        if held.sentence != row.waits_for:
            self.site.log(f"{row.target} {held.sentence}")
            if not held.ended:
                await say_target_waits(self.record, row.target, held.sentence)
        if held.again:
            await self._wait_for_room()
        return held

    async def _wait_for_room(self) -> None:
        """Wait until a job of this process ends, or look again after a moment: other workers hold leases too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BUSY_PAUSE):
                await self.freed.wait()

    async def _row(self, name: str) -> TargetRow:
        row = await self.record.call(self.site.ledger.target, self.plan.rollout, name)
        if row is None:
            raise LedgerError(f"{name} is in the plan of {self.plan.rollout}, but the ledger has no row of it")
        return row


async def apply_wave(
    site: Site, rollout: str, wave: int, shard: int, shards: int, run_id: str, stop: Callable[[], str | None]
) -> WaveSummary:
    """Apply one shard of a wave; refuses (``skipped``) unless the ledger has the wave's open gate.

    Running it again resumes: ended targets stay as they are, open intents are settled by their ids.
    Raises LedgerUnavailable after the site's patience.
    """
    why_not = refusal(site, rollout, wave)
    plan = frozen_plan(site, rollout)
    if why_not is not None or plan is None:
        return WaveSummary(wave=wave, shard=shard, sentence=why_not or "there is no plan", skipped=True)
    targets = shard_of(plan, wave, shard, shards)
    record = Record(site, rollout)
    try:
        late = of_earlier_waves(plan, wave, shard, shards)
        await look_for_returned(record, plan, wave, [*targets, *late])
        targets = _in_order(site.ledger.targets(rollout), targets, late)
        if not targets:
            return WaveSummary(wave=wave, shard=shard, sentence="this shard has no targets", skipped=True)
        work = ShardRun(record, plan, wave, stop)
        async with watched(site, plan, wave, work.ease), polling(site, plan, wave):
            async with _guard(site, plan, wave, work.brake):
                await work.run(targets)
            if not shard and await drill(record, plan, work.brake, work.channel, work.driver):
                await work.run(targets)
    finally:
        await record.close()
    free_ended(site, rollout)
    names = {item.target.name for item in targets}
    counts = count(row for row in site.ledger.targets(rollout) if row.target in names).model_dump()
    summary = summary_of(wave, shard, counts, work.brake.verdict)
    left_over = work.turns.leftover_sentence()
    if left_over:
        leave_for_next_window(site, plan, wave, run_id, left_over)
        summary = summary.model_copy(
            update={"sentence": f"{summary.sentence}; {left_over}", "bad": _bad(counts, left=True)}
        )
    _record_applied(site, rollout, summary, run_id, work.brake.verdict)
    return summary


def _guard(site: Site, plan: Plan, wave: int, brake: Brake) -> AbstractAsyncContextManager[None]:
    """Watch the metrics of a wave that has any to watch."""
    if not plan.guarded(wave):
        return contextlib.nullcontext()
    # It computes with NumPy, which takes a worker longer to load than many a wave's own code.
    from patching.rollout.wave_guard import guarding

    return guarding(site, plan, wave, brake)


def _in_order(
    rows: Sequence[TargetRow], targets: Sequence[PlannedTarget], late: Sequence[PlannedTarget]
) -> list[PlannedTarget]:
    """Give a wave's targets and the late ones that are open again, those in mid-change first.

    Those hold places for which all other jobs of this worker may come to wait.
    """
    again = {row.target for row in rows if row.outcome is None}
    begun = {row.target for row in rows if row.began_at is not None}
    found = [*targets, *(item for item in late if item.target.name in again)]
    return sorted(found, key=lambda item: item.target.name not in begun)


def _record_applied(site: Site, rollout: str, summary: WaveSummary, run_id: str, stop: Stop | None) -> None:
    """Write how a shard of a wave went and which rule stopped it, with the numbers that it had then."""
    body = {
        "wave": summary.wave,
        "shard": summary.shard,
        "run": run_id,
        "stop": stop.model_dump(mode="json") if stop else None,
        **summary.counts,
    }
    while True:
        number = len(site.ledger.entries(rollout, kinds=[EntryKind.WAVE_APPLIED]))
        key = f"wave-applied:{summary.wave}:{summary.shard}:{run_id}:{number}"
        entry = NewEntry(chain=rollout, kind=EntryKind.WAVE_APPLIED, key=key, body=body)
        if first_written(site.ledger, entry).body == body:
            return


def _bad(counts: dict[str, int], *, left: bool = False) -> bool:
    """Say whether a shard is shown failed: what is ``left`` for the next window is no failure."""
    return any(counts.get(name) for name in ("failed", "unknown", "drifted") + (() if left else ("pending",)))


def summary_of(wave: int, shard: int, counts: dict[str, int], stopped: Stop | None) -> WaveSummary:
    """Put a shard's counts into the sentence that Airflow shows."""
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number and name != "total")
    sentence = f"wave {wave}: {said or 'nothing'} of {counts.get('total', 0)}"
    if stopped is not None:
        sentence += f"; stopped launching: {stopped.sentence}"
    bad = _bad(counts)
    return WaveSummary(
        wave=wave, shard=shard, counts=counts, stopped=stopped.sentence if stopped else None, sentence=sentence, bad=bad
    )
