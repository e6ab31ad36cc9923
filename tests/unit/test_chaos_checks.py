"""The chaos harness finds what it is there to find: its checks, fed with what a broken engine would leave behind."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import patching
from chaos import checks
from chaos import schedule as schedules
from chaos.airflow_schedule import ACTS, airflow_schedule
from chaos.fleets import fleet_of
from chaos.ledgers import LedgerFile
from chaos.schedule import Schedule, schedule
from chaos.world import World
from patching.ledger.base import Intent

QUIET = Schedule(seed=0, channel="simulated", hosts=3, zones=1, kernel=False, hooks=True, bad=(), pace=0.0)


class Row:
    id = "r"


class OneRollout:
    """A ledger with one rollout."""

    def rollouts(self, limit: int) -> list[Row]:
        return [Row()]


class OnePlan:
    domain_limits = {"az-a": 1}  # noqa: RUF012 - never changed


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(checks, "frozen_plan", lambda _site, _rollout: OnePlan())
    return World(tmp_path, QUIET, fleet_of(QUIET, tmp_path, None), LedgerFile(tmp_path, None))


def write(world: World, name: str, log: str, *lines: str) -> None:
    (world.fleet.folder / name / log).write_text("".join(f"{line}\n" for line in lines))


def exceeded(world: World) -> list[str]:
    ledger: Any = OneRollout()
    return checks.over_limits(world, ledger)


def test_a_step_whose_marker_counts_twice_is_found(world: World) -> None:
    write(world, "web-01", "markers.log", "step-a", "step-b", "step-a")
    assert checks.twice(world, "web-01") == ["web-01: step step-a began 2 times"]


def test_an_act_done_again_under_another_step_id_is_found(world: World) -> None:
    """What a zombie does: the marker counts once, the change was made twice."""
    write(world, "web-01", "acts.log", "a\tshop\t1.0\t1.1", "b\tshop\t1.1\t1.1", "c\treboot\tFalse\t")
    found = checks.twice(world, "web-01")
    assert [line.split(" ")[2] for line in found] == ["b", "c"]


def test_two_targets_out_of_service_at_once_exceed_a_limit_of_one(world: World) -> None:
    write(world, "web-01", "changes.log", "1.0 out +", "3.0 out -")
    write(world, "web-02", "changes.log", "2.0 set +", "2.5 set -")
    assert exceeded(world) == ["az-a: 2 targets were unavailable at once, the limit is 1"]


def test_one_after_the_other_is_within_the_limit_also_where_a_boot_ended_a_step(world: World) -> None:
    write(world, "web-01", "changes.log", "1.0 out +", "1.5 set +", "1.7 set -", "3.0 out -")
    write(world, "web-02", "changes.log", "3.0 set +", "3.5 boot !")
    write(world, "web-03", "changes.log", "3.6 set +", "4.0 set -")
    assert exceeded(world) == []


def test_a_target_left_out_of_service_counts_for_ever(world: World) -> None:
    write(world, "web-01", "changes.log", "1.0 out +", "1.5 boot !")
    write(world, "web-02", "changes.log", "9.0 set +", "9.5 set -")
    assert exceeded(world) == ["az-a: 2 targets were unavailable at once, the limit is 1"]


def test_change_begun_beside_a_target_that_the_last_one_left_broken_exceeds_the_limit(world: World) -> None:
    """Its change has ended, its service has not come back, and nobody has undone it."""
    write(world, "web-01", "changes.log", "1.0 set +", "1.5 broken +", "1.5 set -", "1.6 boot !", "4.0 undo +")
    write(world, "web-02", "changes.log", "3.0 set +", "3.5 set -")
    assert exceeded(world) == ["az-a: web-02 was begun at 3.000 beside web-01, the limit is 1"]


def test_undo_beside_a_broken_target_exceeds_nothing_nor_does_a_change_after_it_was_undone(world: World) -> None:
    write(
        world,
        "web-01",
        "changes.log",
        "1.0 set +",
        "1.5 broken +",
        "1.5 set -",
        "4.0 undo +",
        "4.5 broken -",
        "4.5 undo -",
    )
    write(world, "web-02", "changes.log", "3.0 undo +", "3.5 undo -", "4.5 set +", "4.7 set -")
    assert exceeded(world) == []


def test_two_reboots_at_once_exceed_the_limit_of_one(world: World) -> None:
    write(world, "web-01", "changes.log", "1.0 reboot +", "2.0 reboot -")
    write(world, "web-02", "changes.log", "1.5 reboot +", "2.5 boot !")
    assert "2 targets rebooted at once, the limit is 1" in exceeded(world)


def test_the_same_seed_draws_the_same_run() -> None:
    drawn = [schedule(seed, channel) for channel in ("simulated", "ssh") for seed in range(50)]
    assert drawn == [schedule(seed, channel) for channel in ("simulated", "ssh") for seed in range(50)]
    acts = {fault.act for plan in drawn for life in plan.lives for fault in life.faults}
    assert acts == {act for channel in schedules.ACTS.values() for act in channel}


def test_every_crash_point_of_the_engine_is_one_at_which_an_engine_is_killed_within_the_seeds_of_ci() -> None:
    """But those of notices, where a worker dies in the tests of telling."""
    source = Path(patching.__file__).parent
    named = {name for path in source.rglob("*.py") for name in re.findall(r'crash\("([a-z-]+)"\)', path.read_text())}
    assert named == {*schedules.POINTS, "notice-claimed", "notice-sent"}
    faults = [fault for seed in range(1, 201) for life in schedule(seed).lives for fault in life.faults]
    assert {fault.point for fault in faults if fault.act == "kill"} == set(schedules.POINTS)


@pytest.mark.parametrize(("channel", "seeds"), [("simulated", 200), ("ssh", 20)])
def test_the_seeds_of_ci_begin_with_every_fault_there_is(channel: str, seeds: int) -> None:
    first = {schedule(seed, channel).lives[0].faults[0].act for seed in range(1, seeds + 1)}
    assert first == set(schedules.ACTS[channel])


@pytest.mark.parametrize(("channel", "seeds"), [("simulated", 200), ("ssh", 20)])
def test_a_share_of_the_seeds_of_ci_keeps_its_ledger_on_a_server_that_goes_in_mid_rollout(
    channel: str, seeds: int
) -> None:
    plans = [plan for seed in range(1, seeds + 1) if (plan := schedule(seed, channel)).postgres]
    assert len(plans) >= seeds // 20
    assert all(plan.lives[0].faults[0].act == "ledger-gone" for plan in plans)


class Intended:
    """A ledger that knows of two steps of the first host; the second has no outcome."""

    def rollouts(self, limit: int) -> list[Row]:
        return [Row()]

    def intents(self, *, rollout: str, target: str, open_only: bool) -> list[Intent]:
        if target != "web-01":
            return []
        at = datetime(2026, 11, 24, tzinfo=UTC)
        return [
            Intent(rollout=rollout, target=target, step_id=step, step={}, generation=0, at=at, open=step == "b")
            for step in ("a", "b")
        ]


def test_step_without_an_intent_and_one_whose_outcome_was_lost_are_found(world: World) -> None:
    ledger: Any = Intended()
    write(world, "web-01", "markers.log", "a", "b", "c")
    assert checks.unwritten(world, ledger) == [
        "web-01: step c began without an intent",
        "web-01: step b began and has no outcome",
    ]


def test_seeds_through_airflow_draw_the_same_run_every_time_and_every_fault_within_fifty() -> None:
    drawn = [airflow_schedule(seed) for seed in range(50)]
    assert drawn == [airflow_schedule(seed) for seed in range(50)]
    assert {fault.act for plan in drawn for fault in plan.faults} == set(ACTS)
