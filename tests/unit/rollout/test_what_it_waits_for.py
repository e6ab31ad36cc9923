"""What is it waiting for? (S8): the rollout's own sentence names who or what ends the wait."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patching.ledger.base import Claim, Lease
from patching.report.rollout_view import VIEW_KINDS, rollout_view
from patching.report.sentences import target_waits
from patching.rollout import control
from patching.rollout.approval import approval_request
from patching.rollout.record import Record
from patching.rollout.states import RolloutState
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


async def test_undo_that_waits_for_a_place_names_its_holder_and_those_behind_it_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path, rollout={"waves": [{"size": "50%"}, {"size": "100%"}]}, verify=[])
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    changed = [row.target for row in fleet.ledger.targets(fleet.rollout) if row.began_at is not None]
    fleet.ledger.transition(fleet.rollout, RolloutState.UNDOING, reason="wave 1: errors got worse")
    assert all(waits(fleet)[name] == "waits for its turn to be undone" for name in changed)
    held = fleet.ledger.acquire("x", "other-1", changed[0], [Claim(kind="target", name=changed[0], limit=1)], ttl=600)
    assert isinstance(held, Lease)
    found: dict[str, str] = {}

    async def looked_at_and_freed(_: Record) -> None:
        if not found:
            found.update(waits(fleet), rollout=sentence(fleet))
            fleet.ledger.release(held)

    monkeypatch.setattr(Record, "free_left", looked_at_and_freed)
    await fleet.undo(None)
    holder = f"1 of 1 in use by {changed[0]} (rollout other-1)"
    assert found[changed[0]] == f"waits for target {changed[0]}: {holder}; then it is undone"
    assert found["rollout"] == f"{changed[0]} {found[changed[0]]}"
    untouched = next(name for name in fleet.names if name not in changed)
    assert found[untouched] == "waits for nothing any more: the rollout is being undone"
    assert fleet.state == "undone"


def waits(fleet: Fleet) -> dict[str, str]:
    """Answer for each target."""
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    return {item.target: target_waits(row, item, {1}) for item in fleet.ledger.targets(fleet.rollout)}
