"""Command hook: a command on the target before its change and one after it, with what it needs in its environment."""

from __future__ import annotations

import shlex

from patching.change import Outcome, Phase, Reply, Step, StepKind
from patching.hooks.base import step_name
from patching.policy_hooks import CommandHook, Hook
from patching.target import Target


class CommandKind:
    """Runs on the target itself, as any step of its change."""

    def look(self, hook: Hook, target: Target) -> Step | None:
        """Nothing is read before."""
        return None

    def enter(self, hook: Hook, target: Target, rollout: str, seen: Reply | None) -> Step | None:
        """Run ``enter``."""
        return _step(hook, _command(hook).enter, Phase.ENTER, target, rollout, "")

    def leave(self, hook: Hook, target: Target, rollout: str, outcome: Outcome, entered: Step) -> Step | None:
        """Run ``leave``, which is told the outcome; None without one."""
        command = _command(hook).leave
        return _step(hook, command, Phase.LEAVE, target, rollout, outcome.value) if command else None


def _command(hook: Hook) -> CommandHook:
    if hook.command is None:
        raise TypeError(f'hook "{hook.title}" has no command')
    return hook.command


def _step(hook: Hook, command: str, phase: Phase, target: Target, rollout: str, outcome: str) -> Step:
    known = {"PATCHING_TARGET": target.name, "PATCHING_ROLLOUT": rollout, "PATCHING_OUTCOME": outcome}
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in known.items())
    return Step(
        name=step_name(hook),
        phase=phase,
        kind=StepKind.ACT,
        call={"script": f"{exports}\n{command}\n", "sudo": True},
        deadline=_command(hook).timeout,
    )
