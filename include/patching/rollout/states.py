"""The states of a rollout and the only table that says which may follow which (published in docs/reference)."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from patching.errors import TransitionRefused


class RolloutState(StrEnum):
    """Where a rollout stands; the last five are final."""

    PLANNED = "planned"
    AWAITING_APPROVAL = "awaiting_approval"
    WAITING = "waiting"
    RUNNING = "running"
    HELD = "held"
    UNDOING = "undoing"
    COMPLETED = "completed"
    UNDONE = "undone"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


S = RolloutState

TRANSITIONS: dict[RolloutState, dict[RolloutState, str]] = {
    S.PLANNED: {
        S.AWAITING_APPROVAL: "the policy or the plan asks for approval",
        S.WAITING: "no approval is needed",
        S.COMPLETED: "there was nothing to do",
        S.ABORTED: "a person aborted it",
        S.SUPERSEDED: "a newer plan or an emergency took over its targets",
        S.EXPIRED: "its validity passed",
    },
    S.AWAITING_APPROVAL: {
        S.WAITING: "enough different people approved this digest",
        S.ABORTED: "somebody rejected it, or a person aborted it",
        S.SUPERSEDED: "a newer plan or an emergency took over its targets",
        S.EXPIRED: "nobody approved it in time",
    },
    S.WAITING: {
        S.RUNNING: "a wave's gate opened",
        S.HELD: "a gate, a person, or an undo that finds no place holds it",
        S.COMPLETED: "every target had ended already",
        S.ABORTED: "a person aborted it",
        S.SUPERSEDED: "a newer plan or an emergency took over its targets",
        S.EXPIRED: "its validity passed",
    },
    S.RUNNING: {
        S.WAITING: "the window closed, or the next wave's gate waits",
        S.HELD: "a verdict, a budget, a person, or an undo that finds no place holds it",
        S.UNDOING: "a verdict says undo",
        S.COMPLETED: "every wave was promoted and verified",
        S.ABORTED: "a person aborted it",
        S.SUPERSEDED: "an emergency took over its targets",
    },
    S.HELD: {
        S.WAITING: "a person resumed or promoted it",
        S.UNDOING: "a person or a late verdict asks for undo",
        S.ABORTED: "a person aborted it",
        S.SUPERSEDED: "a newer plan or an emergency took over its targets",
        S.EXPIRED: "its validity passed",
    },
    S.UNDOING: {
        S.UNDONE: "every changed target was undone, or a later rollout changed it",
        S.HELD: "an undo failed or must not be: an incident locks the policy until a person releases it",
    },
    S.COMPLETED: {S.UNDOING: "a person or a late regression asks for undo"},
    S.UNDONE: {},
    S.ABORTED: {S.UNDOING: "a person asks for undo of what was changed"},
    S.SUPERSEDED: {},
    S.EXPIRED: {},
}

BEFORE_APPROVAL = (S.PLANNED, S.AWAITING_APPROVAL)
AT_WORK = (S.WAITING, S.RUNNING)
FINAL = frozenset({S.COMPLETED, S.UNDONE, S.ABORTED, S.SUPERSEDED, S.EXPIRED})


def check_transition(rollout: str, current: RolloutState, to: RolloutState) -> None:
    """Refuse a change of state that the table does not have; raises TransitionRefused naming the allowed ones."""
    if to in TRANSITIONS[current]:
        return
    raise TransitionRefused(f'rollout {rollout} is "{current}" and may not become "{to}"; from there: {ways(current)}')


def check_origin(rollout: str, current: RolloutState, to: RolloutState, only_from: Collection[RolloutState]) -> None:
    """Refuse a change of state from a state that it was not meant for; an empty ``only_from`` allows every state.

    Raises TransitionRefused naming those that it was meant for, and what may follow the current one.
    """
    if not only_from or current in only_from:
        return
    meant = " or ".join(f'"{state}"' for state in only_from)
    raise TransitionRefused(
        f'rollout {rollout} is "{current}": only one that is {meant} may become "{to}" in this way; '
        f"from there: {ways(current)}"
    )


def ways(current: RolloutState) -> str:
    """List the states that may follow one, each with its reason, in words."""
    if not TRANSITIONS[current]:
        return "nothing, it is final"
    return "; ".join(f"{state} ({why})" for state, why in sorted(TRANSITIONS[current].items()))
