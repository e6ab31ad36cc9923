"""Running steps once: intent before the act, settling by step id after an interruption, never a blind second run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from patching.change import IfInterrupted, Phase, Reply, Step, step_id
from patching.channels.base import Attach, Handle, Progress, Session
from patching.ledger.base import Fence, Intent, LedgerTransaction
from patching.ledger.entry import EntryKind, NewEntry
from patching.rollout.abort_now import AbortedNow
from patching.rollout.record import Record
from patching.value import JsonValue

OUTPUT_KEPT = 4096
WHEN_STOPPED = frozenset({Phase.UNDO, Phase.LEAVE})
"""Phases whose steps begin even while everything is stopped: they bring back what was changed or entered."""


class StoppedHere(Exception):
    """The stop switch is on, so the next step was not begun; the job ends without an outcome and is resumed later."""


@dataclass(frozen=True)
class StepEnd:
    """How one step ended: ``ok``; else ``lost`` (nobody knows), ``overdue`` (cancelled) or a plain failure."""

    step: Step
    ok: bool
    lost: bool = False
    overdue: bool = False
    exit_code: int | None = None
    detail: str = ""
    output: str = ""


def tail(text: str, limit: int = 300) -> str:
    """Keep the last line that says something, for a reason a person reads."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "")[-limit:]


def judge_end(step: Step, progress: Progress) -> StepEnd:
    """Say what a step's last seen state means; a lost exit status is never success.

    A reboot step counts as done when the boot id changed (``if_interrupted: success``).
    """
    if progress.attach is Attach.ENDED and progress.reply is not None:
        reply = progress.reply
        if reply.exit_code is None:
            return StepEnd(step, ok=False, lost=True, detail=f"the exit status of step {step.name} was lost")
        said = tail(reply.stderr) or tail(reply.stdout)
        printed = "" if reply.ok else f"{reply.stdout}\n{reply.stderr}"[-OUTPUT_KEPT:]
        return StepEnd(step, ok=reply.ok, exit_code=reply.exit_code, detail="" if reply.ok else said, output=printed)
    if progress.attach is Attach.REBOOTED and step.if_interrupted is IfInterrupted.SUCCESS:
        return StepEnd(step, ok=True, detail="the boot id changed")
    if progress.attach is Attach.RUNNING:
        return StepEnd(step, ok=False, overdue=True, detail=f"step {step.name} is not done after {step.deadline:g} s")
    return StepEnd(step, ok=False, lost=True, detail=f"step {step.name} was interrupted ({progress.attach.value})")


class StepRunner:
    """Runs the steps of one target under one lease; every act has its intent in the ledger first."""

    def __init__(self, record: Record, session: Session, target: str, fence: Fence | None) -> None:
        self.record = record
        self.session = session
        self.target = target
        self.fence = fence

    async def read(self, steps: list[Step]) -> dict[str, Reply]:
        """Run reading steps in order; reading needs no intent."""
        return {step.name: await self.session.read(step) for step in steps}

    async def run(self, step: Step, generation: int) -> StepEnd:
        """Write the intent, start or attach, wait for the end, write the outcome.

        Raises StoppedHere before the intent while the stop switch is on; steps of undo and of leaving hooks go on.
        """
        site = self.record.site
        name = step_id(self.record.rollout, self.target, step.phase, step.name, generation)
        await self._intend(step, name, generation)
        site.crash("intent-written")
        handle = await self.session.start(name, step)
        site.crash("started")
        progress = await self._wait(handle, step)
        site.crash("ended")
        return await self._close(name, step, progress)

    async def _intend(self, step: Step, name: str, generation: int) -> None:
        """Write the intent unless everything is stopped: no intent of a change follows the stop switch's own entry."""
        entry = NewEntry(
            chain=self.record.rollout,
            kind=EntryKind.INTENT,
            key=f"intent:{name}",
            target=self.target,
            step=name,
            body={"step": step.model_dump(mode="json"), "generation": generation},
        )
        fence = self.fence

        def begin(transaction: LedgerTransaction) -> str | None:
            reason = None if step.phase in WHEN_STOPPED else transaction.stopped()
            if reason is None:
                transaction.append(entry, fence)
            return reason

        reason = await self.record.write(begin)
        if reason is not None:
            raise StoppedHere(f"everything is stopped ({reason}): step {step.name} of {self.target} was not begun")

    async def _wait(self, handle: Handle, step: Step) -> Progress:
        """Wait for the end; a step over its deadline is cancelled, so that it runs beside no later one.

        So is a download, when a person aborts the rollout at once: nothing else may be cancelled without harm.
        """
        if step.phase is Phase.PREPARE:
            try:
                progress = await self.record.abort.unless(self.session.wait(handle, step))
            except AbortedNow:
                return await self._cancelled(handle, step)
        else:
            progress = await self.session.wait(handle, step)
        if progress.attach is not Attach.RUNNING:
            return progress
        after = await self._cancelled(handle, step)
        return progress if after.attach is Attach.ENDED else after

    async def _cancelled(self, handle: Handle, step: Step) -> Progress:
        """End a step and look at what became of it: it may have ended by itself just before."""
        await self.session.cancel(handle)
        return await self.session.look(handle.step_id, step)

    async def settle(self, intent: Intent, wait: float | None = None) -> StepEnd | None:
        """Close an open intent by its step id: look first. None when the step never began on the target.

        Such an intent stays open: the resumed job starts it under the same id, or gives it up with ``abandon``.
        One that runs has until its deadline from now on, or at most ``wait`` seconds. Raises ChannelError.
        """
        step = Step.model_validate(intent.step)
        left = step if wait is None else step.model_copy(update={"deadline": min(wait, step.deadline)})
        progress = await self._to_its_end(intent.step_id, left, await self.session.look(intent.step_id, step))
        if progress.attach is Attach.ABSENT:
            return None
        return await self._conclude(intent.step_id, step, progress)

    async def abandon(self, intent: Intent) -> StepEnd:
        """Give up a step that never began: first on the target, so that no worker that slept can start it any more.

        Where such a worker was faster, the step is settled as what it did. Raises ChannelError: then it stays open.
        """
        step = Step.model_validate(intent.step)
        return await self._close(intent.step_id, step, Progress(attach=Attach.ABSENT))

    async def _close(self, name: str, step: Step, progress: Progress) -> StepEnd:
        """Write how a step ended; one that never began is forbidden on the target first."""
        while progress.attach is Attach.ABSENT:
            progress = await self._to_its_end(name, step, await self.session.forbid(name, step))
            self.record.site.crash("forbidden")
        return await self._conclude(name, step, progress)

    async def _to_its_end(self, name: str, step: Step, progress: Progress) -> Progress:
        if progress.attach is not Attach.RUNNING:
            return progress
        return await self._wait(await self.session.start(name, step), step)

    async def _conclude(self, name: str, step: Step, progress: Progress) -> StepEnd:
        end = judge_end(step, progress)
        reply = progress.reply
        body = {
            "step": step.name,
            "phase": step.phase.value,
            "attach": progress.attach.value,
            "ok": end.ok,
            "exit_code": end.exit_code,
            "detail": end.detail,
            "stdout": reply.stdout[-OUTPUT_KEPT:] if reply else "",
            "stderr": reply.stderr[-OUTPUT_KEPT:] if reply else "",
        }
        await self._outcome(name, body)
        self.record.site.crash("outcome-written")
        return end

    async def _outcome(self, name: str, body: dict[str, JsonValue]) -> None:
        await self.record.append(
            EntryKind.STEP_OUTCOME, f"outcome:{name}", body, target=self.target, step=name, fence=self.fence
        )


def recorded_ends(
    outcomes: Mapping[str, dict[str, JsonValue]], steps: list[Step], ids: list[str]
) -> dict[str, StepEnd]:
    """Read back how already recorded steps ended, so that a resumed job does not run them again."""
    ends: dict[str, StepEnd] = {}
    for step, name in zip(steps, ids, strict=True):
        body = outcomes.get(name)
        if body is None:
            continue
        code = body.get("exit_code")
        ok = bool(body.get("ok"))
        lost = not ok and code is None
        exit_code = code if isinstance(code, int) else None
        detail, output = str(body.get("detail", "")), f"{body.get('stdout', '')}\n{body.get('stderr', '')}"
        ends[step.name] = StepEnd(step, ok=ok, lost=lost, exit_code=exit_code, detail=detail, output=output)
    return ends
