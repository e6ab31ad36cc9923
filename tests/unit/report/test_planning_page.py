"""The plan in docs/explanation/planning.md is what the code prints.

``cd tests && python -m unit.report.test_planning_page`` writes it anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from patching.advisory import Priority
from patching.change import Patch, Undo
from patching.plan.document import Exclusion, Plan
from patching.plan.freeze import freeze_plan
from patching.report.plan_text import render_plan
from unit.plan.made import NOW, SECURITY, candidate, policy, target

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "planning.md"
BLOCK = re.compile(r"(?<=```console\n\$ patching plan web-os-security\n).*?(?=\n```)", re.S)
DIGEST = re.compile(r"\b[0-9a-f]{12}\b")  # any new field of a policy changes them
SPEC = {
    "approval": {"required": 2, "when": {"targetsOver": 5}},
    "rollout": {
        "failureDomain": "az",
        "maxUnavailable": "50%",
        "waves": [
            {"canary": {"count": 1, "per": "az"}, "soak": "30m"},
            {"size": "50%", "soak": "10m"},
            {"size": "100%"},
        ],
    },
    "verify": [
        {"name": "page", "http": {"url": "http://{address}/healthz"}},
        {"name": "errors", "prometheus": {"connection": "prom", "errors": "e", "requests": "r"}},
    ],
}


def example() -> Plan:
    """Make the plan of the page: eight web hosts in three zones, one that is down, one that is held."""
    everybody = [target(f"web-{number}", az=f"az-{'abc'[number % 3]}") for number in range(1, 9)]
    fix = Patch(component="libssl3:amd64", before="3.0.11-1~deb12u1", after="3.0.11-1~deb12u2", origin=SECURITY,
                advisories=("DSA-5532-1",))  # fmt: skip
    urgent = Priority(rank=0, name="critical", reason="DSA-5532-1 is critical (CVSS 9.8)")
    stuck = Undo(possible=False, covered=0, total=1, reason="no source for libssl3:amd64=3.0.11-1~deb12u1")
    undo = {"web-6": stuck}
    reboot = {"web-4": "a library of init is replaced"}
    common = {"patches": (fix,), "priority": urgent}
    chosen = [
        candidate(
            item, **common, **({"undo": undo[item.name]} if item.name in undo else {}), reboot=reboot.get(item.name)
        )
        for item in everybody
        if item.name not in ("web-5", "web-7")
    ]
    left = [
        Exclusion(target="web-5", code="offline", reason="no answer from 10.0.0.5:22 in 30 s"),
        Exclusion(target="web-7", code="held",
                  reason="libssl3:amd64 3.0.11-1~deb12u1 → 3.0.11-1~deb12u2: libssl3 is held on the host"),
    ]  # fmt: skip
    return freeze_plan(
        rollout="web-os-security-20261124-140200-1",
        policy=policy("web-os-security", **SPEC),
        now=NOW,
        candidates=chosen,
        exclusions=left,
        selected=everybody,
        down=["web-5"],
    )


def printed() -> str:
    """Print it with other digests: any new field of a policy would change them."""
    text = render_plan(example())
    return re.sub(
        r"^Plan [0-9a-f]{12} for (\S+) \(policy [0-9a-f]{12}", r"Plan 7f3a0c51d2e8 for \1 (policy 91c2b7704fa6", text
    )


def test_plan_in_the_page_is_what_is_printed() -> None:
    found = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    shown, made = (DIGEST.sub("…", text) for text in (found.group(), render_plan(example())))
    assert shown == made, "run python -m unit.report.test_planning_page in tests/"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda _match: printed(), text), encoding="utf-8")
