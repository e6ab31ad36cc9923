"""Silence hook: alerts of the target are silenced during its change; the silence ends with it, or else by itself."""

from __future__ import annotations

from patching.change import Outcome, Phase, Reply, Step, StepKind
from patching.hooks.base import step_name
from patching.placeholders import fill
from patching.policy_hooks import Hook
from patching.target import Target

SPARE = 10.0


class AlertmanagerKind:
    """Acts on Alertmanager's API, which the channel ``alertmanager`` speaks."""

    def look(self, hook: Hook, target: Target) -> Step | None:
        """Nothing is read before: our silences are known by their tag."""
        return None

    def enter(self, hook: Hook, target: Target, rollout: str, seen: Reply | None) -> Step | None:
        """Silence what the matchers say, for at most ``atMost``."""
        matchers = [
            {"name": name, "value": fill(value, target), "isRegex": False, "isEqual": True}
            for name, value in hook.matchers.items()
        ]
        call = {"op": "silence", "matchers": matchers, "at_most": hook.at_most, "tag": tag(hook, target, rollout)}
        return _step(hook, Phase.ENTER, call)

    def leave(self, hook: Hook, target: Target, rollout: str, outcome: Outcome, entered: Step) -> Step | None:
        """End the silences that have this change's tag, and no other."""
        return _step(hook, Phase.LEAVE, {"op": "unsilence", "tag": entered.call["tag"]})


def tag(hook: Hook, target: Target, rollout: str) -> str:
    """Name our silence in its comment: the same for every attempt, so that none is left behind or opened twice."""
    return f"patching {target.name}, change {rollout}, hook {hook.title}"


def _step(hook: Hook, phase: Phase, call: dict[str, object]) -> Step:
    whole = {"connection": hook.connection, "timeout": hook.timeout, "repeatable": True, **call}
    return Step(
        name=step_name(hook),
        phase=phase,
        kind=StepKind.ACT,
        channel="alertmanager",
        call=whole,
        deadline=3 * hook.timeout + SPARE,
    )
