"""The local Airflow: stopping it, or starting after an interrupted time, leaves no process; a taken port is told."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching_airflow.local import LocalAirflow, LocalAirflowError
from patching_airflow.processes import start_time
from servers.orphans import Left, adopting_orphans

pytestmark = pytest.mark.airflow

# The task does not end by itself, ignores the polite signal, and has a child in a session of its own.
STUBBORN = """
import signal, subprocess, time
from pathlib import Path
from airflow.sdk import DAG, task
with DAG("stubborn", schedule=None, is_paused_upon_creation=False):
    @task
    def stays():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        Path({path!r}).write_text(str(child.pid))
        child.wait()
    stays()
"""
INTERRUPTED = """
from pathlib import Path
from patching_airflow.local import LocalAirflow
home = Path({home!r})
LocalAirflow(home, home / "dags", {{"admin": "admin"}}, {{}}, port={port}).restart("scheduler")
"""


@pytest.fixture(scope="module")
def left() -> Iterator[Left]:
    with adopting_orphans() as left:
        yield left


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, left: Left) -> Iterator[LocalAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    (dags / "stubborn.py").write_text(STUBBORN.format(path=str(home / "child.pid")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = LocalAirflow(home, dags, {"admin": "admin"}, {"AIRFLOW__PATCHING__POLICIES_DIR": str(home)}, port=port)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def eventually(true: Callable[[], object], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"not within {within:.0f} s"
        time.sleep(0.2)


def stubborn_runs(airflow: LocalAirflow) -> int:
    """Start the task that does not end; gives the pid of its detached child."""
    api = AirflowApi(airflow.url, user="admin", password="admin")

    def triggered() -> bool:
        try:
            api.trigger("stubborn", {})
        except AirflowApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    eventually(triggered)
    path = airflow.home / "child.pid"
    eventually(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_taken_port_is_told_in_one_line_and_nothing_is_started(airflow: LocalAirflow, tmp_path: Path) -> None:
    second = LocalAirflow(tmp_path, tmp_path, {"admin": "admin"}, {}, port=airflow.port)
    with pytest.raises(LocalAirflowError) as raised:
        second.start()
    assert str(raised.value).startswith(f"port {airflow.port} is taken (Address already in use): ")
    assert "\n" not in str(raised.value)
    assert second.processes == {}


def test_stop_leaves_no_process_although_a_task_ignores_the_signal(airflow: LocalAirflow, left: Left) -> None:
    child = stubborn_runs(airflow)
    assert psutil.pid_exists(child)
    airflow.kill("triggerer")
    airflow.stop()
    assert left() == []
    assert start_time(child) is None
    assert not (airflow.home / "processes.json").exists()


def test_interrupted_time_is_cleared_by_the_next(airflow: LocalAirflow, left: Left) -> None:
    """The starter is gone without a word; all that the next one has is the file with pids and start times."""
    airflow.stop()
    script = INTERRUPTED.format(home=str(airflow.home), port=airflow.port)
    subprocess.run([sys.executable, "-c", script], check=True)
    eventually(lambda: len(left()) > 2)  # the scheduler and the workers that it forks
    LocalAirflow(airflow.home, airflow.home, {}, {}).clear()
    assert left() == []
    assert not (airflow.home / "processes.json").exists()


def test_pid_that_is_somebody_elses_by_now_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "3600"], start_new_session=True) as other:
        (tmp_path / "processes.json").write_text(f'{{"{other.pid}": "1"}}')
        LocalAirflow(tmp_path, tmp_path, {}, {}).clear()
        assert other.poll() is None
        other.kill()
