"""Airflow's states only show (T1–T3, T8): whatever is marked or cleared, only the ledger opens a gate."""

from __future__ import annotations

import asyncio

import pytest

from patching.rollout.answers import GateState, Request, VerdictName
from patching.rollout.discovery import waits_for_other
from unit.rollout.fleet import Fleet

ALL_DAY = [{"rrule": "FREQ=DAILY", "start": "00:00", "duration": "24h"}]
LATER = [{"rrule": "FREQ=DAILY", "start": "22:00", "duration": "1h"}]


async def test_mark_success_of_judge_opens_no_next_wave(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    answer = await fleet.gate(2)
    assert answer.state is GateState.REFUSED
    assert "not promoted" in answer.sentence
    assert (await fleet.apply(2)).skipped
    assert [name for name, version in fleet.versions().items() if version == "1.1"] == [
        item.target.name for item in fleet.frozen.targets if item.wave == 1
    ]


async def test_mark_success_of_gate_lets_no_apply_begin(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    assert (await fleet.apply(1)).skipped
    assert (await fleet.judge(1)).skipped
    assert not any(fleet.hosts.markers(name) for name in fleet.names)


async def test_mark_success_of_approve_is_no_approval(tmp_path):
    fleet = Fleet(tmp_path, approval={"required": 2})
    await fleet.plan()
    assert (await fleet.gate(1)).state is GateState.REFUSED
    assert not await fleet.approve("alice")
    assert (await fleet.gate(1)).state is GateState.REFUSED


async def test_one_person_answering_twice_and_the_requester_do_not_count(tmp_path):
    fleet = Fleet(tmp_path, approval={"required": 2})
    fleet.new_run("run-1", requested_by="carol")
    await fleet.plan()
    assert not await fleet.approve("alice", "alice", "carol")
    other = Fleet(tmp_path / "other", approval={"required": 2})
    await other.plan()
    assert await other.approve("alice", "bob")


async def test_cleared_apply_runs_no_step_again(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    before = {name: fleet.hosts.markers(name) for name in fleet.names}
    summary = await fleet.apply(1)
    assert {name: fleet.hosts.markers(name) for name in fleet.names} == before
    assert summary.counts["applied"] == 1


async def test_cleared_discover_and_prioritise_find_the_same_plan(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.plan()
    first = fleet.frozen.digest
    fleet.hosts.change(fleet.names[0], installed={"shop": "0.5"})
    await fleet.plan()
    assert fleet.frozen.digest == first


async def test_apply_marked_failed_before_it_began_leaves_no_verdict_and_the_next_run_goes_on(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.gate(1)
    answer = await fleet.judge(1)
    assert answer.verdict is None
    assert "not finished" in answer.sentence
    assert not (await fleet.finish()).good
    fleet.new_run("run-2")
    found = await fleet.discover()
    assert found.adopted
    for wave in (1, 2, 3):
        assert await fleet.wave(wave) is VerdictName.PROMOTE
    assert (await fleet.finish()).good


async def test_stop_asked_for_in_apply_launches_nothing_new(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.gate(1)
    summary = await fleet.apply(1, stop=lambda: "marked failed by alice")
    assert summary.stopped == "marked failed by alice"
    assert not any(fleet.hosts.markers(name) for name in fleet.names)


async def test_two_runs_at_once_never_open_two_rollouts(tmp_path):
    fleet = Fleet(tmp_path)
    other = fleet.as_worker("worker-2")
    other.new_run("run-2")
    object.__setattr__(fleet.site, "run_active", lambda _run: True)
    object.__setattr__(other.site, "run_active", lambda _run: True)
    first, second = await asyncio.gather(fleet.discover(), other.discover())
    assert len(fleet.ledger.rollouts(policy="web")) == 1
    behind = next(found for found in (first, second) if found.yields_to is not None)
    assert (first.yields_to is None) != (second.yields_to is None)
    assert behind.again_at is not None
    assert "waits for run" in behind.sentence


async def test_run_that_waited_for_another_decides_anew_after_it(tmp_path):
    """T5: it adopts what the other left open, and makes a new plan when the other finished."""
    fleet = Fleet(tmp_path)
    await fleet.begin()
    other = fleet.as_worker("worker-2")
    other.new_run("run-2")
    object.__setattr__(other.site, "run_active", lambda _run: True)
    assert (await other.discover()).again_at is not None
    object.__setattr__(other.site, "run_active", lambda _run: False)
    found = await other.discover()
    assert found.adopted
    assert found.rollout == fleet.rollout


@pytest.mark.parametrize(
    ("mode", "scheduled", "windows", "waits"),
    [
        ("apply", False, ALL_DAY, True),
        ("apply", False, LATER, True),
        ("apply", True, ALL_DAY, True),
        ("apply", True, LATER, False),
        ("plan", False, ALL_DAY, False),
    ],
)
async def test_who_waits_for_a_run_at_work_and_who_yields(tmp_path, mode, scheduled, windows, waits):
    fleet = Fleet(tmp_path, schedule={"windows": windows})
    request = Request(dag_id="patch__web", run_id="run-2", mode=mode, scheduled=scheduled)
    again = waits_for_other(fleet.policy, request, fleet.site.clock())
    assert (again is not None) == waits


async def test_two_workers_at_one_wave_run_every_step_once(tmp_path):
    fleet = Fleet(tmp_path, rollout={"waves": [{"canary": {"count": 1}}, {"size": "100%"}]})
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    other = fleet.as_worker("worker-2")
    await asyncio.gather(fleet.apply(2), other.apply(2))
    assert not fleet.twice()
    assert set(fleet.versions().values()) == {"1.1"}


@pytest.mark.parametrize("wave", [0, 4, 8])
async def test_a_wave_that_the_plan_does_not_have_is_refused(tmp_path, wave):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    assert (await fleet.gate(wave)).state is GateState.REFUSED


async def test_run_whose_gates_never_opened_for_another_reason_than_time_is_red(tmp_path):
    fleet = Fleet(tmp_path)
    await fleet.begin()
    closing = await fleet.finish()
    assert not closing.good
    assert "interrupted: 0 of 6 applied" in closing.sentence


async def test_run_that_a_freeze_keeps_from_working_is_green_and_says_so(tmp_path):
    freeze = {"from": "2026-11-01", "to": "2026-12-01", "reason": "audit"}
    fleet = Fleet(tmp_path, schedule={"timezone": "UTC", "freezes": [freeze]})
    fleet.new_run("run-1", scheduled=True)
    closing = await fleet.whole()
    assert closing.good
    assert "audit" in closing.sentence
    assert not any(fleet.hosts.markers(name) for name in fleet.names)
