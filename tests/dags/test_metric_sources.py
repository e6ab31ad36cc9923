"""The site of a task makes metric sources from Airflow's connections (S5): type, host and login are Airflow's."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from patching.errors import ConnectionMissing
from patching.policy_metrics import HttpJsonCheck
from patching.target import Member, Target
from patching_airflow import site
from servers.status import Status, status_server

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
QUERY = "SELECT 'web-1' AS target, :start + 1 AS time, depth AS value FROM queue WHERE 'web-1' IN :targets"


@pytest.fixture
def status() -> Iterator[Status]:
    with status_server() as running:
        yield running


async def test_database_is_read_through_a_connection_of_airflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as made, made:
        made.execute("CREATE TABLE queue AS SELECT 7.5 AS depth")
    kept = {"conn_type": "sqlite", "host": str(tmp_path / "shop.db")}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DB", json.dumps(kept))
    source = site._database(site.AirflowConnections(), "shop_db")
    found = await source.values({"web-1": {"target": "web-1"}}, QUERY, NOW, NOW + timedelta(seconds=60), 1)
    assert found == {"web-1": [7.5]}


async def test_service_is_asked_through_a_connection_of_airflow(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    status.tell({"web-1": 3})
    kept = {"conn_type": "http", "host": "127.0.0.1", "port": status.port, "login": "eva", "password": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(kept))
    rules = HttpJsonCheck(connection="shop", url="/status", pointer="/{name}")
    target = Target(name="web-1", members=(Member(address="127.0.0.1"),))
    assert (await site._polled(site.AirflowConnections(), rules).now([target])).values == {"web-1": 3.0}
    assert status.headers["Authorization"].startswith("Basic ")


def test_connection_that_airflow_does_not_know_is_said() -> None:
    with pytest.raises(ConnectionMissing, match="nowhere"):
        site._database(site.AirflowConnections(), "nowhere")
