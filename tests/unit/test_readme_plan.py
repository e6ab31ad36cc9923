"""The README shows a policy beside the plan that it gives; both are the real ones (S3). ``RENEW=1`` writes the plan."""

from __future__ import annotations

import os
import re
from pathlib import Path

from patching.advisory import Priority
from patching.change import Patch, Undo
from patching.plan.document import Exclusion
from patching.plan.freeze import Candidate, freeze_plan
from patching.policy_files import load_text
from patching.report.plan_text import render_plan
from unit.plan.made import NOW, SECURITY, target

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(
    r"<!-- plan -->\n```yaml\n(?P<policy>.*?)```\n(?:\n```text\n(?P<plan>.*?)```\n)?<!-- /plan -->", re.DOTALL
)
UNDO = Undo(possible=True, covered=1, total=1, reason="kept in the host's own store")


def candidate(name: str, zone: str) -> Candidate:
    patch = Patch(
        component="libssl3:amd64",
        before="3.0.14-1~deb12u2",
        after="3.0.15-1~deb12u1",
        origin=SECURITY,
        advisories=("DSA-5764-1",),
    )
    priority = Priority(rank=1, name="high", reason="DSA-5764-1 is high")
    return Candidate(target=target(name, az=zone, role="web"), patches=(patch,), priority=priority, undo=UNDO)


def readme_plan(policy_text: str) -> str:
    """Give the plan of the README's policy on a fleet of four, one of which is down."""
    candidates = [candidate("web-01", "az-a"), candidate("web-02", "az-b"), candidate("web-04", "az-b")]
    down = Exclusion(target="web-03", code="offline", reason="connection refused")
    plan = freeze_plan(
        rollout="web-os-security-20261124-140200-1",
        policy=load_text(policy_text, "README.md"),
        now=NOW,
        candidates=candidates,
        exclusions=[down],
    )
    return render_plan(plan, NOW)


def test_plan_in_the_readme_is_the_one_that_its_policy_gives() -> None:
    text = README.read_text(encoding="utf-8")
    block = BLOCK.search(text)
    assert block is not None, "README.md has no <!-- plan --> block with a policy"
    expected = readme_plan(block["policy"]).rstrip() + "\n"
    if os.environ.get("RENEW") == "1":
        shown = f"<!-- plan -->\n```yaml\n{block['policy']}```\n\n```text\n{expected}```\n<!-- /plan -->"
        README.write_text(text[: block.start()] + shown + text[block.end() :], encoding="utf-8")
        return
    assert block["plan"] == expected
