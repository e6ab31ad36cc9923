"""Planning over a ledger on simulated hosts (S1-S3): feeds, hosts that cannot be touched, and what refuses to plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patching.errors import AdvisoryError, InventoryError, PlanError
from patching.ledger.entry import EntryKind, NewEntry
from unit.rollout.fleet import Fleet

FEED = {"advisories": "feed"}


def publish(fleet: Fleet, *records: dict[str, Any]) -> None:
    folder = fleet.folder / "policies" / "feed"
    folder.mkdir(parents=True)
    (folder / "all.json").write_text(json.dumps(records))


def record(name: str, package: str, fixed: str | None, severity: str = "high") -> dict[str, Any]:
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    affected = {
        "package": {"ecosystem": "Debian:12", "name": package},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {"id": name, "affected": [affected], "database_specific": {"severity": severity},
            "published": "2026-11-01T00:00:00Z"}  # fmt: skip


def codes(fleet: Fleet) -> dict[str, str]:
    return {item.target: item.code for item in fleet.frozen.exclusions}


async def test_advisory_is_the_reason_of_the_plan_and_one_that_nobody_needs_is_said(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, patches=FEED)
    said: list[str] = []
    object.__setattr__(fleet.site, "log", said.append)
    publish(fleet, record("DSA-1", "shop", "1.1"), record("DSA-2", "absent", "9"))
    await fleet.plan()
    assert len(fleet.frozen.targets) == 6
    assert {item.priority.reason for item in fleet.frozen.targets} == {"DSA-1 is high"}
    assert fleet.frozen.advisories == ("DSA-1",)
    assert "advisory DSA-2 concerns no package of any target" in said


async def test_advisory_without_a_fix_and_without_an_update_excludes_with_that_reason(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=2, patches=FEED)
    for name in fleet.names:
        fleet.hosts.change(name, offers={})
    publish(fleet, record("DSA-1", "shop", None))
    await fleet.plan()
    assert codes(fleet) == {"web-01": "no_fix", "web-02": "no_fix"}
    assert fleet.state == "completed"


async def test_hosts_that_are_down_take_places_and_block_their_domain(tmp_path: Path) -> None:
    """Zones of two hosts, one may be unavailable: the zone of the host that is down cannot move."""
    fleet = Fleet(tmp_path, rollout={"maxUnavailable": "50%"})
    fleet.hosts.change("web-02", offline=True)
    await fleet.plan()
    assert codes(fleet) == {"web-02": "offline", "web-05": "domain_blocked"}
    assert fleet.frozen.blocked_domains == ("az-b cannot move: web-02 is down, limit 1",)
    assert {item.target.labels["az"] for item in fleet.frozen.targets} == {"az-a", "az-c"}


async def test_whole_fleet_down_is_a_plan_of_nothing_that_names_every_host(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3)
    for name in fleet.names:
        fleet.hosts.change(name, offline=True)
    await fleet.plan()
    assert set(codes(fleet).values()) == {"offline"}
    assert fleet.frozen.waves == ()


async def test_hosts_that_another_rollout_is_changing_are_left_to_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3)
    await fleet.begin()
    await fleet.gate(1)
    busy = fleet.frozen.waves[0].targets[0]
    began = NewEntry(chain=fleet.rollout, kind=EntryKind.TARGET_BEGAN, key=f"began:{busy}", target=busy,
                     body={"wave": 1, "run": "r"})  # fmt: skip
    fleet.ledger.append(began)
    other = Fleet.__new__(Fleet)
    other.__dict__.update(fleet.__dict__)
    other.policy = fleet.policy.model_copy(
        update={"metadata": fleet.policy.metadata.model_copy(update={"name": "second"})}
    )
    other.new_run("run-2")
    await other.plan()
    assert codes(other) == {busy: "busy"}
    assert f"rollout {fleet.rollout} is changing it" in other.frozen.exclusions[0].reason


async def test_planning_twice_gives_the_same_plan(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.plan()
    first = fleet.frozen.digest
    fleet.hosts.change("web-01", offline=True)
    await fleet.plan()
    assert fleet.frozen.digest == first


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"targets": {"inventory": "wbe"}}, InventoryError, r'unknown inventory "wbe".*did you mean "web"'),
        ({"targets": {"selector": {"matchLabels": {"rolle": "web"}}}}, PlanError, 'unknown label "rolle"'),
        ({"targets": {"selector": {"matchLabels": {"role": "db"}}}}, PlanError, "matches none of 6 targets"),
        ({"targets": {"maxTargets": 5}}, PlanError, "more than maxTargets 5"),
        ({"patches": {"advisories": "nowhere"}}, AdvisoryError, "there are no advisories at"),
    ],
)
async def test_what_cannot_be_planned_safely_is_refused_and_nothing_is_touched(
    tmp_path: Path, spec: dict[str, Any], error: type[Exception], message: str
) -> None:
    fleet = Fleet(tmp_path, **spec)
    with pytest.raises(error, match=message):
        await fleet.plan()
    assert not any(fleet.hosts.markers(name) for name in fleet.names)


async def test_malformed_feed_stops_the_plan_with_its_file(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, patches=FEED)
    publish(fleet, {"id": "DSA-1", "affected": [{"package": {"name": "shop"}, "ranges": []}]})
    with pytest.raises(AdvisoryError, match=r"feed/all\.json: record 1 \(DSA-1\) is no OSV record"):
        await fleet.plan()
