"""HTTP hook: one request before the change and one after it, over an Airflow connection that has the secrets."""

from __future__ import annotations

from urllib.parse import quote

from patching.change import Outcome, Phase, Reply, Step, StepKind
from patching.hooks.base import step_name
from patching.placeholders import fill
from patching.policy_hooks import Hook, HttpCall
from patching.target import Target
from patching.value import JsonValue

REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""Methods that may be sent again when nobody knows whether they arrived (idempotent, RFC 9110 section 9.2.2)."""
SPARE = 10.0


class HttpKind:
    """Sends requests, which the channel ``http`` does."""

    def look(self, hook: Hook, target: Target) -> Step | None:
        """Nothing is read before."""
        return None

    def enter(self, hook: Hook, target: Target, rollout: str, seen: Reply | None) -> Step | None:
        """Send ``enter``; without one there is only something to be sent afterwards."""
        call = hook.http.enter if hook.http else None
        return _step(hook, Phase.ENTER, call, target, rollout, "") if call else _nothing(hook)

    def leave(self, hook: Hook, target: Target, rollout: str, outcome: Outcome, entered: Step) -> Step | None:
        """Send ``leave``; None without one."""
        call = hook.http.leave if hook.http else None
        return _step(hook, Phase.LEAVE, call, target, rollout, outcome.value) if call else None


def _step(hook: Hook, phase: Phase, call: HttpCall, target: Target, rollout: str, outcome: str) -> Step:
    timeout = hook.http.timeout if hook.http else hook.timeout
    known = {"target": target.name, "change_id": rollout, "outcome": outcome}
    whole = {
        "connection": hook.connection,
        "timeout": timeout,
        "repeatable": call.method in REPEATABLE,
        "method": call.method,
        "url": fill(call.url, target, lambda text: quote(text, safe="")),
        "body": None if call.body is None else _filled(call.body, target),
        "status": list(call.status),
        "headers": {f"X-Patching-{name.title().replace('_', '-')}": quote(value) for name, value in known.items()},
    }
    return _of(hook, phase, whole, timeout + SPARE)


def _nothing(hook: Hook) -> Step:
    """Stand for a hook that has only a leaving side: its step says that it was entered."""
    return _of(hook, Phase.ENTER, {"connection": None, "timeout": 1.0, "repeatable": True, "method": None}, SPARE)


def _of(hook: Hook, phase: Phase, call: dict[str, JsonValue], deadline: float) -> Step:
    return Step(name=step_name(hook), phase=phase, kind=StepKind.ACT, channel="http", call=call, deadline=deadline)


def _filled(value: JsonValue, target: Target) -> JsonValue:
    if isinstance(value, str):
        return fill(value, target)
    if isinstance(value, dict):
        return {key: _filled(item, target) for key, item in value.items()}
    return [_filled(item, target) for item in value] if isinstance(value, (list, tuple)) else value
