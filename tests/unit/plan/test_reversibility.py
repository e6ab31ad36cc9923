"""What cannot be undone is found when planning, with the reason, and needs its gates (issue of undo safety)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.advisory import Advisory
from patching.change import Irreversible, Patch, Undo
from patching.errors import PlanError
from patching.plan.document import Plan
from patching.plan.freeze import Candidate, freeze_plan
from patching.plan.reversibility import gates, sentence, with_declared
from patching.policy import IrreversibleRule, Policy
from patching.report.plan_text import plan_markdown, render_plan
from unit.plan.made import NOW, candidate, patch, policy, target

GOOD = Undo(possible=True, covered=2, total=2, reason="kept")
DB = patch("postgresql-15:amd64", "15.5", "15.6")
LIB = patch("libpq5:amd64", "15.5", "15.6")
MIGRATES = "its data are migrated"
SPARE = {"withoutBackup": "spare hosts", "withoutDrill": "tried in the lab"}
BACKUP = {"command": {"name": "dump", "enter": "dump-all"}, "backup": True}


def rule(**accept: str) -> dict[str, Any]:
    return {"match": ["postgresql-*"], "reason": MIGRATES, "accept": accept}


def rules(*given: dict[str, Any]) -> tuple[IrreversibleRule, ...]:
    return tuple(IrreversibleRule.model_validate(item) for item in given)


def frozen(made: Policy, undo: Undo = GOOD, patches: tuple[Patch, ...] = (DB, LIB)) -> Plan:
    known = with_declared(undo, patches, made.spec.patches.irreversible, {})
    chosen: list[Candidate] = [candidate(target(f"db-{n}"), patches=patches, undo=known) for n in (1, 2)]
    return freeze_plan(rollout="r", policy=made, now=NOW, candidates=chosen, exclusions=[])


def test_pattern_of_the_policy_names_the_component_whole_or_bare() -> None:
    undo = with_declared(GOOD, [DB, LIB], rules(rule()), {})
    (found,) = undo.irreversible
    assert (found.components, found.found_by, undo.possible) == (("postgresql-15:amd64",), "policy", False)
    assert (undo.covered, undo.total) == (1, 2)
    assert undo.reason == "postgresql-15:amd64 cannot be undone (declared in the policy: its data are migrated)"
    assert with_declared(GOOD, [LIB], rules(rule()), {}) == GOOD


def test_advisory_and_driver_are_said_apart() -> None:
    lost = Irreversible(components=(LIB.component,), found_by="driver", reason="nobody has libpq5=15.5")
    driver = Undo(possible=False, covered=1, total=2, reason="undo available for 1 of 2", irreversible=(lost,))
    known = {"DSA-1": Advisory(id="DSA-1", irreversible="a fuse is blown")}
    undo = with_declared(driver, [DB, LIB], (), known)
    assert [item.found_by for item in undo.irreversible] == ["driver", "advisory"]
    assert undo.covered == 0
    assert "undo available for 1 of 2; " in undo.reason
    assert "declared by advisory DSA-1: a fuse is blown" in undo.reason


def test_declared_by_an_advisory_without_gates_is_an_error_of_the_plan() -> None:
    fuse = Irreversible(components=(DB.component,), found_by="advisory", reason="DSA-1: a fuse is blown")
    undo = Undo(possible=False, total=1, irreversible=(fuse,))
    with pytest.raises(PlanError, match=r"db-\d: .*a fuse is blown.*backup: true"):
        frozen(policy(), undo)
    with pytest.raises(PlanError, match=r"rollout\.drill"):
        frozen(policy(hooks=[BACKUP]), undo)
    assert frozen(policy(hooks=[BACKUP], rollout={"drill": True}), undo).approval_required == 1
    accepted = policy(patches={"irreversible": [{**rule(), "accept": SPARE}]})
    assert frozen(accepted, undo).approval_required == 1


def test_what_only_the_driver_found_needs_a_person_but_no_backup() -> None:
    lost = Irreversible(components=(DB.component,), found_by="driver", reason="nobody has it")
    plan = frozen(policy(), Undo(possible=False, total=1, irreversible=(lost,)))
    assert plan.approval_required == 1
    assert gates(plan) == []


def test_plan_says_what_is_irreversible_and_what_is_done_about_it() -> None:
    made = policy(
        hooks=[BACKUP], rollout={"drill": True}, patches={"irreversible": [rule(withoutDrill="tried in the lab")]}
    )
    plan = frozen(made)
    said = gates(plan)
    assert said[0] == f"IRREVERSIBLE on 2 of 2 targets: {sentence(plan.targets[0].undo.irreversible[0])}"
    assert "before each of them hook dump must succeed" in said
    assert "the undo is tried on the first canary before wave 2" in said
    assert "accepted without a drill: tried in the lab" in said
    for text in (render_plan(plan, width=1000), plan_markdown(plan)):
        assert all(line in text for line in said)
        assert "NO UNDO" in text
    assert MIGRATES in plan.approval_reason


names = st.sampled_from(["postgresql-15:amd64", "libpq5:amd64", "shop:all", "fwupd:amd64"])


@given(
    components=st.lists(names, unique=True, min_size=1),
    patterns=st.lists(st.sampled_from(["postgresql-*", "fw*", "*", "nothing"]), max_size=3),
    lost=st.sets(names),
)
def test_whatever_is_declared_or_found_never_makes_more_undoable(
    components: list[str], patterns: list[str], lost: set[str]
) -> None:
    patches = [patch(name, "1", "2") for name in components]
    gone = tuple(name for name in components if name in lost)
    found = (Irreversible(components=gone, found_by="driver", reason="gone"),) if gone else ()
    driver = Undo(possible=not gone, covered=len(patches) - len(gone), total=len(patches), irreversible=found)
    undo = with_declared(driver, patches, rules(*({"match": [one], "reason": one} for one in patterns)), {})
    named = {name for item in undo.irreversible for name in item.components}
    assert undo.possible == (not named)
    assert named <= set(components)
    assert set(gone) <= named
    assert undo.covered == len(patches) - len(named)
    assert undo.total == driver.total
