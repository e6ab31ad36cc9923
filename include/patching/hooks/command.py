"""Command hook: a command on the target before its change and one after it, with what it needs in its environment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from patching.change import Outcome, Phase, Step, StepKind
from patching.policy import CommandHook
from patching.target import Target

Hooked = list[tuple[CommandHook, Step]]


def enter_steps(hooks: Sequence[CommandHook], target: Target, rollout: str) -> Hooked:
    """Give the entering steps in the policy's order."""
    return [(hook, _step(hook, hook.enter, Phase.ENTER, target, rollout, "")) for hook in hooks]


def leave_steps(hooks: Sequence[CommandHook], target: Target, rollout: str, outcome: Outcome) -> Hooked:
    """Give the leaving steps, the last entered first; hooks without one are passed over."""
    return [
        (hook, _step(hook, hook.leave, Phase.LEAVE, target, rollout, outcome.value))
        for hook in reversed(hooks)
        if hook.leave
    ]


def _step(hook: CommandHook, command: str, phase: Phase, target: Target, rollout: str, outcome: str) -> Step:
    known = {"PATCHING_TARGET": target.name, "PATCHING_ROLLOUT": rollout, "PATCHING_OUTCOME": outcome}
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in known.items())
    return Step(
        name=f"hook-{hook.name}",
        phase=phase,
        kind=StepKind.ACT,
        call={"script": f"{exports}\n{command}\n", "sudo": True},
        deadline=hook.timeout,
    )
