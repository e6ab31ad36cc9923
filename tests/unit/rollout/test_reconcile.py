"""What no run owns is looked after (T8, T12): settled, undone to the end, expired, given to a new run; never begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.rollout.answers import VerdictName
from patching.rollout.reconcile import Reconciled, reconcile
from patching.rollout.states import RolloutState
from unit.rollout.fleet import Fleet
from unit.rollout.test_crash_points import kill_at, prepared

pytestmark = pytest.mark.slow

TUESDAY_NOON = {"windows": [{"rrule": "FREQ=WEEKLY;BYDAY=TU", "start": "11:30", "duration": "4h"}]}
SCHEDULED: dict[str, object] = {"scheduled": True}


def lost(fleet: Fleet, *active: str) -> Fleet:
    """Let Airflow say which runs are at work; all others have ended."""
    fleet.site = replace(fleet.site, run_active=lambda run: run in active, owner="reconcile-1")
    return fleet


async def tick(fleet: Fleet) -> Reconciled:
    return await reconcile(fleet.site)


def closed_by_itself(fleet: Fleet) -> None:
    """End the run as ``report`` ends it."""
    body = {"run": f"patch__web::{fleet.request.run_id}", "sentence": "unfinished"}
    key = f"run-ended:{fleet.request.run_id}:0"
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.RUN_ENDED, key=key, body=body))


async def half_done(folder: Path, **spec: object) -> Fleet:
    """Approve a plan in an open window and promote its canary; then the run ends with two waves left."""
    fleet = Fleet(folder, **spec)
    fleet.new_run("run-1", **SCHEDULED)
    await fleet.begin()
    assert await fleet.wave(1) is VerdictName.PROMOTE
    fleet.ledger.transition(fleet.rollout, RolloutState.WAITING, reason="wave 2 is not finished")
    closed_by_itself(fleet)
    return lost(fleet)


async def test_step_left_by_a_killed_worker_is_settled_by_its_id_and_runs_once(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, "started", 1, "apply:1") == -9
    assert len(fleet.ledger.intents(rollout=fleet.rollout)) == 1
    fleet.clock.advance(seconds=60)
    lost(fleet)
    found = await tick(fleet)
    assert any("settled on" in sentence for sentence in found.sentences)
    assert fleet.ledger.intents(rollout=fleet.rollout) == []
    assert fleet.state == "waiting"
    assert [len(fleet.hosts.markers(name)) for name in fleet.names].count(1) == 1
    fleet.clock.advance(seconds=60)
    fleet.new_run("run-2")
    closing = await lost(fleet).whole(2)
    assert closing.good, closing.sentence
    assert fleet.twice() == []
    assert set(fleet.versions().values()) == {"1.1"}
    assert fleet.ledger.leases() == []
    assert fleet.ledger.verify() == []


async def test_intent_that_never_began_stays_open_and_costs_no_entry_a_tick(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, "intent-written", 1, "apply:1") == -9
    fleet.clock.advance(seconds=60)
    lost(fleet)
    await tick(fleet)
    before = len(fleet.ledger.entries(fleet.rollout))
    assert await tick(fleet) == Reconciled()
    assert len(fleet.ledger.entries(fleet.rollout)) == before
    assert len(fleet.ledger.intents(rollout=fleet.rollout)) == 1
    assert all(fleet.hosts.markers(name) == [] for name in fleet.names)


@pytest.mark.parametrize("run", ["run-1", "run-0"])
async def test_rollout_of_a_run_at_work_is_left_alone_even_if_an_older_run_was_cleared(
    tmp_path: Path, run: str
) -> None:
    fleet = await prepared(tmp_path)
    older = {"run": "patch__web::run-0", "mode": "apply", "request": fleet.request.model_dump(mode="json")}
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.RUN_BEGAN, key="run-began:run-0", body=older))
    lost(fleet, f"patch__web::{run}")
    assert await tick(fleet) == Reconciled()
    assert fleet.state == "running"


async def test_rollout_with_a_living_lease_is_left_alone_whatever_airflow_says(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, "started", 1, "apply:1") == -9
    lost(fleet)
    assert await tick(fleet) == Reconciled()
    assert fleet.state == "running"


async def test_run_marked_failed_during_undo_is_undone_to_the_end(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    await fleet.apply(1)
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
    await tick(lost(fleet))
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}
    assert fleet.twice() == []


async def test_stop_switch_keeps_even_an_undo_from_beginning(tmp_path: Path) -> None:
    fleet = await prepared(tmp_path)
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    await fleet.apply(1)
    await fleet.judge(1)
    body = {"on": True, "reason": "incident 7"}
    fleet.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.STOP_SWITCH, key="stop:1", body=body))
    found = await tick(lost(fleet))
    assert "incident 7" in found.sentences[0]
    assert fleet.state == "undoing"
    assert fleet.versions()[canary] == "1.1"


async def test_unfinished_rollout_in_an_open_window_gets_one_run_a_window(tmp_path: Path) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    found = await tick(fleet)
    assert [(item.dag_id, item.run_id) for item in found.go_on] == [
        ("patch__web", f"reconcile__{fleet.rollout}__20261124T1130")
    ]
    assert await tick(fleet) == found
    fleet.new_run(found.go_on[0].run_id)
    await fleet.discover()
    closed_by_itself(fleet)
    assert (await tick(fleet)).go_on == ()


def _window_closed(fleet: Fleet) -> None:
    fleet.clock.advance(hours=5)


def _held(fleet: Fleet) -> None:
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="a person holds it")


def _too_old(fleet: Fleet) -> None:
    fleet.clock.advance(weeks=3)


def _stopped(fleet: Fleet) -> None:
    body = {"on": True, "reason": "incident 7"}
    fleet.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.STOP_SWITCH, key="stop:1", body=body))


def _marked_failed(fleet: Fleet) -> None:
    run = {"run": "patch__web::run-9", "mode": "apply", "request": fleet.request.model_dump(mode="json")}
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.RUN_BEGAN, key="run-began:run-9", body=run))


@pytest.mark.parametrize("change", [_window_closed, _held, _too_old, _stopped, _marked_failed])
async def test_no_run_is_triggered_when(tmp_path: Path, change: Callable[[Fleet], None]) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    change(fleet)
    assert (await tick(fleet)).go_on == ()


async def test_policy_without_windows_is_never_triggered_by_itself(tmp_path: Path) -> None:
    fleet = await half_done(tmp_path)
    assert (await tick(fleet)).go_on == ()


async def test_run_of_the_schedule_gets_its_time_to_begin_first(tmp_path: Path) -> None:
    fleet = await half_done(tmp_path, schedule=TUESDAY_NOON)
    fleet.clock.now = fleet.clock.now.replace(hour=11, minute=30) + timedelta(days=7, minutes=4)
    assert (await tick(fleet)).go_on == ()
    fleet.clock.advance(minutes=2)
    assert len((await tick(fleet)).go_on) == 1


async def test_plan_that_nobody_approved_expires_with_its_validity(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, approval={"required": 2}, plan={"validFor": "1h"})
    await fleet.plan()
    lost(fleet)
    assert await tick(fleet) == Reconciled()
    fleet.clock.advance(hours=2)
    await tick(fleet)
    assert fleet.state == "expired"
