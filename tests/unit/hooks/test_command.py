"""The command hook: what it is told in its environment, in which order, quoted."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from patching.change import Outcome, Phase
from patching.hooks.command import enter_steps, leave_steps
from patching.policy import CommandHook
from patching.target import Member, Target

TELL = 'printf "%s|%s|%s" "$PATCHING_TARGET" "$PATCHING_ROLLOUT" "$PATCHING_OUTCOME"'
HOOKS = (CommandHook(name="first", enter=TELL, leave=TELL), CommandHook(name="second", enter="true"))
TEXT = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=30)


def target(name: str) -> Target:
    return Target(name=name, members=(Member(address="10.0.0.1"),))


def ran(script: str) -> bytes:
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout


@given(name=TEXT, rollout=TEXT)
def test_a_command_is_told_target_rollout_and_outcome_whatever_they_are_called(name: str, rollout: str) -> None:
    (_, step), *_ = enter_steps(HOOKS, target(name), rollout)
    assert ran(step.call["script"]).decode() == f"{name}|{rollout}|"
    ((_, step),) = leave_steps(HOOKS, target(name), rollout, Outcome.FAILED)
    assert ran(step.call["script"]).decode() == f"{name}|{rollout}|failed"


def test_hooks_are_entered_in_order_and_left_in_reverse() -> None:
    both = (CommandHook(name="a", enter="true", leave="true"), CommandHook(name="b", enter="true", leave="true"))
    assert [step.name for _, step in enter_steps(both, target("x"), "r")] == ["hook-a", "hook-b"]
    left = leave_steps(both, target("x"), "r", Outcome.APPLIED)
    assert [(step.name, step.phase) for _, step in left] == [("hook-b", Phase.LEAVE), ("hook-a", Phase.LEAVE)]


def test_a_hook_has_its_own_deadline_and_one_without_leave_is_passed_over() -> None:
    hook = CommandHook(name="a", enter="true", timeout=7.0)
    ((_, step),) = enter_steps((hook,), target("x"), "r")
    assert step.deadline == 7.0
    assert leave_steps((hook,), target("x"), "r", Outcome.APPLIED) == []
