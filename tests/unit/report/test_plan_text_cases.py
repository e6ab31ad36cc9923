"""Whole plans as they are printed (S3, style of the command line): tests/cases/plan_text/*.out is what people see.

After a wanted change of the text, write the files anew with ``python tests/unit/report/test_plan_text_cases.py`` and
read the difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patching.advisory import Priority
from patching.change import Patch, Refusal, Undo
from patching.plan.document import Exclusion, Plan
from patching.plan.freeze import Candidate, freeze_plan
from patching.plan.load import Loads
from patching.report.plan_text import render_plan
from patching.target import Target
from unit.plan.made import NOW, policy, target

CASES = Path(__file__).parents[2] / "cases" / "plan_text"
WIDTH = 100

ROLLOUT = {
    "failureDomain": "az",
    "maxUnavailable": "50%",
    "waves": [{"canary": {"count": 1, "per": "az"}, "soak": "30m"}, {"size": "50%", "soak": "10m"}, {"size": "100%"}],
}
CHECKS = [
    {"name": "front-page", "http": {"url": "http://{address}/"}},
    {"name": "errors", "prometheus": {"connection": "prom", "errors": "e{$series}", "requests": "r{$series}"}},
]
OPENSSL = Patch(component="libssl3:amd64", before="3.0.14-1~deb12u2", after="3.0.15-1~deb12u1",
                origin="Debian-Security:stable-security", advisories=("DSA-5764-1",))  # fmt: skip
CRYPTO = OPENSSL.model_copy(update={"component": "openssl:amd64"})
KERNEL = Patch(component="linux-image-6.1.0-26-amd64:amd64", before=None, after="6.1.112-1",
               origin="Debian-Security:stable-security", advisories=("DSA-5782-1",))  # fmt: skip
OLD = Patch(component="libold1:amd64", before="1.2-3", after=None)
HIGH = Priority(rank=1, name="high", reason="DSA-5764-1 is high (CVSS 7.5)")
FULL = Undo(possible=True, covered=2, total=2)


def fleet(size: int) -> list[Target]:
    width = len(str(size))
    return [target(f"web-{number:0{width}d}", az=f"az-{'abc'[number % 3]}") for number in range(1, size + 1)]


def candidate(chosen: Target, *patches: Patch, **more: Any) -> Candidate:
    return Candidate(
        **{"target": chosen, "patches": patches or (OPENSSL, CRYPTO), "priority": HIGH, "undo": FULL, **more}
    )


def frozen(candidates: list[Candidate], exclusions: list[Exclusion], **more: Any) -> Plan:
    rules = more.pop("policy", None) or policy("web-os-security", rollout=ROLLOUT, verify=CHECKS)
    return freeze_plan(
        rollout=f"{rules.name}-20261124-140200-1", policy=rules, now=NOW, candidates=candidates, exclusions=exclusions,
        **more,
    )  # fmt: skip


def small() -> Plan:
    """Six targets: a reboot, one without undo, a warning, a removal, and three that are left out."""
    hosts = fleet(9)
    reboot = "kernel 6.1.0-26 is newer than the running 6.1.0-25"
    stuck = Undo(possible=False, covered=1, total=2, reason="no source for openssl:amd64=3.0.14-1~deb12u2")
    kept = Refusal(code="held", message="nginx:amd64 1.22.1-9 → 1.22.1-9+deb12u1: nginx is held on the host",
                   remedy="run `apt-mark unhold nginx` there, or add it to patches.exclude")  # fmt: skip
    candidates = [
        candidate(hosts[0]),
        candidate(hosts[1], OPENSSL, KERNEL, reboot=reboot),
        candidate(hosts[2], undo=stuck),
        candidate(hosts[3], warnings=(kept,)),
        candidate(hosts[4], OPENSSL, CRYPTO, KERNEL, OLD, reboot=reboot),
        candidate(hosts[5]),
    ]
    left = [
        Exclusion(target="web-7", code="offline", reason="no route to host 10.0.0.17, port 22"),
        Exclusion(target="web-8", code="up_to_date", reason="nothing that the policy wants is missing"),
        Exclusion(target="web-9", code="too_young", reason="libssl3:amd64 3.0.14-1~deb12u2 → 3.0.15-1~deb12u1: "
                  "published 5h ago, minAge is 2d; due 2026-11-26 09:00 UTC"),
    ]  # fmt: skip
    return frozen(candidates, left, selected=hosts, down=["web-7"])


def five_hundred() -> Plan:
    """500 targets of two kinds, 40 left out for three reasons."""
    hosts = fleet(540)
    reboot = "kernel 6.1.0-26 is newer than the running 6.1.0-25"
    candidates = [
        candidate(host, OPENSSL, KERNEL, reboot=reboot) if number % 5 == 0 else candidate(host)
        for number, host in enumerate(hosts[:500])
    ]
    why = {"offline": "it did not answer within 10s", "up_to_date": "nothing that the policy wants is missing",
           "quarantined": "it is in quarantine: its undo failed in web-os-security-20261117-220000-3"}  # fmt: skip
    left = [
        Exclusion(target=host.name, code=code, reason=why[code])
        for number, host in enumerate(hosts[500:])
        for code in (["offline", *["up_to_date"] * 7, "quarantined", "up_to_date"][number % 10],)
    ]
    down = [item.target for item in left if item.code == "offline"]
    asks = {"when": {"targetsOver": 20, "reboots": True}, "required": 2, "approvers": ["alice", "bob"]}
    rules = policy("web-os-security", rollout=ROLLOUT, verify=CHECKS, approval=asks)
    busy = {host.name: 10.0 + 7 * (number % 11) for number, host in enumerate(hosts)}
    loads = Loads(check="errors", unit="requests", of=busy)
    return frozen(candidates, left, selected=hosts, down=down, policy=rules, loads=loads)


def blocked_emergency() -> Plan:
    """An emergency past window and freeze for a fleet of three of which one is down: its domain cannot move."""
    hosts = [target("db-1", az="az-a"), target("db-2", az="az-b"), target("db-3", az="az-b")]
    rules = policy(
        "databases",
        rollout={"failureDomain": "az", "maxUnavailable": 1, "waves": ROLLOUT["waves"]},
        emergency={"ignore": ["window", "freeze"]},
    )
    left = [Exclusion(target="db-3", code="offline", reason="connection refused")]
    return frozen(
        [candidate(hosts[0]), candidate(hosts[1])], left, selected=hosts, down=["db-3"], emergency=True, policy=rules
    )


def nothing() -> Plan:
    """Nothing to do."""
    left = [Exclusion(target=host.name, code="up_to_date", reason="nothing that the policy wants is missing")
            for host in fleet(3)]  # fmt: skip
    return frozen([], left)


PLANS: dict[str, Callable[[], Plan]] = {
    "small": small,
    "five-hundred": five_hundred,
    "blocked-emergency": blocked_emergency,
    "nothing": nothing,
}


def printed(name: str) -> str:
    """Print a plan, its two digests left out: any new field of a policy would change them."""
    text = render_plan(PLANS[name](), width=WIDTH) + "\n"
    return re.sub(
        r"^Plan [0-9a-f]{12} for (\S+) \(policy [0-9a-f]{12}", r"Plan 7f3a00000000 for \1 (policy 91c200000000", text
    )


@pytest.mark.parametrize("name", PLANS)
def test_plan_is_printed_as_in_its_case(name: str) -> None:
    assert printed(name) == (CASES / f"{name}.out").read_text(encoding="utf-8")


def test_every_case_has_a_plan() -> None:
    assert {path.stem for path in CASES.glob("*.out")} == set(PLANS)


@pytest.mark.parametrize("name", PLANS)
def test_every_target_and_every_exclusion_is_counted_and_the_summary_is_last(name: str) -> None:
    plan = PLANS[name]()
    text = render_plan(plan, width=WIDTH)
    assert text.rstrip().splitlines()[-1].startswith(("Plan: ", "    "))
    assert f"Plan: {len(plan.targets)} to patch" in text
    assert "because" in text or not plan.targets
    assert all(len(line) <= WIDTH for line in text.splitlines())


if __name__ == "__main__":
    for name in PLANS:
        (CASES / f"{name}.out").write_text(printed(name), encoding="utf-8")
