"""What a run asks for and what it gets (S2, S3): certain advisories, some targets, an earlier plan; nobody unnamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patching.errors import PlanError
from unit.rollout.fleet import Fleet

FEED = {"patches": {"securityOrigins": ["Lab-Security:*"], "advisories": "advisories.json"}}


def record(name: str, package: str, fixed: str | None, **more: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    ranges = [{"type": "ECOSYSTEM", "events": events}]
    affected = [{"package": {"ecosystem": "Debian:12", "name": package}, "ranges": ranges}]
    return {"id": name, "modified": "2026-11-20T00:00:00Z", "affected": affected, **more}


def with_feed(folder: Path, *records: dict[str, Any], **spec: Any) -> Fleet:
    fleet = Fleet(folder, **{**FEED, **spec})
    (folder / "policies" / "advisories.json").write_text(json.dumps(records))
    for name in fleet.names:
        fleet.hosts.change(name, installed={"shop": "1.0", "lib": "2.0"}, offers={"shop": "1.1", "lib": "2.1"})
    return fleet


def excluded(fleet: Fleet) -> dict[str, tuple[str, str]]:
    return {item.target: (item.code, item.reason) for item in fleet.frozen.exclusions}


async def test_every_selected_target_is_planned_or_left_out_with_a_reason(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.hosts.change("web-02", offline=True)
    fleet.hosts.change("web-03", installed={"shop": "1.1"})
    await fleet.plan()
    planned = {item.target.name for item in fleet.frozen.targets}
    assert planned | excluded(fleet).keys() == set(fleet.names)
    assert not planned & excluded(fleet).keys()
    assert excluded(fleet)["web-02"][0] == "offline"
    assert excluded(fleet)["web-03"] == ("up_to_date", "nothing that the policy wants is missing")


async def test_run_for_an_advisory_takes_only_the_component_that_it_concerns(tmp_path: Path) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", aliases=["CVE-1"]), record("DSA-2", "lib", "2.1"))
    fleet.hosts.change("web-01", installed={"shop": "1.1", "lib": "2.0"}, offers={"lib": "2.1"})
    fleet.new_run("run-1", advisories=("CVE-1",))
    await fleet.plan()
    assert {patch.component for item in fleet.frozen.targets for patch in item.patches} == {"shop"}
    assert excluded(fleet)["web-01"] == ("not_affected", "none of the advisories that this run is for concerns it")
    assert len(fleet.frozen.targets) == len(fleet.names) - 1


async def test_run_for_an_advisory_without_a_fix_says_so_and_not_up_to_date(tmp_path: Path) -> None:
    fleet = with_feed(tmp_path, record("DSA-3", "shop", None))
    fleet.new_run("run-1", advisories=("DSA-3",))
    await fleet.plan()
    assert fleet.frozen.targets == ()
    assert {code for code, _ in excluded(fleet).values()} == {"no_fix"}
    assert fleet.state == "completed"


async def test_run_for_an_advisory_that_nobody_published_is_refused(tmp_path: Path) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1"))
    fleet.new_run("run-1", advisories=("DSA-1", "CVE-9"))
    with pytest.raises(PlanError, match=r"unknown advisories CVE-9: the feed advisories.json does not have them"):
        await fleet.plan()


async def test_run_for_an_advisory_of_a_policy_without_a_feed_is_refused(tmp_path: Path) -> None:
    """Before, such a run planned nothing and was green: the emergency looked done."""
    fleet = Fleet(tmp_path)
    fleet.new_run("run-1", advisories=("CVE-1",))
    with pytest.raises(PlanError, match="policy web reads no advisories"):
        await fleet.plan()


async def test_plan_that_looked_at_one_target_does_not_stand_for_the_fleet_tonight(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.new_run("look", mode="plan", limit_to=("web-01",))
    await fleet.plan()
    looked = fleet.rollout
    fleet.new_run("tonight", scheduled=True)
    await fleet.plan()
    assert fleet.rollout != looked
    assert len(fleet.frozen.targets) == len(fleet.names)
    row = fleet.ledger.rollout(looked)
    assert row is not None
    assert "its plan was made for some targets only" in row.reason


async def test_plan_for_all_is_adopted_by_the_next_run(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.new_run("look", mode="plan")
    await fleet.plan()
    first = fleet.frozen.digest
    fleet.new_run("tonight", scheduled=True)
    await fleet.plan()
    assert fleet.frozen.digest == first


async def test_target_in_quarantine_is_left_out(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.hosts.change(canary, fail=100, fail_undo=100)
    await fleet.wave(1)
    await fleet.finish()
    assert [item.target for item in fleet.ledger.quarantines(now=fleet.clock())] == [canary]
    fleet.hosts.change(canary, fail=0, fail_undo=0)
    fleet.new_run("again", replan=True)
    await fleet.plan()
    assert excluded(fleet)[canary][0] == "quarantined"
