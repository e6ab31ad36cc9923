"""The operators only show (T1, T3): run in-process over a simulated fleet and a real ledger, without a task runner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRuntimeError,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskAwaitingInput,
    TaskDeferred,
)
from airflow.sdk.execution_time.comms import ErrorResponse, SkipDownstreamTasks

from patching.errors import ConnectionMissing
from patching.ledger.entry import EntryKind
from patching.report.notice import Notice
from patching.rollout.reconcile import Reconciled
from patching.rollout.states import RolloutState
from patching_airflow.operators import base
from patching_airflow.site import run_active, run_lost
from patching_dags.policy_files import dags
from patching_dags.reconcile import build_reconcile
from unit.rollout.fleet import Fleet

REPORT = "report.report"
NOTIFY = "  mode: apply\n  notify: [{events: [held, scheduler-silent], connection: hook}]"


class TaskInstance:
    """What an operator uses of Airflow's task instance."""

    def __init__(self, task_id: str, run_id: str, answers: dict[str, Any]) -> None:
        self.id, self.task_id, self.dag_id, self.run_id, self.map_index = task_id, task_id, "patch__web", run_id, -1
        self.answers = answers
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, task_ids: str) -> Any:
        return self.answers.get(task_ids)

    def get_dag(self, dag_id: str) -> Any:
        return SimpleNamespace(is_paused=dag_id in self.answers.get("paused", ()))


class World:
    """A fleet, the DAG of its policy, and whatever Airflow would have been told."""

    def __init__(self, fleet: Fleet, dag: DAG) -> None:
        self.fleet = fleet
        self.dag = dag
        self.notes: list[str] = []
        self.answers: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []

    def context(self, task_id: str, **params: Any) -> dict[str, Any]:
        run = SimpleNamespace(run_type="manual", triggering_user_name="carol")
        ti = TaskInstance(task_id, self.fleet.request.run_id, self.answers)
        return {"ti": ti, "task_instance": ti, "dag": self.dag, "dag_run": run, "params": params}

    def run(self, task_id: str, **params: Any) -> Any:
        task = self.dag.get_task(task_id)
        task = task.unmap({"shard": 0}) if task.is_mapped else task
        return task.execute(self.context(task_id, **params))

    def passed_over(self, task_id: str, **params: Any) -> list[Any]:
        """Run a task that shows others as skipped; its message must be one that Airflow's supervisor takes."""
        with pytest.raises(DownstreamTasksSkipped) as caught:
            self.run(task_id, **params)
        return list(SkipDownstreamTasks(tasks=list(caught.value.tasks)).tasks)

    def begin(self) -> None:
        """Discover and plan through the operators; what the tests' own site would do is the same ledger."""
        self.run("discover.targets")
        row = self.fleet.ledger.rollouts(policy="web")[0]
        self.fleet.rollout = row.id
        self.run("prioritise.plan")


@pytest.fixture
def world(tmp_path: Path, write: Any, policies: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def make(*replaced: tuple[str, str], hosts: int = 6) -> World:
        fleet = Fleet(tmp_path, hosts=hosts)
        write(
            "web.yaml",
            ("{name: apt, connection: ssh_prod}", "{name: simulated, connection: fleet}"),
            ("inventory: fleet.yaml", "inventory: web.json"),
            ('    windows: [{rrule: "FREQ=WEEKLY;BYDAY=TU", start: 22:00, duration: 4h}]\n    planAhead: 24h\n', ""),
            *replaced,
        )
        (dag,) = dags(policies)
        made = World(fleet, dag)
        monkeypatch.setattr(base, "task_site", lambda _context: fleet.site)
        monkeypatch.setattr("patching_airflow.site.task_site", lambda _context: fleet.site)
        monkeypatch.setattr("patching_airflow.hooks.run_note.write_run_note", lambda *said: made.notes.append(said[2]))
        monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **detail: made.asked.append(detail))
        return made

    return make


def groups(tasks: list[Any]) -> list[str]:
    return list(dict.fromkeys((item if isinstance(item, str) else item[0]).partition(".")[0] for item in tasks))


def test_run_in_mode_plan_shows_everything_but_the_report_as_skipped(world: Callable[..., World]) -> None:
    here = world()
    here.run("discover.targets", mode="plan")
    here.fleet.rollout = here.fleet.ledger.rollouts(policy="web")[0].id
    assert groups(here.passed_over("prioritise.plan")) == ["approve", "wave_1", "wave_2", "verify", "rollback"]
    assert here.run(REPORT).startswith("planned: 6 to patch")


def test_run_that_finds_another_at_work_waits_in_no_worker_slot_and_decides_anew(world: Callable[..., World]) -> None:
    """T5: nothing is begun meanwhile, the note says for whom it waits, and afterwards it adopts the open rollout."""
    here = world()
    here.begin()
    here.fleet.new_run("run-2")
    object.__setattr__(here.fleet.site, "run_active", lambda _run: True)
    with pytest.raises(TaskDeferred) as caught:
        here.run("discover.targets")
    assert caught.value.method_name == "resume"
    assert "waits for run patch__web::run-1" in here.notes[-1]
    object.__setattr__(here.fleet.site, "run_active", lambda _run: False)
    assert "goes on with rollout" in here.run("discover.targets")


def test_planning_passes_nothing_over_because_what_comes_later_would_run_before_its_time(
    world: Callable[..., World],
) -> None:
    here = world(hosts=1)
    here.run("discover.targets")
    here.fleet.rollout = here.fleet.ledger.rollouts(policy="web")[0].id
    assert "1 to patch" in here.run("prioritise.plan")


def test_wave_that_the_plan_does_not_have_is_passed_over_by_its_own_gate(world: Callable[..., World]) -> None:
    here = world(hosts=1)
    here.begin()
    assert here.passed_over("wave_2.gate") == ["wave_2.apply", ("wave_2.apply", 0), "wave_2.judge", "wave_2.undo"]


def test_every_shard_of_a_wave_is_passed_over(world: Callable[..., World]) -> None:
    here = world(("maxTargets: 150", "maxTargets: 900"), hosts=1)
    here.begin()
    tasks = here.passed_over("wave_2.gate")
    assert [item for item in tasks if "wave_2.apply" in item] == [
        "wave_2.apply",
        *(("wave_2.apply", shard) for shard in range(5)),
    ]


def test_plan_run_that_finds_another_at_work_shows_all_as_skipped_and_ends_green(world: Callable[..., World]) -> None:
    here = world()
    here.begin()
    here.fleet.site = replace(here.fleet.site, run_active=lambda run: run.endswith("::run-1"))
    here.fleet.new_run("run-2")
    skipped = groups(here.passed_over("discover.targets", mode="plan"))
    assert skipped == ["prioritise", "approve", "wave_1", "wave_2", "verify", "rollback"]
    assert "is at work" in here.run(REPORT)


def test_after_a_wave_that_was_not_promoted_the_later_ones_are_passed_over_but_never_the_sweep(
    world: Callable[..., World],
) -> None:
    """T1: rollback and report must run whatever happened."""
    here = world(("required: 2", "required: 0"), ("size: 100%", "size: 50%}\n      - {size: 100%"))
    here.begin()
    asyncio.run(here.fleet.approve())
    here.run("wave_1.gate")
    assert groups(here.passed_over("wave_1.undo")) == ["wave_2", "wave_3", "verify"]


def test_tasks_of_a_run_whose_discovery_failed_are_skipped_and_the_report_is_red(world: Callable[..., World]) -> None:
    here = world()
    for name in ("prioritise.plan", "approve.decide", "wave_1.gate", "wave_1.apply", "rollback.sweep"):
        with pytest.raises(AirflowSkipException, match="no rollout"):
            here.run(name)
    with pytest.raises(AirflowFailException, match="discovery failed"):
        here.run(REPORT)


def test_unknown_inventory_fails_discovery_with_what_to_write(world: Callable[..., World]) -> None:
    here = world()
    (here.fleet.folder / "policies/inventories/web.json").unlink()
    with pytest.raises(AirflowFailException, match=r"web\.json"):
        here.run("discover.targets")
    assert "web.json" in here.notes[-1]


def test_soaking_judge_frees_its_slot_and_asks_again_when_it_resumes(world: Callable[..., World]) -> None:
    here = world(("required: 2", "required: 0"))
    here.begin()
    asyncio.run(here.fleet.approve())
    here.run("wave_1.gate")
    here.run("wave_1.apply")
    with pytest.raises(TaskDeferred) as caught:
        here.run("wave_1.judge")
    assert caught.value.method_name == "resume"
    here.fleet.clock.advance(minutes=11)
    judge = here.dag.get_task("wave_1.judge")
    assert judge.resume_execution("resume", {"event": None}, here.context("wave_1.judge")).startswith("promote")


def answer(person: str | None, option: str = "Approve") -> dict[str, Any]:
    user = None if person is None else {"id": person, "name": person}
    when = datetime(2026, 11, 24, 13, tzinfo=UTC)
    return {"chosen_options": [option], "params_input": {}, "responded_at": when, "responded_by_user": user}


def respond(here: World, number: int, event: dict[str, Any]) -> Any:
    """Resume a parked question as Airflow's task runner does; what is returned becomes its XCom."""
    name = f"approve.person_{number}"
    said = here.dag.get_task(name).resume_execution("execute_complete", {"event": event}, here.context(name))
    here.answers[name] = said
    return said


def test_question_goes_to_the_approvers_of_the_frozen_plan_and_ends_with_its_time(world: Callable[..., World]) -> None:
    here = world(("required: 2", "required: 2, approvers: [alice, bob], timeout: 45m"))
    here.begin()
    with pytest.raises(TaskAwaitingInput) as caught:
        here.run("approve.person_1")
    assert here.asked[0]["assigned_users"] == [{"id": "alice", "name": "alice"}, {"id": "bob", "name": "bob"}]
    assert here.asked[0]["subject"].endswith("(1 of 2)")
    assert caught.value.timeout >= timedelta(minutes=1)
    assert "by 2 different people (alice, bob), until" in here.notes[-1]


def test_more_people_are_not_asked_than_the_plan_needs(world: Callable[..., World]) -> None:
    here = world(("required: 2", "required: 0"))
    here.begin()
    with pytest.raises(AirflowSkipException):
        here.run("approve.person_1")
    assert here.asked == []


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_person_who_answers_twice_is_asked_for_somebody_else_in_whichever_order(
    world: Callable[..., World], order: tuple[int, int]
) -> None:
    """I10: "required: 2" means two different people, and the question stays open for the second one."""
    here = world()
    here.begin()
    assert respond(here, order[0], answer("alice"))["responded_by_user"]["id"] == "alice"
    with pytest.raises(TaskAwaitingInput) as caught:
        respond(here, order[1], answer("alice"))
    assert caught.value.method_name == "execute_complete"
    assert len(here.asked) == 1
    respond(here, order[1], answer("bob"))
    assert here.run("approve.decide") == "approved by alice and bob"


def test_same_answer_twice_at_the_same_moment_is_still_no_approval(world: Callable[..., World]) -> None:
    here = world()
    here.begin()
    here.answers = {f"approve.person_{number}": answer("alice") for number in (1, 2)}
    with pytest.raises(AirflowFailException, match="1 of 2 approvals by different people"):
        here.run("approve.decide")
    assert here.fleet.ledger.rollout(here.fleet.rollout).state is not RolloutState.WAITING  # type: ignore[union-attr]


def test_nobody_answering_in_time_is_shown_as_skipped_and_no_approval(world: Callable[..., World]) -> None:
    here = world()
    here.begin()
    with pytest.raises(AirflowSkipException, match="nobody answered"):
        respond(here, 1, {"error": "timed out", "error_type": "timeout"})
    with pytest.raises(AirflowFailException, match="0 of 2"):
        here.run("approve.decide")


def test_reconcile_gives_the_run_that_should_go_on_as_arguments_of_a_trigger(world: Callable[..., World]) -> None:
    """T8: an approved rollout that lost its run in an open window goes on with one new run."""
    tuesday = 'windows: [{rrule: "FREQ=WEEKLY;BYDAY=TU", start: "11:30", duration: 4h}]'
    here = world(("required: 2", "required: 0"), ("timezone: Europe/Berlin", f"timezone: UTC\n    {tuesday}"))
    here.begin()
    asyncio.run(here.fleet.approve())
    with pytest.raises(AirflowFailException):
        here.run("wave_1.gate") and here.run(REPORT)
    dag = build_reconcile()
    here.fleet.site = replace(here.fleet.site, run_active=lambda _run: False)
    (wanted,) = dag.get_task("reconcile").execute(here.context("reconcile"))
    assert here.fleet.state == "waiting"
    assert dag.get_task("reconcile").execute(here.context("reconcile")) == [wanted], "the same run until it has begun"
    assert wanted["trigger_dag_id"] == "patch__web"
    assert wanted["trigger_run_id"] == f"reconcile__{here.fleet.rollout}__20261124T1130"
    assert "no run works on it" in wanted["conf"]["reason"]
    here.answers["paused"] = ["patch__web"]
    assert dag.get_task("reconcile").execute(here.context("reconcile")) == []
    trigger = dag.get_task("go_on").unmap(wanted)
    assert trigger.skip_when_already_exists
    assert dag.get_task("go_on").upstream_task_ids == {"reconcile"}
    assert here.fleet.ledger.entries(here.fleet.rollout, kinds=[EntryKind.TARGET_BEGAN]) == []


def test_reconcile_writes_its_heartbeat_and_the_report_tells_what_is_due(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Notice] = []
    monkeypatch.setattr("patching_airflow.notifying.deliver", told.append)
    here = world(("required: 2", "required: 0"), ("  mode: apply", NOTIFY))
    here.begin()
    asyncio.run(here.fleet.approve())
    here.run("wave_1.gate")
    here.fleet.ledger.transition(here.fleet.rollout, RolloutState.HELD, reason="alice: odd")
    with pytest.raises(AirflowFailException, match="held"):
        here.run(REPORT)
    assert [(notice.event, notice.rollout) for notice in told] == [("held", here.fleet.rollout)]
    reconcile = build_reconcile().get_task("reconcile")
    reconcile.execute(here.context("reconcile"))
    (beat,) = [beat for beat in here.fleet.ledger.beats() if beat.name == "patch_reconcile"]
    here.fleet.clock.advance(hours=1)
    reconcile.execute(here.context("reconcile"))
    assert here.fleet.ledger.beats()[-1].beats == beat.beats + 1
    assert [notice.event for notice in told] == ["held", "scheduler-silent"]


def beats(here: World) -> int:
    return sum(beat.beats for beat in here.fleet.ledger.beats() if beat.name == "patch_reconcile")


def test_heartbeat_is_written_after_the_work_and_not_where_the_work_broke_but_the_others_are_told(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Notice] = []
    monkeypatch.setattr("patching_airflow.notifying.deliver", told.append)
    here = world(("required: 2", "required: 0"), ("  mode: apply", NOTIFY))
    here.begin()
    asyncio.run(here.fleet.approve())
    here.run("wave_1.gate")
    here.fleet.ledger.transition(here.fleet.rollout, RolloutState.HELD, reason="alice: odd")
    reconcile = build_reconcile().get_task("reconcile")
    at_work: list[int] = []

    async def looks(site: Any) -> Reconciled:
        at_work.append(beats(here))
        return Reconciled()

    async def breaks(site: Any) -> Reconciled:
        raise RuntimeError("nobody foresaw this")

    async def refuses(site: Any) -> Reconciled:
        raise ConnectionMissing('connection "x" does not exist')

    monkeypatch.setattr("patching.rollout.reconcile.reconcile", breaks)
    with pytest.raises(RuntimeError, match="nobody foresaw"):
        reconcile.execute(here.context("reconcile"))
    assert beats(here) == 0
    assert [notice.event for notice in told] == ["held"]
    monkeypatch.setattr("patching.rollout.reconcile.reconcile", looks)
    reconcile.execute(here.context("reconcile"))
    assert (at_work, beats(here)) == ([0], 1)
    monkeypatch.setattr("patching.rollout.reconcile.reconcile", refuses)
    context = here.context("reconcile")
    assert reconcile.execute(context) == []
    assert context["ti"].pushed["sentences"] == ['could not look after lost rollouts: connection "x" does not exist']
    assert beats(here) == 2


class Runs:
    """What Airflow answers about runs and their tasks."""

    def __init__(self, state: Any, report: str | None = None) -> None:
        self.state = state
        self.report = report

    def get_dagrun_state(self, dag_id: str, run_id: str) -> Any:
        if isinstance(self.state, int):
            raise AirflowRuntimeError(ErrorResponse(detail={"status_code": self.state}))
        return self.state

    def get_task_states(self, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, Any]:
        assert (dag_id, task_ids, run_ids) == ("patch__web", [REPORT], ["run-1"])
        return {"run-1": {REPORT: self.report}}


@pytest.mark.parametrize(
    ("runs", "active", "lost"),
    [
        pytest.param(Runs("running"), True, None, id="at work"),
        pytest.param(Runs(404), None, "was deleted", id="deleted"),
        pytest.param(Runs(500), True, None, id="Airflow does not answer"),
        pytest.param(Runs("failed", "skipped"), False, None, id="marked failed"),
        pytest.param(Runs("success", "success"), False, None, id="marked success"),
        pytest.param(Runs("failed", "failed"), False, "lost the worker of its report", id="its workers died"),
    ],
)
def test_run_is_lost_only_where_nobody_marked_it(runs: Runs, active: bool | None, lost: str | None) -> None:
    assert run_active(runs, "patch__web::run-1") is active
    assert run_lost(runs, "patch__web::run-1") == lost
