"""Applying one shard of a wave: a sliding window of change jobs, never a barrier, stopped by budgets at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from patching.change import JobResult, Outcome, TargetState
from patching.errors import FenceLost, LedgerError
from patching.ledger.base import Busy, TargetRow
from patching.ledger.entry import EntryKind
from patching.plan.document import Plan, PlannedTarget
from patching.rollout.answers import WaveSummary
from patching.rollout.budgets import Stop, count, counted, spent
from patching.rollout.change_job import ChangeJob
from patching.rollout.gates import verdict_of
from patching.rollout.record import Record, free_ended, frozen_plan
from patching.rollout.site import Site
from patching.rollout.states import RolloutState
from patching.rollout.steps import StoppedHere

BUSY_PAUSE = 0.5


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
        self.asked_to_stop = stop
        self.stopped: Stop | None = None
        self.freed = asyncio.Condition()
        driver = plan.policy.spec.driver
        self.channel = self.site.channel(driver.connection)
        self.driver = self.site.driver(driver.name, dict(driver.options))

    async def run(self, targets: Sequence[PlannedTarget]) -> None:
        """Carry out every target that is still open, as many at once as leases and the site allow."""
        room = asyncio.Semaphore(self.site.concurrency)
        async with asyncio.TaskGroup() as jobs:
            for planned in targets:
                await room.acquire()
                if await self._must_stop():
                    room.release()
                    return
                jobs.create_task(self._one(planned, room))

    async def _must_stop(self) -> bool:
        """Check everything that stops launching: budgets over the whole wave, the stop switch, a person, the state."""
        if self.stopped is not None:
            return True
        reason = self.asked_to_stop() or await self.record.call(self.site.ledger.stopped)
        if reason is None:
            row = await self.record.call(self.site.ledger.rollout, self.plan.rollout)
            if row is None or row.state is not RolloutState.RUNNING:
                reason = f'the rollout is "{row.state.value if row else "gone"}"'
        if reason is not None:
            self.stopped = Stop(rule="stop", sentence=reason)
            return True
        groups = await self.record.call(self.site.ledger.outcomes, self.plan.rollout)
        counts = counted(group for group in groups if group.wave == self.wave)
        self.stopped = spent(self.plan.policy.spec.rollout.stop_when, counts)
        return self.stopped is not None

    async def _one(self, planned: PlannedTarget, room: asyncio.Semaphore) -> None:
        try:
            await self._until_leased(planned)
        except FenceLost as error:
            self.site.log(f"{planned.target.name}: another worker has taken over ({error})")
        except StoppedHere as stop:
            self.site.log(str(stop))
            self.stopped = Stop(rule="stop", sentence=str(stop))
        finally:
            room.release()
            async with self.freed:
                self.freed.notify_all()

    async def _until_leased(self, planned: PlannedTarget) -> None:
        said = ""
        while not await self._must_stop():
            row = await self._row(planned.target.name)
            if row.state is TargetState.ENDED and row.outcome is not Outcome.UNKNOWN:
                return
            answer = await ChangeJob(self.record, self.plan, planned, self.channel, self.driver, row).run()
            if isinstance(answer, JobResult):
                self.site.log(f"{planned.target.name}: {answer.outcome.value}: {answer.reason}")
                return
            if answer.sentence != said:
                said = answer.sentence
                await self._say(planned.target.name, said)
            await self._wait_for_room(answer)

    async def _wait_for_room(self, busy: Busy) -> None:
        """Wait until a job of this process ends, or look again after a moment: other workers hold leases too."""
        async with self.freed:
            try:
                await asyncio.wait_for(self.freed.wait(), timeout=BUSY_PAUSE)
            except TimeoutError:
                return

    async def _row(self, name: str) -> TargetRow:
        row = await self.record.call(self.site.ledger.target, self.plan.rollout, name)
        if row is None:
            raise LedgerError(f"{name} is in the plan of {self.plan.rollout}, but the ledger has no row of it")
        return row

    async def _say(self, name: str, sentence: str) -> None:
        entries = await self.record.call(
            self.site.ledger.entries, self.plan.rollout, kinds=[EntryKind.WAITS], target=name
        )
        key = f"waits:{name}:{len(entries)}"
        await self.record.append(EntryKind.WAITS, key, {"sentence": sentence}, target=name)


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
    if not targets:
        return WaveSummary(wave=wave, shard=shard, sentence="this shard has no targets", skipped=True)
    record = Record(site, rollout)
    try:
        work = ShardRun(record, plan, wave, stop)
        await work.run(targets)
    finally:
        await record.close()
    free_ended(site, rollout)
    names = {item.target.name for item in targets}
    counts = count(row for row in site.ledger.targets(rollout) if row.target in names)
    return summary_of(wave, shard, counts.model_dump(), work.stopped)


def summary_of(wave: int, shard: int, counts: dict[str, int], stopped: Stop | None) -> WaveSummary:
    """Put a shard's counts into the sentence that Airflow shows."""
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number and name != "total")
    sentence = f"wave {wave}: {said or 'nothing'} of {counts.get('total', 0)}"
    if stopped is not None:
        sentence += f"; stopped launching: {stopped.sentence}"
    bad = counts.get("failed", 0) > 0 or counts.get("pending", 0) > 0
    return WaveSummary(
        wave=wave, shard=shard, counts=counts, stopped=stopped.sentence if stopped else None, sentence=sentence, bad=bad
    )
