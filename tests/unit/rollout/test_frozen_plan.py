"""A frozen plan survives an upgrade (S3): what people approved stays approved when a release adds fields to plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from patching.errors import TransitionRefused
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.document import Plan
from patching.rollout import control
from patching.rollout.answers import GateState
from patching.rollout.emergency import supersede_overlap
from patching.rollout.record import frozen_plan
from patching.value import JsonValue
from unit.rollout.fleet import Fleet


def freeze(fleet: Fleet, plan: JsonValue) -> str:
    """Write a plan's document into the ledger as the frozen one."""
    document = fleet.ledger.store_document("plan", plan)
    targets = [{"name": item["target"]["name"], "wave": item["wave"]} for item in plan["targets"]]
    body = {"plan": document, "targets": targets}
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.PLAN_FROZEN, key="plan", body=body))
    return document


async def test_plan_that_an_earlier_release_froze_keeps_its_digest_and_its_approval(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, approval={"required": 1, "approvers": ["alice"]})
    await fleet.discover()
    newer = Fleet(tmp_path / "other")
    await newer.plan()
    earlier = newer.frozen.model_copy(update={"rollout": fleet.rollout, "approval_required": 1}).model_dump(mode="json")
    for name in ("error_budgets", "shared_reboots", "service_limits"):
        del earlier[name]
    del earlier["policy"]["spec"]["error_budgets"]
    for wave in earlier["waves"]:
        del wave["control"]
    document = freeze(fleet, earlier)

    plan = frozen_plan(fleet.site, fleet.rollout)
    assert plan is not None
    assert plan.digest == document
    assert plan.model_copy().digest == document
    assert await fleet.approve("alice")
    assert fleet.ledger.find(fleet.rollout, f"approved:{document}") is not None
    assert (await fleet.gate(1)).state is GateState.OPEN
    started = fleet.ledger.find(fleet.rollout, "wave-started:1")
    assert started is not None
    assert set(started.body["control"]) == {name for wave in plan.waves[1:] for name in wave.targets}


async def test_plan_that_this_release_refuses_is_not_undone_and_keeps_no_emergency_from_its_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    control.hold(fleet.ledger, fleet.rollout, "anna", "what is this")
    works = Plan.frozen
    monkeypatch.setattr(Plan, "frozen", lambda _document, name: works({"unheard": 1}, name))
    with pytest.raises(
        TransitionRefused, match="nothing was undone: what was frozen with it is not valid in this release"
    ):
        control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    emergency = fleet.frozen.model_copy(update={"rollout": "emergency"})
    assert supersede_overlap(fleet.site, emergency) == [f"5 targets taken over from rollout {fleet.rollout}"]
    assert control.abort(fleet.ledger, fleet.rollout, "anna", "made anew").row is not None


async def test_gate_compares_with_the_frozen_control_less_who_has_begun(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.discover()
    other = Fleet(tmp_path / "other")
    await other.plan()
    canary, *later = other.frozen.waves
    first, second = later[0].targets[:1], later[1].targets[:1]
    narrowed = canary.model_copy(update={"control": (*first, *second)})
    made = other.frozen.model_copy(update={"rollout": fleet.rollout, "waves": (narrowed, *later)})
    freeze(fleet, made.model_dump(mode="json"))
    assert await fleet.approve()
    row = NewEntry(
        chain=fleet.rollout, kind=EntryKind.TARGET_BEGAN, key=f"began:{second[0]}", target=second[0], body={}
    )
    fleet.ledger.append(row)
    assert (await fleet.gate(1)).state is GateState.OPEN
    started = fleet.ledger.find(fleet.rollout, "wave-started:1")
    assert started is not None
    assert started.body["control"] == list(first)
