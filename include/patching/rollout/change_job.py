"""ChangeJob: one target patched, as a controller's loop: settle, probe, act, probe again, until converged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from patching.change import JobResult, Outcome, Phase, Step, TargetState
from patching.channels.base import Session
from patching.errors import ChannelError, TargetOffline
from patching.hooks.kinds import standing
from patching.ledger.base import Busy, Claim, Intent, LedgerTransaction
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.plan.capacity import places, reboot_claims, target_claims
from patching.probes.checks import run_probes
from patching.rollout.abort_now import AbortedNow
from patching.rollout.causes import LOST_IN_REBOOT, step_signature
from patching.rollout.hooking import KINDS, HookRun, only_prepared
from patching.rollout.retries import TryLater, next_try, retries_made, retry_body, worth_another
from patching.rollout.standstill import held_for_good
from patching.rollout.steps import StepEnd, StoppedHere
from patching.rollout.target_job import JobFailed, TargetJob
from patching.target import Snapshot
from patching.value import JsonValue

CONVERGE_ROUNDS = 3


def failed(reason: str, signature: str) -> JobFailed:
    """Make the failure of a change job; the signature groups the same cause on many targets."""
    return JobFailed(JobResult(outcome=Outcome.FAILED, reason=reason, signature=signature))


class ChangeJob(TargetJob):
    """Carries one planned target from its before-state to its planned state, at most once."""

    async def run(
        self,
        *,
        only_prepare: bool = False,
        retry: bool = True,
        some_down: bool = True,
        placed: Callable[[], object] = lambda: None,
    ) -> JobResult | Busy | TryLater:
        """Do the whole job; Busy when a lease is not to be had yet, else ``placed`` is called once it is held.

        ``some_down`` off: as far as is known no target is down, so that this is only asked under the lease.

        TryLater, unless ``retry`` is off, when it failed in a way that time can mend: the next try has its generation
        in the ledger already, and the target has no outcome yet.

        With ``only_prepare`` the job downloads and checks what is planned, and leaves the target's outcome open.
        Raises FenceLost when somebody else has taken over, LedgerUnavailable after the site's patience, StoppedHere
        when it met the stop switch: then the target has no outcome, and its lease is kept where it was changed.
        """
        busy = await (self.acquire(self._only_target()) if only_prepare else self._take_place(some_down))
        if busy is not None:
            return busy
        placed()
        ended = self._ended_meanwhile()
        if ended is not None:
            await self.release()
            return ended
        async with self.heartbeat():
            try:
                result = await self._carry_out(only_prepare)
            except StoppedHere:
                await self._release_if_untouched()
                raise
            later = await self._next_try(result) if retry and not only_prepare else None
            if later is not None:
                return later
            if not only_prepare and not (self.was_unknown and result.outcome is Outcome.UNKNOWN):
                await self.conclude(result, undo=False)
            if result.outcome is not Outcome.UNKNOWN:
                await self.release()
        return result

    def _ended_meanwhile(self) -> JobResult | None:
        """Say how the target ended before this job had its lease: a person skipped it, or an emergency took it over."""
        row = self.row
        if row.outcome in (None, Outcome.UNKNOWN) or row.state is not TargetState.ENDED:
            return None
        return JobResult(outcome=row.outcome, reason=row.detail, signature=row.signature)

    def _only_target(self) -> Sequence[Claim]:
        return [claim for claim in target_claims(self.plan, self.target) if claim.kind == "target"]

    async def _take_place(self, some_down: bool) -> Busy | None:
        """Take the lease with a place in everything, those that are down counted, or say what is busy.

        Who is down is read again under the lease: a job that fails says so before it gives its place back.
        """
        down = await self._down() if some_down else frozenset()
        before = places(self.plan, self.target, down)
        busy = next((place.busy() for place in before if not place.left.limit), None)
        busy = busy or await self.acquire([place.left for place in before])
        if busy is not None:
            full = next((at for at in before if (at.claim.kind, at.claim.name) == (busy.kind, busy.name)), None)
            return full.busy(busy.holders) if full is not None and full.down else busy
        if self.down == down or self.row.began_at is not None:
            return None
        now = places(self.plan, self.target, self.down)
        since = next((place for place in now if place.left not in [old.left for old in before]), None)
        if since is None:
            return None
        await self.release()
        return since.busy()

    async def _down(self) -> frozenset[str]:
        """Give who is down; one that has begun goes on in its place, whoever it is."""
        if self.row.began_at is not None:
            return frozenset()
        rows = await self.record.call(self.site.ledger.down, self.plan.rollout)
        return frozenset(row.target for row in rows)

    async def _carry_out(self, only_prepare: bool) -> JobResult:
        try:
            session = await self.open()
        except TargetOffline as error:
            return await self._unreachable(error)
        except ChannelError as error:
            return JobResult(outcome=Outcome.FAILED, reason=str(error), signature=type(error).__name__)
        try:
            return await (self._prepare_only(session) if only_prepare else self._change(session))
        except JobFailed as ended:
            return ended.result
        except AbortedNow:
            return self._aborted()
        except ChannelError as error:
            return await self._unreachable(error)
        finally:
            await self.services.close()
            await session.close()

    def _aborted(self) -> JobResult:
        reason = "the rollout was aborted at once: reading and downloading was cancelled, nothing was changed"
        return JobResult(outcome=Outcome.SKIPPED, reason=reason)

    async def _next_try(self, result: JobResult) -> TryLater | None:
        """Write down that another try comes and when; a target that was changed keeps its capacity while it waits."""
        if not worth_another(result):
            return None
        kinds = (EntryKind.GENERATION_RAISED, EntryKind.TARGET_OUTCOME)
        entries = await self.record.call(self.site.ledger.entries, self.plan.rollout, kinds=kinds, target=self.name)
        later = next_try(self.plan.policy.spec.on_failure.retry, result, retries_made(entries), self.site.clock())
        if later is None:
            return None
        await self.raise_generation(later.reason, **retry_body(later))
        key, body = f"waits:{self.name}:try:{self.generation}", {"sentence": later.sentence}
        await self.record.append(EntryKind.WAITS, key, body, target=self.name, fence=self.fence)
        self.site.crash("retry-written")
        await self._release_if_untouched()
        return later

    async def _unreachable(self, error: ChannelError) -> JobResult:
        """Offline before anything but downloads was begun is offline; else unknown, never success.

        An entering hook counts as begun: a host that it took out of service must be gone on with, not left behind.
        """
        intents = await self._since_undo()
        if all(not item.open and item.step["phase"] in (Phase.PREPARE, Phase.LEAVE) for item in intents):
            return JobResult(outcome=Outcome.OFFLINE, reason=str(error), signature="offline")
        reason = f"the connection was lost after the change had begun, and what became of it is not known: {error}"
        return JobResult(outcome=Outcome.UNKNOWN, reason=reason, signature="unknown")

    async def _prepare_only(self, session: Session) -> JobResult:
        await self.settle(session, abandon=False)
        self.unchanged = not await self._has_acted()
        now = await self.probe(session)
        drift = self.driver.drift(self.planned.before, now, self.planned.patches)
        if drift is not None:
            return drift
        await self._phase(session, Phase.PREPARE, now, now, rounds=1)
        return JobResult(outcome=Outcome.APPLIED, reason="downloaded and checked")

    async def _change(self, session: Session) -> JobResult:
        await self.settle(session, abandon=self.was_unknown)
        if self.was_unknown:
            await self.raise_generation("its unknown step is settled by its id; going on from what a probe finds")
            self.was_unknown = False
        hooks = HookRun(self, session)
        kept = await hooks.kept()
        if kept is not None:
            return await self._leave(hooks, kept)
        self.unchanged = not await self._has_acted()
        now = await self.probe(session)
        before = await self._before(now)
        if self.unchanged:
            drift = self.driver.drift(self.planned.before, now, self.planned.patches)
            if drift is not None:
                # Nothing is gone on with here, so no worker that slept may begin what it meant to.
                await self.settle(session, abandon=True)
                return await self._leave(hooks, drift)
        result = await self._entered(hooks, session, before, now)
        if result.signature == LOST_IN_REBOOT:
            return result
        await hooks.keep(result)
        return await self._leave(hooks, result)

    async def _entered(self, hooks: HookRun, session: Session, before: Snapshot, now: Snapshot) -> JobResult:
        """Enter the hooks and carry the change out; one that is stopped before it changed anything leaves them."""
        try:
            await hooks.enter(changed=not self.unchanged)
            return await self._verify(session, before, await self._converge(session, before, now))
        except JobFailed as ended:
            return ended.result
        except AbortedNow:
            return self._aborted()
        except StoppedHere:
            if only_prepared(await self._phases_begun()):
                await hooks.leave(Outcome.SKIPPED)
            raise

    async def _leave(self, hooks: HookRun, result: JobResult) -> JobResult:
        """Leave every hook that stands, whatever happened; its failure spoils a success, hides no failure."""
        bad = await hooks.leave(result.outcome)
        return bad.result if bad is not None and result.outcome is Outcome.APPLIED else result

    async def _before(self, now: Snapshot) -> Snapshot:
        """Give the state that this job found when it first began; a resumed job uses the same one."""
        key = f"target-began:{self.name}"
        found = self.known.get(key)
        if found is not None:
            if self.begins:
                again = f"{key}:{self.generation}"
                await self.record.append(EntryKind.TARGET_BEGAN, again, found.body, target=self.name, fence=self.fence)
            return await self.record.snapshot(found.body["snapshot"])
        snapshot, fence = now.model_dump(mode="json"), self.fence

        def begin(transaction: LedgerTransaction) -> LedgerEntry:
            document = transaction.store_document("snapshot", snapshot)
            body: dict[str, JsonValue] = {"wave": self.planned.wave, "snapshot": document}
            return transaction.append(self.entry(EntryKind.TARGET_BEGAN, key, body), fence)

        self.known[key] = await self.record.write(begin)
        return now

    async def _has_acted(self) -> bool:
        """Say whether it was changed before this job took its lease."""
        acts = (Phase.APPLY, Phase.ACTIVATE)
        return self.had_intents and any(phase in acts for phase in await self._phases_begun())

    async def _phases_begun(self) -> list[Phase]:
        return [Step.model_validate(item.step).phase for item in await self._since_undo()]

    async def _since_undo(self) -> list[Intent]:
        """Give what this rollout began on the target since it was last undone here: then it was as before."""
        intents = await self.record.call(
            self.site.ledger.intents, rollout=self.plan.rollout, target=self.name, open_only=False
        )
        undos = [number for number, item in enumerate(intents) if item.step["phase"] == Phase.UNDO]
        return intents[undos[-1] + 1 :] if undos else intents

    async def _release_if_untouched(self) -> None:
        """Free the capacity of a stopped job that has only downloaded; a target in mid-change keeps its own.

        So does one that a hook took out of service, or may have: it counts among the unavailable.
        """
        entries = await self.record.call(self.site.ledger.entries, self.plan.rollout, kinds=KINDS, target=self.name)
        if only_prepared(await self._phases_begun()) and not standing(entries):
            await self.release()

    async def _converge(self, session: Session, before: Snapshot, now: Snapshot) -> Snapshot:
        now = await self._phase(session, Phase.PREPARE, before, now)
        if self.unchanged:
            await self.record.abort.check()
            self.unchanged = False
        now = await self._phase(session, Phase.APPLY, before, now)
        return await self._activate(session, before, now)

    async def _phase(
        self, session: Session, phase: Phase, before: Snapshot, now: Snapshot, *, rounds: int = CONVERGE_ROUNDS
    ) -> Snapshot:
        """Run one phase and probe again.

        After a lost step the next round does what the probe still finds to do, under a new generation. What failed is
        not repeated at once: whether a later try can help depends on its cause (``rollout.causes``).
        """
        for left in reversed(range(rounds)):
            ends = await self.run_phase(session, phase, self._resolver(phase, before, now))
            if not ends:
                return now
            now = await self.probe(session)
            bad = next((end for end in ends if not end.ok), None)
            if bad is None or not self.driver.steps(self.target, phase, before, now, self.planned.patches):
                return now
            if not left or not bad.lost:
                raise self._failure(phase, bad)
            await self.raise_generation(f"{bad.detail}; the probe shows what is still to do in phase {phase.value}")
        return now

    def _resolver(self, phase: Phase, before: Snapshot, now: Snapshot) -> Callable[[], list[Step]]:
        return lambda: self.driver.steps(self.target, phase, before, now, self.planned.patches)

    def _failure(self, phase: Phase, end: StepEnd) -> JobFailed:
        code = "lost" if end.lost else "overdue" if end.overdue else f"exit {end.exit_code}"
        reason = f"step {end.step.name} failed ({code}): {end.detail}"
        return failed(reason, step_signature(phase.value, end.step.name, code, end.output, end.detail))

    async def _activate(self, session: Session, before: Snapshot, now: Snapshot) -> Snapshot:
        """Make the change take effect: restart what still runs replaced files, or reboot where the policy allows it."""
        wanted = self._activation(before, now)
        steps = await self.resolved(Phase.ACTIVATE, lambda: wanted)
        if not any(step.expects_reboot for step in steps):
            return await self._phase(session, Phase.ACTIVATE, before, now) if steps else now
        await self._reboot_lease()
        until = self.site.clock() + timedelta(seconds=self.plan.policy.spec.reboot.timeout)
        try:
            ends = await self.run_phase(session, Phase.ACTIVATE, lambda: steps)
        except TargetOffline as gone:
            now = await self._new_boot(session, before, now, until, gone)
            await self.settle_open(session, abandon=False)
            return now
        bad = next((end for end in ends if not end.ok), None)
        if bad is not None and not bad.lost:
            raise self._failure(Phase.ACTIVATE, bad)
        return await self._new_boot(session, before, now, until)

    def _activation(self, before: Snapshot, now: Snapshot) -> list[Step]:
        rules = self.plan.policy.spec.reboot
        steps = self.driver.steps(self.target, Phase.ACTIVATE, before, now, self.planned.patches)
        if rules.policy == "never":
            return [step for step in steps if not step.expects_reboot]
        limit = {"deadline": rules.timeout}
        return [step.model_copy(update=limit) if step.expects_reboot else step for step in steps]

    async def _reboot_lease(self) -> None:
        """Wait for a place among those that may reboot at once; the wait is shown."""
        claims = reboot_claims(self.plan, self.target)
        while self.lease is not None:
            answer = await self.extend(self.lease, claims)
            if not isinstance(answer, Busy):
                self.lease = answer
                return
            full = await held_for_good(self.record, claims)
            if full is not None:
                raise StoppedHere(f"{self.name} is changed and not rebooted: {full}")
            await self.progress("activate", answer.sentence)
            await self.record.free_left()
            await asyncio.sleep(self.site.poll)

    async def _new_boot(
        self, session: Session, before: Snapshot, now: Snapshot, until: datetime, gone: TargetOffline | None = None
    ) -> Snapshot:
        """Prove the reboot by a boot id that differs from the one before; raises JobFailed after ``until``.

        A host that does not answer then is lost: nobody knows what became of it, and it keeps its capacity. One whose
        connection was ``gone``, and that is back without a reboot, perhaps never began it: that is raised again.
        """
        while True:
            try:
                now = await self.probe(session)
            except ChannelError as error:
                now = now.model_copy(update={"boot_id": None})
                self.site.log(f"{self.name} does not answer yet after its reboot: {error}")
            if now.boot_id not in (None, before.boot_id):
                return now
            if self.site.clock() >= until:
                raise gone if gone is not None and now.boot_id else self._not_rebooted(now)
            await self.site.pause(self.site.poll)

    def _not_rebooted(self, now: Snapshot) -> JobFailed:
        limit = self.plan.policy.spec.reboot.timeout
        if now.boot_id:
            return failed(f"no new boot id after {limit:g} s: it answers, but it did not reboot", "reboot:none")
        reason = f"it did not come back from its reboot within {limit:g} s"
        return JobFailed(JobResult(outcome=Outcome.UNKNOWN, reason=reason, signature=LOST_IN_REBOOT))

    async def _verify(self, session: Session, before: Snapshot, now: Snapshot) -> JobResult:
        await self.progress("verify")
        result = self.driver.verify(before, now, self.planned.patches)
        if result.outcome is not Outcome.APPLIED:
            return result
        for found in await run_probes(session, self.target, self.plan.policy.spec.verify):
            if not found.ok:
                reason = f'applied, but check "{found.check}" does not pass: {found.detail}'
                raise failed(reason, f"probe:{found.check}")
        return result
