"""Hooks of one target: entered once, left whatever happened and however often a worker died, and nothing else undone.

What stands entered is read from the ledger (``hooks.kinds.standing``), never remembered: the job that leaves may be
another one than the job that entered. Each act is a step like any other, with its intent written before.
"""

from __future__ import annotations

from collections.abc import Sequence

from patching.change import JobResult, Outcome, Phase, Reply, Step, step_id
from patching.channels.base import Session
from patching.hooks.base import HookImpossible, step_name
from patching.hooks.kinds import Entered, kind_of, standing
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.policy_hooks import Hook
from patching.rollout.steps import StepEnd, recorded_ends
from patching.rollout.target_job import JobFailed, TargetJob

KINDS = (EntryKind.INTENT, EntryKind.STEP_OUTCOME)


class HookRun:
    """The hooks of one job on one target."""

    def __init__(self, job: TargetJob, session: Session) -> None:
        self.job = job
        self.session = session
        self.hooks = {step_name(hook): hook for hook in job.plan.policy.spec.hooks}

    async def standing(self, *, since_undo: bool = False) -> dict[str, Entered]:
        """Give what this rollout has entered on this target, or may have, and not left; all, or since its last undo."""
        if not self.hooks:
            return {}
        job = self.job
        entries = await job.record.call(job.site.ledger.entries, job.plan.rollout, kinds=KINDS, target=job.name)
        return standing(_since_undo(entries) if since_undo else entries)

    async def enter(self, *, changed: bool = False) -> None:
        """Enter every hook that does not stand yet, in the policy's order; raises JobFailed where one must not fail.

        On a target that this rollout has ``changed`` already no backup is made: the one from before must not be lost.
        After an undo there is a new one to make, also where the hook has nothing to leave and so still stands.
        """
        for name, hook in self.hooks.items():
            found = (await self.standing(since_undo=hook.backup)).get(name)
            if (found is not None and found.sure) or (hook.backup and changed):
                continue
            wrong = await self._enter(hook, found)
            if wrong and hook.must:
                raise _failed(hook, wrong)
            if wrong:
                self.job.site.log(f'{self.job.name}: hook "{hook.title}" failed and is ignored: {wrong}')

    async def leave(self, outcome: Outcome, *, again: bool = False) -> JobFailed | None:
        """Leave what stands, the last entered first; gives the first failure of a hook that must not fail.

        ``again`` tries what failed to be left before once more, under a new generation.
        """
        bad: JobFailed | None = None
        for name, entered in reversed((await self.standing()).items()):
            hook = self.hooks[name]
            step = kind_of(hook).leave(hook, self.job.target, self.job.plan.rollout, outcome, entered.step)
            if step is None:
                continue
            end = await self._run(step, again=again)
            if end.ok:
                continue
            self.job.site.log(f'{self.job.name}: hook "{hook.title}" could not be left: {end.detail}')
            if hook.must and bad is None:
                bad = _failed(hook, end.detail)
        return bad

    async def keep(self, result: JobResult) -> None:
        """Write down how the change went before leaving begins: whoever resumes only leaves, and changes no more."""
        if not await self.standing():
            return
        body = {"phase": Phase.LEAVE.value, "generation": self.job.generation, "steps": []}
        body["result"] = result.model_dump(mode="json")
        await self.job.record.append(
            EntryKind.STEPS_RESOLVED, self._kept_key, body, target=self.job.name, fence=self.job.fence
        )

    async def kept(self) -> JobResult | None:
        """Give the result of a change whose leaving had begun in this generation."""
        found = await self._find(self._kept_key) if self.hooks else None
        return None if found is None else JobResult.model_validate(found.body["result"])

    @property
    def _kept_key(self) -> str:
        return f"steps:{self.job.name}:{Phase.LEAVE.value}:{self.job.generation}"

    async def _enter(self, hook: Hook, found: Entered | None) -> str:
        """Run the entering step and say what is wrong, if anything.

        One that was tried before keeps what it knew of how things were before it.
        """
        try:
            step = found.step if found is not None else await self._new(hook)
        except HookImpossible as error:
            return str(error)
        if step is None:
            return ""
        end = await self._run(step, again=found is None or found.leaving)
        return "" if end.ok else end.detail or f"exit {end.exit_code}"

    async def _new(self, hook: Hook) -> Step | None:
        kind, seen = kind_of(hook), None
        look = kind.look(hook, self.job.target)
        if look is not None:
            seen = await self._read(look)
            if not seen.ok:
                raise HookImpossible(seen.stderr)
        return kind.enter(hook, self.job.target, self.job.plan.rollout, seen)

    async def _read(self, step: Step) -> Reply:
        return await self.job.session_for(step, self.session).read(step)

    async def _run(self, step: Step, *, again: bool) -> StepEnd:
        """Run a step once in this generation: an open intent is begun again under its id, an ended one is not.

        With ``again`` one that has ended runs under a new generation.
        """
        job = self.job
        name = step_id(job.plan.rollout, job.name, step.phase, step.name, job.generation)
        ended = await self._find(f"outcome:{name}")
        if ended is not None and not again:
            return _recorded(step, name, ended)
        if ended is not None:
            await job.raise_generation(f"{step.name}: what ended before in phase {step.phase.value} is done anew")
        else:
            intent = await self._find(f"intent:{name}")
            step = step if intent is None else Step.model_validate(intent.body["step"])
        return await job.runner(job.session_for(step, self.session)).run(step, job.generation)

    async def _find(self, key: str) -> LedgerEntry | None:
        return await self.job.record.call(self.job.site.ledger.find, self.job.plan.rollout, key)


def _since_undo(entries: Sequence[LedgerEntry]) -> Sequence[LedgerEntry]:
    """Give the entries after the last step that undid the target."""
    undone = (
        number
        for number, entry in enumerate(entries, start=1)
        if entry.kind is EntryKind.INTENT and entry.body["step"]["phase"] == Phase.UNDO
    )
    return entries[max(undone, default=0) :]


def only_prepared(phases: Sequence[Phase]) -> bool:
    """Say whether a target was not changed: what was begun only reads, downloads, enters or leaves."""
    return all(phase in (Phase.PREPARE, Phase.ENTER, Phase.LEAVE) for phase in phases)


def _recorded(step: Step, name: str, ended: LedgerEntry) -> StepEnd:
    return recorded_ends({name: ended.body}, [step], [name])[step.name]


def _failed(hook: Hook, detail: str) -> JobFailed:
    reason = f'hook "{hook.title}" failed: {detail}'
    return JobFailed(JobResult(outcome=Outcome.FAILED, reason=reason, signature=f"hook:{hook.title}"))
