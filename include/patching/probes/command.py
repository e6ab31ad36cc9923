"""Command probe: a command on the target that must exit 0."""

from __future__ import annotations

import shlex

from patching.change import Phase, Step, StepKind
from patching.placeholders import fill
from patching.policy import CommandProbe
from patching.target import Target


def command_step(check: str, probe: CommandProbe, target: Target) -> Step:
    """Build the reading step; the policy's author writes shell, so only the placeholders are quoted."""
    call = {"script": fill(probe.run, target, shlex.quote), "sudo": probe.sudo}
    return Step(name=f"probe-{check}", phase=Phase.VERIFY, kind=StepKind.READ, call=call, deadline=probe.timeout)
