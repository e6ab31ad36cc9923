"""What the scheduler gets: every DAG survives Airflow's own serialiser and makes no new versions by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import TriggerRule
from airflow.serialization.serialized_objects import DagSerialization

from patching_airflow.timetables.maintenance_window import MaintenanceWindowTimetable
from patching_dags.emergency import build_emergency
from patching_dags.policy_files import dags
from patching_dags.reconcile import build_reconcile


def stored(dag: Any) -> dict[str, Any]:
    """Serialise as the DAG processor does, through JSON."""
    dag.fileloc, dag.relative_fileloc = "/dags/patch_policies.py", "patch_policies.py"
    document: dict[str, Any] = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    return document


def variants(write: Any, policies: Path) -> list[Any]:
    write("web.yaml", ("maxTargets: 150", "maxTargets: 900"))
    write("small.yaml", ("name: web", "name: small"), ("mode: apply", "mode: plan"))
    (policies / "broken.yaml").write_text("kind: [")
    return [*dags(policies), build_emergency(), build_reconcile()]


def test_every_dag_comes_back_as_it_was(write, policies) -> None:  # type: ignore[no-untyped-def]
    for dag in variants(write, policies):
        back = DagSerialization.from_dict(stored(dag))
        assert list(back.task_ids) == list(dag.task_ids)
        assert back.tags == dag.tags
        assert back.doc_md == dag.doc_md
        assert set(back.params) == set(dag.params)
        for task in dag.tasks:
            same = back.get_task(task.task_id)
            assert same.downstream_task_ids == task.downstream_task_ids
            assert TriggerRule(same.trigger_rule) is TriggerRule(task.trigger_rule)
            assert same.is_mapped == task.is_mapped


def test_timetable_comes_back_equal_and_says_the_window(write, policies) -> None:  # type: ignore[no-untyped-def]
    write()
    (dag,) = dags(policies)
    back = DagSerialization.from_dict(stored(dag)).timetable
    assert isinstance(back, MaintenanceWindowTimetable)
    assert back.serialize() == dag.timetable.serialize()
    assert back.summary == "22:00 Europe/Berlin"
    assert back.description == "maintenance windows: FREQ=WEEKLY;BYDAY=TU 22:00 Europe/Berlin"


def test_parsing_twice_makes_no_new_version(write, policies) -> None:  # type: ignore[no-untyped-def]
    first = {dag.dag_id: SerializedDagModel.hash(stored(dag)) for dag in variants(write, policies)}
    again = {dag.dag_id: SerializedDagModel.hash(stored(dag)) for dag in variants(write, policies)}
    assert first == again
    assert len(set(first.values())) == 5


def test_another_place_of_the_bundle_makes_no_new_version(write, policies, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A versioned bundle is checked out under a new path every time."""
    write()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "web.yaml").write_bytes((policies / "web.yaml").read_bytes())
    (one,), (other,) = dags(policies), dags(elsewhere)
    assert SerializedDagModel.hash(stored(one)) == SerializedDagModel.hash(stored(other))


@pytest.mark.parametrize(
    "edit", [("soak: 10m", "soak: 20m"), ("start: 22:00", "start: 23:00"), ("Web hosts.", "All web hosts.")]
)
def test_an_edited_policy_makes_a_new_version(write, policies, edit: tuple[str, str]) -> None:  # type: ignore[no-untyped-def]
    write()
    (before,) = dags(policies)
    first = SerializedDagModel.hash(stored(before))
    write("web.yaml", edit)
    (after,) = dags(policies)
    assert SerializedDagModel.hash(stored(after)) != first
