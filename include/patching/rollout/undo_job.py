"""UndoJob: one changed target brought back to its before-state, as prepared before the change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from patching.change import Irreversible, JobResult, Outcome, Phase
from patching.channels.base import Channel, Session
from patching.drivers.base import PatchDriver
from patching.errors import ChannelError
from patching.ledger.base import Busy, TargetRow
from patching.plan.capacity import target_claims
from patching.plan.document import Plan, PlannedTarget
from patching.plan.reversibility import sentence
from patching.probes.checks import run_probes
from patching.rollout.hooking import HookRun
from patching.rollout.record import Record
from patching.rollout.target_job import TargetJob
from patching.target import Snapshot

ATTEMPTS = 2


class UndoJob(TargetJob):
    """Undoes one target: settles what is open, probes, downgrades, and proves it by what the target runs.

    ``obstacles`` speak against that: where one of their components was changed, nothing is tried. ``stays`` is why the
    target must stay as it is whatever was changed on it. In both cases only what stands entered is left. ``worked``: it
    had its lease.
    """

    def __init__(
        self,
        record: Record,
        plan: Plan,
        planned: PlannedTarget,
        channel: Channel,
        driver: PatchDriver,
        row: TargetRow,
        *,
        obstacles: Sequence[Irreversible] = (),
        stays: str = "",
    ) -> None:
        super().__init__(record, plan, planned, channel, driver, row)
        self.obstacles = obstacles
        self.stays = stays
        self.worked = False

    async def run(self, due: Callable[[TargetRow], bool]) -> JobResult | Busy:
        """Do the whole undo; Busy when a lease is not to be had yet. Raises FenceLost, LedgerUnavailable.

        ``due`` (blocking) is asked once the lease is held: what was to be undone may have been undone and changed again
        while this worker slept, and then its wish is no longer anybody's.
        """
        busy = await self.acquire(target_claims(self.plan, self.target))
        if busy is not None:
            return busy
        self.worked = True
        ended = await self._undone_meanwhile() or await self._no_longer(due)
        if ended is not None:
            return ended
        async with self.heartbeat():
            result = await self._carry_out()
            await self.conclude(result, undo=True)
            if result.outcome is not Outcome.UNKNOWN:
                await self.release()
        return result

    async def _undone_meanwhile(self) -> JobResult | None:
        """Say how another worker's undo ended before this job had its lease."""
        row = self.row
        if row.undo_outcome is None:
            return None
        if row.undo_outcome is not Outcome.UNKNOWN:
            await self.release()
        return JobResult(outcome=row.undo_outcome, reason=row.detail, signature=row.signature)

    async def _no_longer(self, due: Callable[[TargetRow], bool]) -> JobResult | None:
        if await self.record.call(due, self.row):
            return None
        await self.release()
        reason = "left as it is: it is not to be undone any more"
        return JobResult(outcome=Outcome.SKIPPED, reason=reason)

    async def _carry_out(self) -> JobResult:
        try:
            session = await self.open()
        except ChannelError as error:
            reason = f"undo could not begin: {error}"
            # Nobody knows what the change left behind there, so its place stays taken.
            outcome = Outcome.UNKNOWN if self.in_mid_change else Outcome.FAILED
            said = self.stays or "; ".join(map(sentence, self.obstacles))
            if said and outcome is Outcome.FAILED:
                return _kept(f"{said}; nothing was tried, and it does not answer: {error}")
            return JobResult(outcome=outcome, reason=reason, signature="undo:offline")
        try:
            return await self._undo(session)
        except ChannelError as error:
            reason = f"the connection was lost during the undo, and what became of it is not known: {error}"
            return JobResult(outcome=Outcome.UNKNOWN, reason=reason, signature="undo:unknown")
        finally:
            await self.services.close()
            await session.close()

    async def _undo(self, session: Session) -> JobResult:
        await self.settle(session, abandon=True)
        patches = self.planned.patches
        said = self.stays or (self._against(await self.probe(session)) if self.obstacles else "")
        if said:
            return await self._left(session, _kept(f"{said}; nothing was tried"))
        for left in reversed(range(ATTEMPTS)):
            now = await self.probe(session)
            steps = self.driver.undo(self.target, now, patches)
            ends = await self.run_phase(session, Phase.UNDO, partial(list, steps))
            bad = next((end for end in ends if not end.ok), None)
            if bad is None or not left:
                break
            await self.raise_generation(f"undo: {bad.detail}; going on from what a probe finds")
        result = self.driver.verify_undo(await self.probe(session), patches)
        if result.outcome is not Outcome.UNDONE:
            said = f" ({bad.step.name}: {bad.detail})" if bad is not None else ""
            return await self._left(session, result.model_copy(update={"reason": result.reason + said}))
        return await self._left(session, await self._checked(session, result))

    def _against(self, now: Snapshot) -> str:
        """Say what cannot be undone of what was changed; a component at its old version, and whole, was not changed."""
        before = self.planned.before
        moved = {name for name, old in before.items() if now.version(name) != old} | set(now.half_installed)
        return "; ".join(sentence(item) for item in self.obstacles if moved.intersection(item.components))

    async def _left(self, session: Session, result: JobResult) -> JobResult:
        """Leave the hooks that the change had entered and not left, or could not leave: it may have died between."""
        failure = await HookRun(self, session).leave(result.outcome, again=True)
        if failure is None or result.outcome is not Outcome.UNDONE:
            return result
        reason = f"the old versions are back, but {failure.result.reason}"
        return JobResult(outcome=Outcome.FAILED, reason=reason, signature=f"undo:{failure.result.signature}")

    async def _checked(self, session: Session, result: JobResult) -> JobResult:
        for found in await run_probes(session, self.target, self.plan.policy.spec.verify):
            if not found.ok:
                reason = f'the old versions are back, but check "{found.check}" does not pass: {found.detail}'
                return JobResult(outcome=Outcome.FAILED, reason=reason, signature=f"undo:probe:{found.check}")
        return result


def _kept(reason: str) -> JobResult:
    return JobResult(outcome=Outcome.STAYS_CHANGED, reason=reason, signature="undo:irreversible")
