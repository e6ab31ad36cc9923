"""Windows, order and late hosts in whole rollouts (S3, F1, F7, T5): what begins, what waits, and in which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.ledger.entry import EntryKind
from patching.report.rollout_report import make_report
from patching.report.rollout_view import rollout_view
from patching.report.status_text import rollout_text
from patching.rollout.answers import GateState
from patching.rollout.late import late_hosts
from patching.rollout.past import known_jobs
from unit.rollout.fleet import Fleet

NIGHTLY = {"rrule": "FREQ=DAILY", "start": "12:00", "duration": "1h"}
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def windowed(folder: Path, close: str = "stop", hosts: int = 6, **spec: Any) -> Fleet:
    return Fleet(folder, hosts=hosts, verify=[], schedule={"windows": [NIGHTLY], "onWindowClose": close}, **spec)


def relabel(fleet: Fleet, labels: dict[str, dict[str, str]]) -> None:
    """Give hosts further labels; a name that the inventory does not have joins it."""
    file = fleet.folder / "policies" / "inventories" / "web.json"
    document = json.loads(file.read_text())
    for name, more in labels.items():
        known = document["_meta"]["hostvars"].setdefault(name, {"ansible_host": "127.0.0.1", "labels": {"az": "az-a"}})
        known["labels"].update(more)
        if name not in document["web"]["hosts"]:
            document["web"]["hosts"].append(name)
    file.write_text(json.dumps(document))


def waits(fleet: Fleet) -> dict[str, str]:
    return {row.target: row.waits_for for row in fleet.ledger.targets(fleet.rollout) if row.waits_for}


def began(fleet: Fleet) -> list[str]:
    kinds = [EntryKind.TARGET_BEGAN, EntryKind.TARGET_OUTCOME]
    return [f"{entry.target} {entry.kind.value}" for entry in fleet.ledger.entries(fleet.rollout, kinds=kinds)]


# Windows


async def test_target_that_would_not_end_in_the_window_is_not_begun_and_the_next_run_goes_on_with_it(
    tmp_path: Path,
) -> None:
    fleet = windowed(tmp_path)
    fleet.new_run("first", scheduled=True)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    fleet.clock.now = NOON + timedelta(minutes=52)
    summary = await fleet.apply(2)
    left = [name for name, how in fleet.outcomes().items() if how == "waiting"]
    assert len(left) == 2
    assert set(waits(fleet).values()) == {
        "not started: 8 min left, jobs like it take up to 10 min (the default until 5 such jobs are known)"
    }
    assert not summary.bad
    assert (await fleet.judge(2)).verdict is None
    assert (await fleet.gate(3)).state is GateState.REFUSED
    closing = await fleet.finish()
    assert closing.good
    assert "1 applied, 5 carried over: " in closing.sentence
    assert "goes on Wed 12:00 UTC" in closing.sentence

    fleet.clock.now = NOON + timedelta(days=1)
    fleet.new_run("second", scheduled=True)
    found = await fleet.discover()
    assert found.adopted
    assert "1 applied, 5 carried over" in found.sentence
    for number in (1, 2, 3):
        await fleet.wave(number)
    assert (await fleet.finish()).good
    assert fleet.state == "completed"
    assert set(fleet.outcomes().values()) == {"applied"}
    assert fleet.twice() == []


async def test_durations_of_earlier_rollouts_decide_and_are_named(tmp_path: Path) -> None:
    fleet = windowed(tmp_path)
    fleet.new_run("first", scheduled=True)
    await fleet.whole()
    assert fleet.state == "completed"
    assert len(fleet.ledger.past_jobs("web")) == 6
    fleet.clock.now = NOON + timedelta(minutes=59)
    for name in fleet.names:
        fleet.hosts.change(name, offers={"shop": "1.2"})
    fleet.new_run("again", scheduled=True)
    await fleet.begin()
    # The known jobs take seconds, so a minute is enough now.
    assert (await fleet.gate(1)).state is GateState.OPEN


async def test_wave_that_would_not_end_in_time_is_not_begun_with_finish_wave(tmp_path: Path) -> None:
    fleet = windowed(tmp_path, close="finish-wave", rollout={"maxUnavailable": 1, "failureDomain": None})
    fleet.new_run("first", scheduled=True)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.wave(2)
    fleet.clock.now = NOON + timedelta(minutes=45)
    answer = await fleet.gate(3)
    assert answer.state is GateState.REFUSED
    assert answer.sentence == (
        "wave 3 not started: 15 min left, its 3 targets take up to 20 min "
        "(the default until 5 such jobs are known); goes on Wed 12:00 UTC"
    )
    assert (await fleet.finish()).good
    assert fleet.state == "waiting"


async def test_wave_that_has_begun_is_finished_after_the_window_with_finish_wave(tmp_path: Path) -> None:
    fleet = windowed(tmp_path, close="finish-wave")
    fleet.new_run("first", scheduled=True)
    await fleet.begin()
    await fleet.wave(1)
    assert (await fleet.gate(2)).state is GateState.OPEN
    fleet.clock.now = NOON + timedelta(minutes=61)
    await fleet.apply(2)
    assert (await fleet.judge(2)).verdict == "promote"
    assert (await fleet.gate(3)).state is GateState.REFUSED


async def test_wave_that_is_too_long_for_any_window_begins_and_ends_target_by_target(tmp_path: Path) -> None:
    """Otherwise it would wait for a window that never comes."""
    fleet = windowed(tmp_path, close="finish-wave", hosts=30, rollout={"maxUnavailable": 1, "failureDomain": None,
                     "waves": [{"canary": {"count": 1}}, {"size": "100%"}]})  # fmt: skip
    fleet.new_run("first", scheduled=True)
    await fleet.begin()
    await fleet.wave(1)
    fleet.clock.now = NOON + timedelta(minutes=20)
    assert (await fleet.gate(2)).state is GateState.OPEN
    fleet.clock.now = NOON + timedelta(minutes=55)
    await fleet.apply(2)
    assert list(fleet.outcomes().values()).count("applied") == 1


async def test_run_by_hand_waits_for_the_window_in_which_the_wave_fits(tmp_path: Path) -> None:
    fleet = windowed(tmp_path)
    fleet.clock.now = NOON + timedelta(minutes=55)
    await fleet.begin()
    answer = await fleet.gate(1)
    assert answer.state is GateState.WAITS
    assert answer.sentence.startswith("wave 1 not started: 5 min left, jobs like it take up to 10 min")


# Order


async def test_service_is_begun_only_after_all_that_it_depends_on_ended_well(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, verify=[], rollout={"dependsOn": {"web": ["db"]}, "waves": [{"canary": {"count": 1}},
                  {"size": "100%"}]})  # fmt: skip
    roles = {name: {"service": "db" if index < 3 else "web"} for index, name in enumerate(fleet.names)}
    relabel(fleet, roles)
    await fleet.whole(waves=2)
    assert fleet.state == "completed"
    done = began(fleet)
    last_db = max(done.index(f"{name} target_outcome") for name in fleet.names[:3])
    assert min(done.index(f"{name} target_began") for name in fleet.names[3:]) > last_db


async def test_what_depends_on_a_failed_target_is_skipped_with_the_reason(tmp_path: Path) -> None:
    fleet = Fleet(
        tmp_path, verify=[],
        rollout={"dependsOn": {"web": ["db"]}, "waves": [{"canary": {"count": 1}}, {"size": "100%"}],
                 "stopWhen": {"failedTargets": 5}},
    )  # fmt: skip
    relabel(fleet, {name: {"service": "db" if index < 2 else "web"} for index, name in enumerate(fleet.names)})
    await fleet.begin()
    await fleet.wave(1)
    second = next(name for name in fleet.names[:2] if fleet.outcomes()[name] == "pending")
    fleet.hosts.change(second, fail=100)
    await fleet.gate(2)
    await fleet.apply(2)
    found = fleet.outcomes()
    assert {found[name] for name in fleet.names[2:]} == {"skipped"}
    rows = {row.target: row for row in fleet.ledger.targets(fleet.rollout)}
    assert (
        rows[fleet.names[2]].detail == f"it depends on {second}, which is {found[second]}: it waits for the next plan"
    )
    assert not [line for line in began(fleet) if line.split()[0] in fleet.names[2:] and "began" in line]


async def test_leader_is_begun_after_its_followers_have_ended(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3, verify=[])
    relabel(
        fleet, {name: {"cluster": "pg", "role": "leader" if name == "web-01" else "follower"} for name in fleet.names}
    )
    await fleet.whole()
    assert fleet.state == "completed"
    done = began(fleet)
    assert done.index("web-01 target_began") == len(done) - 2
    assert [line.split()[0] for line in done] == [name for name in (done[0][:6], done[2][:6], "web-01") for _ in "ab"]


# Late hosts


async def test_host_that_was_offline_in_its_wave_is_caught_up_with_the_next_one(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, verify=[], rollout={"waves": [{"canary": {"count": 2}}, {"size": "50%"}, {"size": "100%"}]})
    await fleet.begin()
    late = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.hosts.change(late, offline=True)
    await fleet.wave(1)
    assert fleet.outcomes()[late] == "offline"
    assert late_sentences(fleet) == [f"{late} is offline: tried again with the next wave"]
    fleet.hosts.change(late, offline=False)
    over = late_hosts(fleet.frozen, fleet.ledger.targets(fleet.rollout), [], over=True)
    assert [item.sentence for item in over] == [f"{late} is offline: waits for the next plan"]
    await fleet.wave(2)
    assert fleet.outcomes()[late] == "applied"
    await fleet.wave(3)
    assert (await fleet.finish()).good
    assert set(fleet.versions().values()) == {"1.1"}
    assert fleet.twice() == []


async def test_host_that_stays_offline_is_tried_with_every_wave_and_waits_for_the_next_plan(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, verify=[], rollout={"waves": [{"canary": {"count": 2}}, {"size": "50%"}, {"size": "100%"}]})
    await fleet.begin()
    late = next(item.target.name for item in fleet.frozen.targets if item.wave == 3)
    fleet.hosts.change(late, offline=True)
    for number in (1, 2, 3):
        await fleet.wave(number)
    await fleet.finish()
    assert late_sentences(fleet) == [f"{late} is offline: waits for the next plan"]


async def test_host_that_joined_after_planning_is_told_that_it_waits_and_stands_in_status_and_report(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, verify=[])
    fleet.hosts.change("web-05", offline=True)
    await fleet.begin()
    await fleet.wave(1)
    relabel(fleet, {"app-9": {"role": "web"}})
    fleet.new_run("second")
    found = await fleet.discover()
    assert found.sentence.endswith("; app-9 joined after planning: waits for the next plan")
    assert late_sentences(fleet) == [
        "app-9 joined after planning: waits for the next plan",
        "web-05 was offline when it was planned: waits for the next plan",
    ]
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries, rows = fleet.ledger.entries(fleet.rollout), fleet.ledger.targets(fleet.rollout)
    view = rollout_view(row, rows, fleet.frozen, entries, fleet.clock())
    assert "app-9 joined after planning: waits for the next plan" in rollout_text(view)
    assert "app-9" in make_report(entries, fleet.frozen, row, rows, fleet.clock()).markdown
    fleet.new_run("third")
    await fleet.discover()
    assert len(fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.JOINED_LATE])) == 1


async def test_host_that_joins_in_the_last_run_is_named_by_its_end_its_report_and_the_status(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, verify=[])
    await fleet.begin()
    relabel(fleet, {"app-9": {"role": "web"}})
    for number in (1, 2, 3):
        await fleet.wave(number)
    closing = await fleet.finish()
    assert fleet.state == "completed"
    assert closing.good
    assert closing.sentence.endswith("; app-9 joined after planning: waits for the next plan")
    assert "app-9" in closing.markdown
    assert late_sentences(fleet) == ["app-9 joined after planning: waits for the next plan"]


async def test_inventory_that_cannot_be_read_at_the_end_of_a_run_changes_no_colour_and_is_said(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, verify=[])
    await fleet.begin()
    for number in (1, 2, 3):
        await fleet.wave(number)
    (tmp_path / "policies/inventories/web.json").unlink()
    closing = await fleet.finish()
    assert closing.good
    assert "who joined after planning is not known: " in closing.sentence
    assert "web.json" in closing.sentence


def late_sentences(fleet: Fleet) -> list[str]:
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries = fleet.ledger.entries(fleet.rollout)
    view = rollout_view(row, fleet.ledger.targets(fleet.rollout), fleet.frozen, entries, fleet.clock())
    return [item["sentence"] for item in view["late"]]


@pytest.mark.parametrize("close", ["stop", "finish-wave"])
async def test_policy_without_windows_is_held_back_by_none(tmp_path: Path, close: str) -> None:
    fleet = Fleet(tmp_path, verify=[], schedule={"onWindowClose": close})
    await fleet.whole()
    assert fleet.state == "completed"


async def test_jobs_of_another_policy_with_the_same_driver_are_known(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, verify=[])
    await fleet.whole()
    other = fleet.policy.model_copy(update={"metadata": fleet.policy.metadata.model_copy(update={"name": "db"})})
    known = known_jobs(fleet.ledger, other)
    assert known.own == ()
    assert len(known.alike) == len(fleet.names)
    apt = other.spec.model_copy(update={"driver": other.spec.driver.model_copy(update={"name": "apt"})})
    assert known_jobs(fleet.ledger, other.model_copy(update={"spec": apt})).alike == ()
