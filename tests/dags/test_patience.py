"""The ledger gone for a while: tasks wait without a slot and decide nothing; sleeping ones wake by it (S4)."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import TriggerEvent

from patching.errors import LedgerConflict, LedgerUnavailable
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.rollout.states import RolloutState
from patching_airflow import site as site_module
from patching_airflow.operators import base
from patching_airflow.operators.patience import unavailable
from patching_airflow.triggers import rollout as trigger_module
from patching_airflow.triggers.rollout import RolloutTrigger
from patching_dags.policy_files import dags
from patching_dags.reconcile import build_reconcile
from unit.rollout.fleet import Fleet

GONE = LedgerUnavailable("the database does not answer")


def context(task_id: str) -> dict[str, Any]:
    ti = SimpleNamespace(task_id=task_id, dag_id="patch__web", run_id="run-1", map_index=-1)
    run = SimpleNamespace(run_type="manual", triggering_user_name=None)
    return {"ti": ti, "task_instance": ti, "dag_run": run, "params": {}}


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr("patching_airflow.hooks.run_note.write_run_note", lambda *words: said.append(words[-1]))
    return said


def without_a_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_context: Any) -> Any:
        raise GONE

    monkeypatch.setattr(base, "task_site", gone)
    monkeypatch.setattr(site_module, "task_site", gone)


def test_every_task_defers_while_the_ledger_is_gone(  # type: ignore[no-untyped-def]
    write, policies: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_ledger(monkeypatch)
    write("web.yaml", ("maxTargets: 150", "maxTargets: 900"))
    (dag,) = dags(policies)
    tasks = [*dag.tasks, build_reconcile().get_task("reconcile")]
    for task in tasks:
        whole = task.unmap({"shard": 0}) if task.is_mapped else task
        with pytest.raises(TaskDeferred) as caught:
            whole.execute(context(task.task_id))
        assert isinstance(caught.value.trigger, DateTimeTrigger), task.task_id
        assert caught.value.method_name == "resume"
        with pytest.raises(TaskDeferred) as again:
            whole.resume_execution("resume", {"event": None, **(caught.value.kwargs or {})}, context(task.task_id))
        assert again.value.kwargs == caught.value.kwargs, "the wait is counted from its beginning"
    assert set(notes) == {"waits for the ledger, nothing new is launched: the database does not answer"}


def test_patience_ends(write, policies: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    without_a_ledger(monkeypatch)
    write()
    (dag,) = dags(policies)
    since = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    with pytest.raises(LedgerUnavailable):
        dag.get_task("wave_1.gate").resume_execution("resume", {"gone_since": since}, context("wave_1.gate"))


def test_only_an_absent_ledger_is_waited_for() -> None:
    assert unavailable(GONE) is GONE
    assert unavailable(ExceptionGroup("jobs", [GONE, ExceptionGroup("more", [GONE])])) is GONE
    assert unavailable(ExceptionGroup("jobs", [GONE, ValueError("ours")])) is None
    assert unavailable(LedgerConflict("another writer")) is None


def test_mapped_task_keeps_the_defaults_that_a_task_start_needs(write, policies: Path) -> None:  # type: ignore[no-untyped-def]
    """With a mixin before BaseOperator Airflow takes ``inlets=None`` for a mapped task, which dies at its start."""
    write("web.yaml", ("maxTargets: 150", "maxTargets: 900"))
    (dag,) = dags(policies)
    apply = dag.get_task("wave_1.apply")
    assert (apply.inlets, apply.outlets, apply.executor_config) == ([], [], {})


async def rolling(tmp_path: Path) -> Fleet:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    return fleet


def trigger(fleet: Fleet, left: timedelta) -> RolloutTrigger:
    made = RolloutTrigger(fleet.rollout, fleet.state, (datetime.now(UTC) + left).isoformat(), poll=0.01)
    path, arguments = made.serialize()
    module, _, name = path.rpartition(".")
    back: RolloutTrigger = getattr(importlib.import_module(module), name)(**arguments)
    assert back.serialize() == made.serialize()
    return back


async def fired(waiting: RolloutTrigger) -> str:
    async with asyncio.timeout(20):
        event: TriggerEvent = await anext(waiting.run())
    return str(event.payload)


async def test_trigger_fires_at_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await rolling(tmp_path)
    monkeypatch.setattr(trigger_module, "_open", lambda: fleet.ledger)
    assert await fired(trigger(fleet, timedelta(milliseconds=50))) == "the time has come"
    assert await fired(trigger(fleet, -timedelta(hours=1))) == "the time has come"


async def test_trigger_wakes_its_task_when_the_rollout_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await rolling(tmp_path)
    monkeypatch.setattr(trigger_module, "_open", lambda: fleet.ledger)
    waiting = trigger(fleet, timedelta(hours=1))
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="a person holds it")
    assert await fired(waiting) == "the rollout is held"


async def test_trigger_wakes_its_task_when_everything_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await rolling(tmp_path)
    monkeypatch.setattr(trigger_module, "_open", lambda: fleet.ledger)
    waiting = trigger(fleet, timedelta(hours=1))
    body = {"on": True, "reason": "incident 7"}
    fleet.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.STOP_SWITCH, key="stop:1", body=body))
    assert "incident 7" in await fired(waiting)


async def test_trigger_sleeps_on_while_the_ledger_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await rolling(tmp_path)
    looks = 0

    def opened() -> Any:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise GONE
        return fleet.ledger

    monkeypatch.setattr(trigger_module, "_open", opened)
    waiting = trigger(fleet, timedelta(hours=1))
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="a person holds it")
    assert await fired(waiting) == "the rollout is held"
    assert looks == 3


def test_waiting_gate_sleeps_with_the_state_it_saw(  # type: ignore[no-untyped-def]
    write, policies: Path, tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = {"windows": [{"rrule": "FREQ=DAILY", "start": "22:00", "duration": "4h"}]}
    fleet = Fleet(tmp_path / "fleet", schedule=nights)
    asyncio.run(fleet.begin())
    fleet.site = replace(fleet.site, owner="airflow")
    monkeypatch.setattr(base, "task_site", lambda _context: fleet.site)
    write()
    (dag,) = dags(policies)
    with pytest.raises(TaskDeferred) as caught:
        dag.get_task("wave_1.gate").execute(context("wave_1.gate"))
    _, arguments = caught.value.trigger.serialize()
    assert arguments["rollout"] == fleet.rollout
    assert arguments["state"] == "waiting"
    assert arguments["poll"] == 5.0
    assert notes[-1].startswith("waits for the window Tue 22:00 UTC")
