"""The command hook: what it is told in its environment, in which order, quoted."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from patching.change import Outcome, Phase, Step
from patching.hooks.command import CommandKind
from patching.policy_hooks import CommandHook, Hook
from patching.target import Member, Target

TELL = 'printf "%s|%s|%s" "$PATCHING_TARGET" "$PATCHING_ROLLOUT" "$PATCHING_OUTCOME"'
HOOK = Hook(command=CommandHook(name="first", enter=TELL, leave=TELL))
TEXT = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=30)


def target(name: str) -> Target:
    return Target(name=name, members=(Member(address="10.0.0.1"),))


def entered(hook: Hook, name: str = "x", rollout: str = "r") -> Step:
    step = CommandKind().enter(hook, target(name), rollout, None)
    assert step is not None
    return step


def ran(step: Step | None) -> str:
    assert step is not None
    done = subprocess.run(["/bin/sh", "-c", step.call["script"]], capture_output=True, check=True)
    return done.stdout.decode()


@given(name=TEXT, rollout=TEXT)
def test_a_command_is_told_target_rollout_and_outcome_whatever_they_are_called(name: str, rollout: str) -> None:
    step = entered(HOOK, name, rollout)
    assert ran(step) == f"{name}|{rollout}|"
    left = CommandKind().leave(HOOK, target(name), rollout, Outcome.FAILED, step)
    assert ran(left) == f"{name}|{rollout}|failed"


def test_a_hook_has_its_own_name_and_deadline_and_one_without_leave_leaves_nothing() -> None:
    hook = Hook(command=CommandHook(name="a", enter="true", timeout=7.0))
    step = entered(hook)
    assert (step.name, step.phase, step.channel, step.deadline) == ("hook-a", Phase.ENTER, "ssh", 7.0)
    assert CommandKind().leave(hook, target("x"), "r", Outcome.APPLIED, step) is None
