"""TargetJob: what a change job and an undo job share: a lease with its heartbeat, one session, settled intents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from patching.change import JobResult, Outcome, Patch, Phase, Step, TargetState, step_id
from patching.channels.base import Channel, Session
from patching.channels.service import SERVICES, ServiceSession
from patching.drivers.base import PatchDriver
from patching.errors import FenceLost, LedgerUnavailable
from patching.ledger.base import Busy, Claim, Fence, Lease, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Plan, PlannedTarget
from patching.rollout.probing import probe
from patching.rollout.record import Record
from patching.rollout.steps import StepEnd, StepRunner, recorded_ends
from patching.target import Snapshot
from patching.value import JsonValue


class JobFailed(Exception):
    """A change job ends here with this result; not an error of ours."""

    def __init__(self, result: JobResult) -> None:
        super().__init__(result.reason)
        self.result = result


class TargetJob:
    """One target, one lease, one session."""

    def __init__(
        self, record: Record, plan: Plan, planned: PlannedTarget, channel: Channel, driver: PatchDriver, row: TargetRow
    ) -> None:
        self.record = record
        self.site = record.site
        self.plan = plan
        self.planned = planned
        self.target = planned.target
        self.name = planned.target.name
        self.channel = channel
        self.driver = driver
        self.lease: Lease | None = None
        self.known: dict[str, LedgerEntry] = {}
        self.down: frozenset[str] = frozenset()
        self.services = ServiceSession(record.site.connections, record.site.clock, planned.target.name)
        self.unchanged = False
        self._take_up(row)

    def _take_up(self, row: TargetRow) -> None:
        self.row = row
        self.generation = row.generation
        self.was_unknown = row.outcome is Outcome.UNKNOWN
        self.in_mid_change = row.outcome in (None, Outcome.UNKNOWN)
        self.begins = row.state in (TargetState.PENDING, TargetState.WAITING)

    @property
    def fence(self) -> Fence | None:
        """Proof of ownership for every append of this job."""
        return Fence(lease=self.lease.id, epoch=self.lease.epoch) if self.lease else None

    async def acquire(self, claims: Sequence[Claim]) -> Busy | None:
        """Take the target's lease with all its claims, or say what is busy.

        With the lease the target is taken up as the ledger has it now: whoever held it before may have gone on with it.
        Then ``down`` says which targets of the rollout are down.
        """
        owner, ttl = self.site.owner, self.site.lease_ttl
        answer = await self.record.write(
            lambda transaction: transaction.acquire(owner, self.plan.rollout, self.name, claims, ttl=ttl)
        )
        if isinstance(answer, Busy):
            return answer
        self.lease = answer
        self.site.crash("lease-taken")
        self._take_up(await self.recall() or self.row)
        return None

    async def extend(self, lease: Lease, claims: Sequence[Claim]) -> Lease | Busy:
        """Add claims to the job's lease."""
        return await self.record.write(lambda transaction: transaction.extend(lease, claims))

    async def recall(self) -> TargetRow | None:
        """Read what the ledger has of this target, once: while the lease is held nobody else adds to it."""
        known = await self.record.call(self.site.ledger.known, self.plan.rollout, self.name)
        self.known = {entry.key: entry for entry in known.entries}
        self.down = known.down
        return known.row

    @property
    def had_intents(self) -> bool:
        """Whether any step was meant to run before this job took its lease."""
        return any(entry.kind is EntryKind.INTENT for entry in self.known.values())

    async def release(self) -> None:
        """Give the lease back; a job whose outcome is unknown must not call this."""
        lease = self.lease
        if lease is not None:
            await self.record.write(lambda transaction: transaction.release(lease))
            self.lease = None

    @asynccontextmanager
    async def heartbeat(self) -> AsyncIterator[None]:
        """Prolong the lease while the body runs; a lost lease cancels the body with FenceLost."""
        body = asyncio.current_task()
        lost: list[FenceLost] = []

        async def beat() -> None:
            while self.lease is not None:
                await asyncio.sleep(self.site.lease_ttl / 3)
                try:
                    if self.lease is not None:
                        self.lease = await self._prolonged(self.lease)
                except LedgerUnavailable:
                    continue
                except FenceLost as error:
                    lost.append(error)
                    if body is not None:
                        body.cancel()
                    return

        beating = asyncio.create_task(beat())
        try:
            yield
        except asyncio.CancelledError:
            if lost:
                raise lost[0] from None
            raise
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating

    async def _prolonged(self, lease: Lease) -> Lease:
        return await self.record.write(lambda transaction: transaction.heartbeat(lease, ttl=self.site.lease_ttl))

    async def probe(self, session: Session, wanted: Sequence[Patch] = ()) -> Snapshot:
        """Read the target in the driver's rounds and parse what came back.

        While the job knows its target to be ``unchanged``, raises AbortedNow as soon as a person asks for that.
        """
        reading = probe(session, self.driver, self.target, wanted, self.site.clock)
        return await (self.record.abort.unless(reading) if self.unchanged else reading)

    def runner(self, session: Session) -> StepRunner:
        """Make the step runner for the open session, under the current lease."""
        return StepRunner(self.record, session, self.name, self.fence)

    def session_for(self, step: Step, session: Session) -> Session:
        """Give the session that runs a step: a hook's service, or the open one of the target."""
        return self.services if step.channel in SERVICES else session

    async def open(self) -> Session:
        """Open the one session of this job; raises ChannelError."""
        return await self.channel.open(self.target)

    async def settle(self, session: Session, *, abandon: bool, wait: float | None = None) -> list[StepEnd]:
        """Settle every open intent of this target in this rollout by its id, before anything else is decided.

        One that never began is given up with ``abandon``, and where a later generation makes its step anew. One that
        still runs is waited for until its deadline, or at most ``wait`` seconds.
        """
        return await self.settle_open(session, abandon=abandon, wait=wait) if self.had_intents else []

    async def settle_open(self, session: Session, *, abandon: bool, wait: float | None = None) -> list[StepEnd]:
        """Settle what is open now, this job's own steps too: their end was not seen, but the target knows it."""
        ends = []
        for intent in await self.record.call(
            self.site.ledger.intents, rollout=self.plan.rollout, target=self.name, open_only=True
        ):
            runner = self.runner(self.session_for(Step.model_validate(intent.step), session))
            end = await runner.settle(intent, wait)
            if end is not None:
                ends.append(end)
            elif abandon or intent.generation < self.generation:
                ends.append(await runner.abandon(intent))
        await self.recall()
        return ends

    async def resolved(self, phase: Phase, resolve: Callable[[], list[Step]]) -> list[Step]:
        """Give the stored step list of a phase, or resolve and store it: a list is never re-computed (T9)."""
        key = f"steps:{self.name}:{phase.value}:{self.generation}"
        found = self.known.get(key)
        if found is not None:
            return [Step.model_validate(item) for item in found.body["steps"]]
        steps = resolve()
        if steps:
            body: dict[str, JsonValue] = {
                "phase": phase.value,
                "generation": self.generation,
                "steps": [step.model_dump(mode="json") for step in steps],
            }
            await self._append_both(self.entry(EntryKind.STEPS_RESOLVED, key, body), self._progress(phase.value, ""))
            self.site.crash("steps-resolved")
        return steps

    async def _append_both(self, first: NewEntry, second: NewEntry) -> None:
        fence = self.fence
        written = await self.record.write(
            lambda transaction: [transaction.append(entry, fence) for entry in (first, second)]
        )
        self.known |= {entry.key: entry for entry in written}

    def entry(self, kind: EntryKind, key: str, body: dict[str, JsonValue]) -> NewEntry:
        """Make an entry about this target."""
        return NewEntry(chain=self.plan.rollout, kind=kind, key=key, target=self.name, body=body)

    async def run_phase(self, session: Session, phase: Phase, resolve: Callable[[], list[Step]]) -> list[StepEnd]:
        """Run a phase's steps in order, skipping those whose end is recorded; stops at the first that is not ok."""
        steps = await self.resolved(phase, resolve)
        if not steps:
            return []
        ids = [step_id(self.plan.rollout, self.name, step.phase, step.name, self.generation) for step in steps]
        ended = self._outcomes(steps, ids)
        runner, ends = self.runner(session), []
        for step in steps:
            end = ended.get(step.name) or await runner.run(step, self.generation)
            ends.append(end)
            if not end.ok:
                break
        return ends

    def _outcomes(self, steps: list[Step], ids: list[str]) -> dict[str, StepEnd]:
        found = {name: self.known[key].body for name in ids if (key := f"outcome:{name}") in self.known}
        return recorded_ends(found, steps, ids)

    async def progress(self, phase: str, detail: str = "") -> None:
        """Show what the target is doing; the key makes it appear once per generation and phase."""
        entry, fence = self._progress(phase, detail), self.fence
        await self.record.write(lambda transaction: transaction.append(entry, fence))

    def _progress(self, phase: str, detail: str) -> NewEntry:
        key = f"progress:{self.name}:{phase}:{self.generation}:{detail}"
        return self.entry(EntryKind.TARGET_PROGRESS, key, {"phase": phase, "detail": detail})

    async def raise_generation(self, reason: str, **more: JsonValue) -> None:
        """Raise the generation through the ledger: the only way in which a step may run again."""
        self.generation += 1
        body = {"generation": self.generation, "reason": reason, "reopen": False, **more}
        key = f"generation:{self.name}:{self.generation}"
        await self.record.append(EntryKind.GENERATION_RAISED, key, body, target=self.name, fence=self.fence)

    async def conclude(self, result: JobResult, *, undo: bool) -> None:
        """Write the target's outcome."""
        body = {
            "outcome": result.outcome.value,
            "reason": result.reason,
            "signature": result.signature,
            "active": result.active,
            "undo": undo,
        }
        key = f"target-outcome:{self.name}:{self.generation}:{'undo' if undo else 'change'}"
        await self.record.append(EntryKind.TARGET_OUTCOME, key, body, target=self.name, fence=self.fence)
        self.site.crash("target-outcome-written")
