"""The frozen plan (S3): its digest, the approval it needs and why, and the same plan for the same input."""

from __future__ import annotations

from typing import Any

import pytest

from patching.advisory import Finding, Priority
from patching.change import Undo
from patching.plan.document import Exclusion, Plan
from patching.plan.freeze import Candidate, freeze_plan
from unit.plan.made import NOW, candidate, fleet, policy, target

NO_UNDO = Undo(possible=False, covered=30, total=121, reason="no source for the others")


def freeze(candidates: list[Candidate], *, rollout: str = "web-1", **more: Any) -> Plan:
    rules, left = policy(**more.pop("spec", {})), more.pop("exclusions", [])
    return freeze_plan(rollout=rollout, policy=rules, now=NOW, candidates=candidates, exclusions=left, **more)


def some(count: int, **more: Any) -> list[Candidate]:
    return [candidate(item, **more) for item in fleet([count])]


def test_same_input_gives_the_same_digest_and_any_change_another() -> None:
    plan = freeze(some(5))
    assert plan.digest == freeze(list(reversed(some(5)))).digest
    assert Plan.model_validate_json(plan.model_dump_json()).digest == plan.digest
    assert len({plan.digest, freeze(some(6)).digest, freeze(some(5), rollout="web-2").digest}) == 3


def test_every_candidate_is_planned_once_in_wave_order_with_its_reason_and_before_state() -> None:
    plan = freeze(some(12))
    assert [item.wave for item in plan.targets] == sorted(item.wave for item in plan.targets)
    assert sorted(item.target.name for item in plan.targets) == sorted(
        name for wave in plan.waves for name in wave.targets
    )
    assert plan.targets[0].reason == "DSA-1 is high; 1 component changes, 1 closes an advisory"
    assert plan.targets[0].before == {"linux-image:amd64": "6.1.90-1"}


def test_empty_fleet_is_a_plan_without_waves_that_needs_nobody() -> None:
    gone = Exclusion(target="web-1", code="offline", reason="no answer")
    plan = freeze([], exclusions=[gone], spec={"approval": {"required": 2}})
    assert (plan.targets, plan.waves, plan.exclusions) == ((), (), (gone,))
    assert (plan.approval_required, plan.approval_reason) == (0, "there is nothing to do")


APPROVALS: list[tuple[dict[str, Any], dict[str, Any], int, str]] = [
    ({"required": 2}, {}, 2, "the policy always asks"),
    ({"required": 0}, {}, 0, "the policy asks for no approval"),
    ({"required": 2, "when": {"targetsOver": 2}}, {}, 2, "3 targets are more than 2"),
    ({"required": 2, "when": {"targetsOver": 3}}, {}, 0, "no condition of approval.when holds"),
    ({"required": 1, "when": {"reboots": True}}, {"reboot": "a kernel"}, 1, "3 targets reboot"),
    ({"required": 1, "when": {"reboots": True}}, {}, 0, "no condition of approval.when holds"),
    ({"required": 2, "when": {"undoUnavailable": True}}, {"undo": NO_UNDO}, 2, "undo is not available for 3 targets"),
    ({"required": 0}, {"undo": NO_UNDO}, 1, "undo is not available for 3 of 3 targets: somebody has to look"),
    ({"required": 2, "when": {"targetsOver": 9}}, {"undo": NO_UNDO}, 2, "undo is not available for 3 of 3"),
]


@pytest.mark.parametrize(("rules", "more", "needed", "reason"), APPROVALS, ids=[item[3][:40] for item in APPROVALS])
def test_approval_and_its_reason(rules: dict[str, Any], more: dict[str, Any], needed: int, reason: str) -> None:
    plan = freeze(some(3, **more), spec={"approval": rules})
    assert plan.approval_required == needed
    assert plan.approval_reason.startswith(reason)


def test_emergency_asks_as_the_policy_says_for_emergencies() -> None:
    spec = {"approval": {"required": 3}, "emergency": {"approval": {"required": 1}}}
    assert freeze(some(3), spec=spec, emergency=True).approval_required == 1
    assert freeze(some(3), spec=spec).approval_required == 3


def test_reboot_that_the_policy_forbids_is_not_planned() -> None:
    plan = freeze(some(3, reboot="a kernel"), spec={"reboot": {"policy": "never"}})
    assert not any(item.reboot for item in plan.targets)
    assert all(item.reboot for item in freeze(some(3, reboot="a kernel")).targets)


def test_only_advisories_of_planned_targets_are_named() -> None:
    found = Finding(advisory="DSA-1", target="a", component="x", installed="1", fixed="2")
    plan = freeze([candidate(target("a"), findings=(found,))], advisories=["DSA-1", "DSA-2"])
    assert plan.advisories == ("DSA-1",)


def test_fleet_of_three_keeps_a_control_and_fleet_of_one_says_that_it_has_none() -> None:
    assert [len(wave.targets) for wave in freeze(some(3)).waves] == [1, 1, 1]
    one = freeze(some(1))
    assert [len(wave.targets) for wave in one.waves] == [1]
    assert "there is no control" in one.power[0].statement


def test_urgent_targets_come_first_within_a_wave() -> None:
    late = candidate(target("a"), priority=Priority(rank=3, name="low", reason="low"))
    soon = candidate(target("b"), priority=Priority(rank=0, name="critical", reason="critical"))
    plan = freeze([late, soon], spec={"rollout": {"waves": [{"size": "100%"}]}})
    assert [item.target.name for item in plan.targets] == ["b", "a"]
