"""Adopt or supersede (T5, S3): a policy has one open rollout, kept while it is valid and nothing new is urgent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from patching.rollout.adoption import decide, valid_until
from patching.rollout.new_findings import NewFinding, News
from patching.rollout.states import RolloutState
from unit.rollout.fleet import START, Fleet
from unit.rollout.test_planning_of_runs import record

NIGHTS = {"windows": [{"rrule": "FREQ=WEEKLY;BYDAY=TU,WE", "start": "22:00", "duration": "4h"}], "planAhead": "8h"}
TUESDAY_PLANNING = datetime(2026, 11, 24, 14, 0, tzinfo=UTC)
TUESDAY_OPENS = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)
WEDNESDAY_PLANNING = TUESDAY_PLANNING + timedelta(days=1)
NEXT_TUESDAY_OPENS = TUESDAY_OPENS + timedelta(days=7)


def publish(fleet: Fleet, *records: dict[str, Any]) -> None:
    (fleet.folder / "policies" / "advisories.json").write_text(json.dumps(records))


def advisory(name: str, package: str, due: datetime, fixed: str = "1.2") -> dict[str, Any]:
    """An advisory that must be fixed by a moment: the table gives sixty days to what is internal and not exploited."""
    return record(name, package, fixed, published=(due - timedelta(days=60)).isoformat())


KNOWN = advisory("DSA-1", "shop", NEXT_TUESDAY_OPENS - timedelta(days=3), fixed="1.1")
FAR = advisory("DSA-9", "lib", NEXT_TUESDAY_OPENS + timedelta(days=30))


async def begun(folder: Path, **spec: Any) -> Fleet:
    """A fleet whose canary is patched on Tuesday night; the window closed before the rest."""
    patches = {"securityOrigins": ["Lab-Security:*"], "advisories": "advisories.json"}
    table = {"table": "cisa-bod-26-04"}
    fleet = Fleet(folder, verify=[], schedule=NIGHTS, priority=table, patches=patches, **spec)
    publish(fleet, KNOWN, FAR)
    for name in fleet.names:
        fleet.hosts.change(name, installed={"shop": "1.0", "lib": "1.0"}, offers={"shop": "1.1", "lib": "1.1"})
    fleet.clock.now = TUESDAY_PLANNING
    fleet.new_run("plan-tuesday", scheduled=True)
    await fleet.begin()
    fleet.clock.now = TUESDAY_OPENS
    fleet.new_run("tuesday", scheduled=True)
    await fleet.discover()
    await fleet.wave(1)
    fleet.clock.now = TUESDAY_OPENS + timedelta(hours=5)
    await fleet.gate(2)
    assert (await fleet.finish()).good
    return fleet


async def planning(fleet: Fleet, when: datetime, run: str = "plan-wednesday") -> str:
    fleet.clock.now = when
    fleet.new_run(run, scheduled=True)
    return (await fleet.discover()).sentence


async def test_open_rollout_is_adopted_with_what_is_applied_and_what_is_left(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first = fleet.rollout
    said = await planning(fleet, WEDNESDAY_PLANNING)
    assert fleet.rollout == first
    assert said == f"goes on with rollout {first} (1 applied, 5 carried over): it has begun and is within its validity"


async def test_new_finding_that_can_wait_is_listed_and_the_rollout_goes_on(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first = fleet.rollout
    publish(fleet, KNOWN, FAR, advisory("DSA-2", "lib", NEXT_TUESDAY_OPENS + timedelta(hours=1)))
    said = await planning(fleet, WEDNESDAY_PLANNING)
    assert fleet.rollout == first
    assert said.endswith("; 6 new findings wait for the next plan (DSA-2)")


async def test_new_finding_that_falls_due_before_the_following_window_makes_one_new_plan(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first = fleet.rollout
    publish(fleet, KNOWN, FAR, advisory("DSA-2", "lib", NEXT_TUESDAY_OPENS - timedelta(hours=1)))
    for name in fleet.names:
        fleet.hosts.change(name, offers={"shop": "1.1", "lib": "1.2"})
    said = await planning(fleet, WEDNESDAY_PLANNING)
    assert fleet.rollout != first
    assert "superseded (1 applied, 5 carried over): new: DSA-2 on web-01 (due 2026-12-01) and 5 more falls due" in said
    assert [row.id for row in fleet.ledger.rollouts(policy="web", open_only=True)] == [fleet.rollout]
    old = fleet.ledger.rollout(first)
    assert old is not None
    assert old.state == "superseded"
    await fleet.plan()
    assert {item.target.name for item in fleet.frozen.targets} == set(fleet.names)
    assert {finding.advisory for item in fleet.frozen.targets for finding in item.findings} == {
        "DSA-1",
        "DSA-2",
        "DSA-9",
    }
    # Planning again, or another run, finds the new one and makes no third.
    assert "nothing has changed since it was planned" in await planning(fleet, WEDNESDAY_PLANNING, "again")


async def test_known_finding_that_becomes_exploited_is_new(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    publish(fleet, KNOWN, {**FAR, "aliases": ["CVE-2026-1"], "published": TUESDAY_OPENS.isoformat()})
    listed = {"vulnerabilities": [{"cveID": "CVE-2026-1"}]}
    (tmp_path / "policies" / "known_exploited_vulnerabilities.json").write_text(json.dumps(listed))
    first = fleet.rollout
    said = await planning(fleet, WEDNESDAY_PLANNING)
    assert fleet.rollout != first
    assert "new: DSA-9" in said


async def test_open_window_is_for_work_and_what_is_new_in_it_is_planned_ahead_of_the_next(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first = fleet.rollout
    publish(fleet, KNOWN, FAR, advisory("DSA-2", "lib", NEXT_TUESDAY_OPENS - timedelta(hours=1)))
    await planning(fleet, TUESDAY_OPENS + timedelta(days=1, minutes=1), "wednesday")
    assert fleet.rollout == first


async def test_target_in_mid_change_keeps_its_rollout_until_it_is_settled(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    urgent = NewFinding(advisory="DSA-2", target="web-01", due=NEXT_TUESDAY_OPENS - timedelta(hours=1))
    asked = (row, fleet.frozen, fleet.policy, fleet.request, WEDNESDAY_PLANNING)
    news = News(findings=(urgent,))
    assert not decide(*asked, begun=True, news=news).adopt
    kept = decide(*asked, begun=True, news=news, unsettled=["web-02"])
    assert kept.adopt
    assert kept.reason == "web-02 is in mid-change and is settled first, before DSA-2 on web-01 (due 2026-12-01)"
    held = row.model_copy(update={"state": RolloutState.HELD})
    assert decide(held, *asked[1:], begun=True, news=news).adopt


async def test_new_finding_that_the_plan_closes_anyway_is_no_news(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first = fleet.rollout
    publish(fleet, KNOWN, FAR, advisory("DSA-2", "lib", NEXT_TUESDAY_OPENS - timedelta(hours=1), fixed="1.1"))
    said = await planning(fleet, WEDNESDAY_PLANNING)
    assert fleet.rollout == first
    assert "new" not in said


async def test_plan_is_valid_until_the_close_of_its_second_window_and_then_superseded(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first = fleet.rollout
    closes = TUESDAY_OPENS + timedelta(days=1, hours=4)
    assert valid_until(fleet.frozen) == closes
    await planning(fleet, closes - timedelta(seconds=1), "late")
    assert fleet.rollout == first
    said = await planning(fleet, closes, "too-late")
    assert fleet.rollout != first
    assert "superseded (1 applied, 5 carried over): its plan is 1d12h old and no longer valid" in said


async def test_policy_says_itself_how_long_its_plans_are_valid(tmp_path: Path) -> None:
    fleet = await begun(tmp_path, plan={"validFor": "30h"})
    assert valid_until(fleet.frozen) - fleet.frozen.created_at == timedelta(hours=30)
    assert fleet.frozen.created_at > START


async def test_feed_that_cannot_be_read_keeps_the_rollout_and_is_said(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first = fleet.rollout
    (tmp_path / "policies" / "advisories.json").unlink()
    said = await planning(fleet, WEDNESDAY_PLANNING)
    assert fleet.rollout == first
    assert "; new advisories are not known (there are no advisories at" in said
