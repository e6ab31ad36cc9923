"""A frozen plan survives an upgrade (S3): what people approved stays approved when a release adds fields to plans."""

from __future__ import annotations

from pathlib import Path

from patching.ledger.entry import EntryKind, NewEntry
from patching.rollout.answers import GateState
from patching.rollout.record import frozen_plan
from unit.rollout.fleet import Fleet


async def test_plan_that_an_earlier_release_froze_keeps_its_digest_and_its_approval(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, approval={"required": 1, "approvers": ["alice"]})
    await fleet.discover()
    newer = Fleet(tmp_path / "other")
    await newer.plan()
    earlier = newer.frozen.model_copy(update={"rollout": fleet.rollout, "approval_required": 1}).model_dump(mode="json")
    for name in ("error_budgets", "shared_reboots", "service_limits"):
        del earlier[name]
    del earlier["policy"]["spec"]["error_budgets"]
    document = fleet.ledger.store_document("plan", earlier)
    targets = [{"name": item["target"]["name"], "wave": item["wave"]} for item in earlier["targets"]]
    body = {"plan": document, "targets": targets}
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.PLAN_FROZEN, key="plan", body=body))

    plan = frozen_plan(fleet.site, fleet.rollout)
    assert plan is not None
    assert plan.digest == document
    assert plan.model_copy().digest == document
    assert await fleet.approve("alice")
    assert fleet.ledger.find(fleet.rollout, f"approved:{document}") is not None
    assert (await fleet.gate(1)).state is GateState.OPEN
