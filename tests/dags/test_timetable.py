"""The timetable as Airflow calls it; the moments themselves are tested in tests/unit/test_moments.py (S3)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
import pytest
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction

from patching_airflow.timetables import maintenance_window
from patching_airflow.timetables.maintenance_window import MaintenanceWindowTimetable

SCHEDULE = {
    "timezone": "Europe/Berlin",
    "windows": [{"rrule": "FREQ=WEEKLY;BYDAY=TU,WE", "start": "22:00", "duration": 14400.0}],
    "plan_ahead": 86400.0,
}
ALWAYS = TimeRestriction(earliest=None, latest=None, catchup=False)


def at(text: str) -> pendulum.DateTime:
    found = pendulum.parse(text)
    assert isinstance(found, pendulum.DateTime)
    return found


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_now(text: str) -> None:
        monkeypatch.setattr(maintenance_window.pendulum, "now", lambda _zone: at(text))

    return set_now


def following(table: MaintenanceWindowTimetable, last: DagRunInfo | None, restriction: TimeRestriction) -> Any:
    return table.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)


def test_run_begins_at_its_moment_and_is_named_after_it(now: Any) -> None:
    now("2026-10-12T10:00Z")
    found = following(MaintenanceWindowTimetable(SCHEDULE), None, ALWAYS)
    assert found.run_after == found.logical_date == at("2026-10-12T20:00Z")
    assert found.data_interval == DataInterval.exact(at("2026-10-12T20:00Z"))


def test_scheduled_runs_follow_each_other(now: Any) -> None:
    table, last, seen = MaintenanceWindowTimetable(SCHEDULE), None, []
    for _ in range(4):
        now(str(last.run_after + timedelta(minutes=1)) if last else "2026-10-12T10:00Z")
        last = following(table, last, ALWAYS)
        seen.append(last.run_after.format("ddd HH:mm"))
    assert seen == ["Mon 20:00", "Tue 20:00", "Wed 20:00", "Mon 20:00"]


def test_open_window_is_run_at_once_after_a_downtime_and_missed_ones_are_not(now: Any) -> None:
    table, last = MaintenanceWindowTimetable(SCHEDULE), DagRunInfo.exact(at("2026-09-01T20:00Z"))
    now("2026-10-14T23:30Z")
    assert following(table, last, ALWAYS).run_after == at("2026-10-14T20:00Z")
    now("2026-10-16T09:00Z")
    assert following(table, last, ALWAYS).run_after == at("2026-10-19T20:00Z")


def test_end_of_the_dag_is_kept(now: Any) -> None:
    now("2026-10-12T10:00Z")
    until = TimeRestriction(earliest=None, latest=at("2026-10-12T19:00Z"), catchup=False)
    assert following(MaintenanceWindowTimetable(SCHEDULE), None, until) is None


def test_manual_run_covers_its_own_moment() -> None:
    moment = at("2026-10-12T10:00Z")
    found = MaintenanceWindowTimetable(SCHEDULE).infer_manual_data_interval(run_after=moment)
    assert found == DataInterval.exact(moment)


def test_timetable_is_registered_under_the_path_that_dag_files_import() -> None:
    """Otherwise Airflow cannot read a stored DAG back."""
    from airflow._shared.module_loading import qualname

    from patching_airflow.plugin import PatchingPlugin

    assert [qualname(table) for table in PatchingPlugin.timetables] == [
        "patching_airflow.timetables.maintenance_window.MaintenanceWindowTimetable"
    ]
