"""HookKind: what one kind of hook does around a change, as steps; nothing here does I/O or reads a clock."""

from __future__ import annotations

from typing import Protocol

from patching.change import Outcome, Reply, Step
from patching.errors import PatchingError
from patching.policy_hooks import Hook
from patching.target import Target


class HookImpossible(PatchingError):
    """A hook cannot be entered as things are; nothing was done."""


class HookKind(Protocol):
    """One kind of hook."""

    def look(self, hook: Hook, target: Target) -> Step | None:
        """Give the reading step whose reply ``enter`` needs; None where entering needs to know nothing."""
        ...

    def enter(self, hook: Hook, target: Target, rollout: str, seen: Reply | None) -> Step | None:
        """Give the entering step; None where this hook has only a leaving side.

        The step holds whatever the leaving side must know of how things were before. Raises HookImpossible.
        """
        ...

    def leave(self, hook: Hook, target: Target, rollout: str, outcome: Outcome, entered: Step) -> Step | None:
        """Give the step that undoes what ``entered`` did and nothing else; None where there is nothing to undo."""
        ...


def step_name(hook: Hook) -> str:
    """Name the steps of a hook; unique within a policy and phase."""
    return f"hook-{hook.title}"
