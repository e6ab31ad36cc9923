"""What is it waiting for? (S8): the rollout's own sentence names who or what ends the wait."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patching.report.rollout_view import VIEW_KINDS, rollout_view
from patching.rollout import control
from patching.rollout.approval import approval_request
from unit.rollout.fleet import Fleet

pytestmark = pytest.mark.slow


def sentence(fleet: Fleet) -> str:
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries = fleet.ledger.entries(fleet.rollout, kinds=VIEW_KINDS)
    targets, stopped = fleet.ledger.targets(fleet.rollout), fleet.ledger.stopped()
    return str(rollout_view(row, targets, fleet.frozen, entries, fleet.clock(), stopped=stopped)["sentence"])


async def test_approval_names_those_whose_answer_is_missing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, approval={"required": 2, "approvers": ["alice", "bob", "carol"]})
    fleet.new_run("run-1", scheduled=True)
    await fleet.plan()
    approval_request(fleet.site, fleet.rollout, "run-1")
    plan = fleet.frozen.digest[:12]
    assert sentence(fleet).startswith(
        f"waits for the approval of plan {plan} by 2 different people of alice, bob, carol, until "
    )
    assert not await fleet.approve("alice")
    assert sentence(fleet).startswith(f"waits for the approval of plan {plan} by 1 person of bob, carol, until ")
    assert sentence(fleet).endswith("; alice did")
    fleet.new_run("run-2", scheduled=True)
    await fleet.plan()
    assert await fleet.approve("alice", "bob")
    assert "approval of plan" not in sentence(fleet)


async def test_a_place_that_is_taken_names_its_holder_and_the_soak_its_end(tmp_path: Path) -> None:
    waves = [{"size": "100%", "soak": "10m"}]
    fleet = Fleet(tmp_path, hosts=3, rollout={"waves": waves, "failureDomain": "role", "maxUnavailable": 1}, verify=[])
    fleet.site = replace(fleet.site, concurrency=3)
    await fleet.begin()
    await fleet.gate(1)
    fleet.hosts.change("web-01", slow=1)
    said: list[str] = []

    def crash(point: str) -> None:
        if point == "ended":
            said.extend(row.waits_for for row in fleet.ledger.targets(fleet.rollout) if row.waits_for)

    fleet.site = replace(fleet.site, crash=crash)
    await fleet.apply(1)
    assert any("in use by" in text and fleet.rollout in text for text in said), said
    fleet.site = replace(fleet.site, crash=lambda _point: None)
    await fleet.judge(1)
    assert sentence(fleet).startswith("wave 1 soaks until")
    control.stop_all(fleet.ledger, "eva", "fire")
    assert sentence(fleet) == "waits for the stop switch to be turned off: everything is stopped (eva: fire)"
