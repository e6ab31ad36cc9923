"""Whole rollouts over the ledger, without Airflow: what is true of the hosts, not of our records (S4, S5, S6, F3)."""

from __future__ import annotations

import pytest

from patching.rollout.answers import GateState, VerdictName
from unit.rollout.fleet import Fleet


async def test_good_patch_reaches_every_target(tmp_path):
    fleet = Fleet(tmp_path)
    closing = await fleet.whole()
    assert closing.good, closing.sentence
    assert fleet.state == "completed"
    assert set(fleet.versions().values()) == {"1.1"}
    assert not fleet.twice()
    assert fleet.ledger.verify() == []


async def test_bad_canary_is_undone_and_reaches_no_other_target(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    assert await fleet.wave(1) is VerdictName.UNDO
    for wave in (2, 3):
        assert await fleet.wave(wave) is None
    closing = await fleet.finish()
    assert not closing.good
    said = "1 of 1 changed targets run what they ran before, 5 were never touched. Why: wave 1: errors: error share"
    assert said in closing.sentence
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}
    assert [name for name in fleet.names if fleet.hosts.markers(name)] == [canary]


@pytest.mark.parametrize("fault", ["silent", "down"])
async def test_no_data_and_failing_prometheus_hold_and_never_promote(tmp_path, fault):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    fleet.metrics.down = fault == "down"
    fleet.metrics.silent = set(fleet.names) if fault == "silent" else set()
    assert await fleet.wave(1) in (VerdictName.HOLD, VerdictName.INCONCLUSIVE)
    assert (await fleet.gate(2)).state is GateState.REFUSED
    closing = await fleet.finish()
    assert fleet.state == "held"
    assert not closing.good
    assert sorted(fleet.versions().values()).count("1.1") == 1


async def test_failed_targets_over_budget_stop_the_wave_and_are_undone(tmp_path):
    fleet = Fleet(tmp_path, rollout={"stopWhen": {"failedTargets": 1}})
    await fleet.begin()
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.hosts.change(canary, fail=100)
    assert await fleet.wave(1) is VerdictName.UNDO
    await fleet.finish()
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}


async def test_undo_that_fails_is_quarantined_and_said_loudly(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    await fleet.gate(1)
    await fleet.apply(1)
    fleet.hosts.change(canary, fail_undo=100)
    await fleet.judge(1)
    answer = await fleet.undo(1)
    closing = await fleet.finish()
    assert answer.bad
    assert canary in closing.sentence
    assert "NOT undone" in closing.sentence
    assert [item.target for item in fleet.ledger.quarantines(now=fleet.clock())] == [canary]


async def test_offline_host_has_an_outcome_of_its_own(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    last = next(item.target.name for item in fleet.frozen.targets if item.wave == 3)
    fleet.hosts.change(last, offline=True)
    for wave in (1, 2, 3):
        await fleet.wave(wave)
    assert fleet.outcomes()[last] == "offline"
    assert last in (await fleet.finish()).markdown


async def test_host_changed_since_planning_is_drifted_and_not_touched(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    last = next(item.target.name for item in fleet.frozen.targets if item.wave == 3)
    fleet.hosts.change(last, installed={"shop": "0.9"})
    for wave in (1, 2, 3):
        await fleet.wave(wave)
    assert fleet.outcomes()[last] == "drifted"
    assert fleet.versions()[last] == "0.9"


async def test_reboot_is_proven_by_a_new_boot_id(tmp_path):
    fleet = Fleet(tmp_path, reboot={"timeout": "5s"})
    for name in fleet.names:
        fleet.hosts.add(name, installed={"kernel": "6.1", "shop": "1.0"}, offers={"kernel": "6.2"})
    closing = await fleet.whole()
    assert closing.good, closing.sentence
    assert {fleet.hosts.state(name)["boot_id"] for name in fleet.names} == {"boot-2"}
    assert not fleet.twice()


async def test_mode_plan_changes_nothing_and_is_green(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.new_run("run-1", mode="plan")
    closing = await fleet.whole()
    assert closing.good
    assert fleet.state == "planned"
    assert not any(fleet.hosts.markers(name) for name in fleet.names)


async def test_one_host_fleet_and_three_host_fleet_complete(tmp_path):
    for hosts in (1, 3):
        fleet = Fleet(tmp_path / str(hosts), hosts=hosts, verify=[])
        closing = await fleet.whole()
        assert closing.good, closing.sentence
        assert set(fleet.versions().values()) == {"1.1"}


async def test_an_interrupted_step_is_settled_by_id_and_never_run_blindly(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.hosts.change(canary, lose=True)
    assert await fleet.wave(1) is VerdictName.PROMOTE
    row = next(row for row in fleet.ledger.targets(fleet.rollout) if row.target == canary)
    assert row.generation == 1
    assert not fleet.twice()
    assert fleet.versions()[canary] == "1.1"
