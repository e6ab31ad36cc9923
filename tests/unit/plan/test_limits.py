"""Limits of domains and services (F2, S3): the policy's own, and those of limits.yaml that it can only tighten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.diagnostics import PolicyError
from patching.limits import LIMITS_FILE, load_limits, parse_limits
from patching.plan.capacity import reboot_claims, services, shared, target_claims
from patching.plan.document import Plan
from patching.plan.freeze import freeze_plan
from patching.policy import RolloutRules
from patching.policy_files import find_policies
from patching.target import Target
from unit.plan.made import NOW, candidate, policy, target

LIMITS = """
apiVersion: patching/v1alpha1
kind: PatchLimits
metadata: {name: house}
spec:
  limits:
    - {label: az, maxUnavailable: 10%}
    - {label: service, values: [etcd], minHealthy: 2, maxRebooting: 1}
"""
ETCD = [target(f"etcd-{number}", service="etcd", az=f"az-{number}") for number in range(3)]


def frozen(targets: list[Target], text: str = LIMITS, down: tuple[str, ...] = (), **rollout: Any) -> Plan:
    limits = parse_limits(text)
    return freeze_plan(
        rollout="r", policy=policy(rollout=rollout), now=NOW, exclusions=[], selected=targets, down=down,
        candidates=[candidate(item) for item in targets if item.name not in down],
        limits=limits, population=limits.population(targets),
    )  # fmt: skip


def claims(plan: Plan, chosen: Target) -> dict[tuple[str, str], int]:
    return {(item.kind, item.name): item.limit for item in target_claims(plan, chosen)}


def test_target_claims_a_place_in_every_domain_that_limits_it_under_one_name_for_all_policies() -> None:
    plan = frozen(ETCD, failureDomain="az", service="service", maxUnavailable=2)
    assert claims(plan, ETCD[0]) == {
        ("target", "etcd-0"): 1,
        ("domain", "web az=az-0"): 2,
        ("service", "web service=etcd"): 2,
        ("limit", "az=az-0"): 1,
        ("limit", "service=etcd"): 1,
    }
    found = [(item.kind, item.name, item.limit) for item in reboot_claims(plan, ETCD[0])]
    assert found == [("reboot", "web", 1), ("reboot", "service=etcd", 1)]


def test_percent_of_limits_is_of_the_whole_inventory_and_not_of_what_a_policy_selects() -> None:
    fleet = [target(f"web-{number}", az="a") for number in range(30)]
    limits = parse_limits(LIMITS)
    assert shared(limits, limits.population(fleet), fleet[:4], ())["az=a"].limit == 3


def test_down_target_takes_the_last_place_of_the_quorum_and_the_plan_says_so() -> None:
    plan = frozen(ETCD, down=("etcd-2",), maxUnavailable=3)
    assert plan.targets == ()
    assert plan.blocked_domains == ("service=etcd cannot move: etcd-2 is down, limit 1 (limits.yaml)",)
    assert {item.code for item in plan.exclusions} == {"limit_blocked"}


def test_quorum_of_everybody_cannot_move_and_says_so() -> None:
    plan = frozen(ETCD, text=LIMITS.replace("minHealthy: 2", "minHealthy: 100%"))
    assert plan.blocked_domains == ("service=etcd cannot move: 3 of 3 must stay healthy (minHealthy) (limits.yaml)",)


def test_policy_has_a_quorum_of_its_own_for_each_service() -> None:
    rules = RolloutRules.model_validate({"service": "service", "maxUnavailable": "50%", "minHealthy": "75%"})
    everybody = [target(f"w{number}", service="web") for number in range(10)] + [target("odd")]
    found = services(rules, everybody, ["w1"])
    assert list(found) == ["web"]
    assert (found["web"].limit, found["web"].places) == (2, 1)


def test_quorum_without_services_is_of_the_whole_policy() -> None:
    plan = frozen([target("a"), target("b"), target("c")], text="kind: PatchLimits", maxUnavailable=3, minHealthy=2)
    assert claims(plan, target("a")) == {("target", "a"): 1, ("domain", "web"): 3, ("service", "web"): 1}


@given(st.integers(1, 50), st.integers(0, 100), st.integers(1, 100))
def test_never_fewer_stay_than_the_quorum_nor_more_move_than_the_limit(size: int, healthy: int, most: int) -> None:
    text = f"spec: {{limits: [{{label: az, maxUnavailable: {most}%, minHealthy: {healthy}%}}]}}"
    fleet = [target(f"w{number}", az="a") for number in range(size)]
    limits = parse_limits(text)
    found = shared(limits, limits.population(fleet), fleet, ())["az=a"]
    assert found.limit <= max(size * most // 100, 1)
    assert (size - found.limit) * 100 >= size * healthy


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("spec: {limits: [{label: az}]}", "empty-limit"),
        ("spec: {limits: [{label: az, maxUnavailable: 0%}]}", "max-unavailable"),
        ("spec: {limits: [{label: az, maxUnavailble: 1}]}", "unknown-key"),
        ("kind: PatchPolicy", ""),
    ],
)
def test_broken_limits_are_refused_with_their_place(text: str, rule: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_limits(text)
    assert refused.value.diagnostics[0].line == 1
    assert rule in ("", refused.value.diagnostics[0].rule)


def test_limits_file_is_no_policy_and_its_absence_limits_nothing(tmp_path: Path) -> None:
    assert load_limits(tmp_path).spec.limits == ()
    (tmp_path / LIMITS_FILE).write_text(LIMITS)
    assert find_policies(tmp_path) == []
    assert [item.label for item in load_limits(tmp_path).spec.limits] == ["az", "service"]
