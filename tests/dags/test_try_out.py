"""``make airflow``: what it is composed of; that it starts and stops is tests/adapters/test_local_airflow.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from patching_airflow import try_out

pytestmark = pytest.mark.airflow


def test_connections_of_the_shell_reach_it_and_nothing_else_of_another_airflow(tmp_path: Path) -> None:
    made = try_out.composed(
        tmp_path,
        {"AIRFLOW_CONN_SSH_PROD": "{}", "AIRFLOW_HOME": "/elsewhere", "AIRFLOW__CORE__DAGS_FOLDER": "/elsewhere"},
    )
    assert made.settings["AIRFLOW_CONN_SSH_PROD"] == "{}"
    assert made.settings["AIRFLOW_HOME"] == str(tmp_path)
    assert made.settings["AIRFLOW__CORE__DAGS_FOLDER"] == str(try_out.ROOT / "dags")
    assert "/elsewhere" not in made.environment.values()


@pytest.mark.parametrize("given", ["", "postgresql+psycopg://db/patching"])
def test_the_ledger_lies_in_its_home_unless_another_is_named(tmp_path: Path, given: str) -> None:
    made = try_out.composed(tmp_path, {"AIRFLOW__PATCHING__LEDGER_URL": given} if given else {})
    assert made.settings["AIRFLOW__PATCHING__LEDGER_URL"] == (given or f"sqlite:///{tmp_path}/ledger.sqlite")


def test_the_greeting_tells_the_command_line_where_it_is(tmp_path: Path) -> None:
    said = try_out.greeting(try_out.composed(tmp_path, {"PATCHING_PORT": "8099"}))
    assert "export PATCHING_URL=http://127.0.0.1:8099 PATCHING_USER=alice" in said
    assert str(try_out.ROOT / "dags" / "policies") in said
