"""The SQL source against real SQLite and real PostgreSQL (S5, F9): what it reads, and what it refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("psycopg")

from patching.errors import MetricQueryRefused, MetricSourceUnavailable
from patching.sources.base import Connection
from patching.sources.sql import SqlSource
from servers.postgres import postgres_server

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROWS = [("web-1", 5, 10.0), ("web-1", 8, 30.0), ("web-1", 25, 7.0), ("o'ne", 15, 2.0), ("web-9", 15, 99.0)]
QUERY = (
    "SELECT host AS target, at AS time, depth AS value FROM queue WHERE host IN :targets AND at > :start AND at <= :end"
)
DELETE = "DELETE FROM queue"
ENDLESS = {
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT 'a' AS target, 1 AS time, max(x) AS value FROM n WHERE 'a' IN :targets",
    "postgres": "SELECT 'a' AS target, now() AS time, 1 AS value FROM pg_sleep(60) WHERE 'a' IN :targets",
}
NAMED = {"first": {"target": "web-1"}, "second": {"target": "o'ne"}, "third": {"target": "nobody"}}


@dataclass
class Database:
    connection: Connection
    run: Callable[[str], None]
    endless: str


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Database:
    path = tmp_path_factory.mktemp("sqlite") / "shop 1?.db"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE queue (host TEXT, at REAL, depth REAL, label TEXT)")
        rows = [(host, T0.timestamp() + second, depth, "x") for host, second, depth in ROWS]
        made.executemany("INSERT INTO queue VALUES (?, ?, ?, ?)", rows)

    def run(statement: str) -> None:
        with closing(sqlite3.connect(path)) as made, made:
            made.execute(statement)

    return Database(Connection(id="shop", type="sqlite", host=str(path)), run, ENDLESS["sqlite"])


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with postgres_server("shop") as server:
        server.ask("CREATE TABLE queue (host text, at timestamptz, depth numeric, label text)")
        for host, second, depth in ROWS:
            at = (T0 + timedelta(seconds=second)).isoformat()
            statement = "INSERT INTO queue VALUES (:host, cast(:at AS timestamptz), cast(:depth AS numeric), 'x')"
            server.ask(statement, host=host, at=at, depth=str(depth))
        connection = Connection(id="shop", type="postgres", host=str(server.folder), login="shop", schema_="postgres")
        yield Database(connection, lambda statement: server.ask(statement) and None, ENDLESS["postgres"])


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


async def read(database: Database, query: str = QUERY) -> dict[str, list[float | None]]:
    return await SqlSource(database.connection).values(NAMED, query, T0, T0 + timedelta(seconds=30), 3)


async def problems(database: Database, query: str) -> list[str]:
    found = await SqlSource(database.connection).validate_gauge(NAMED, query, T0 + timedelta(seconds=30))
    return [refusal.message for refusal in found if refusal.blocking]


async def test_each_part_has_the_mean_of_its_rows_and_none_where_there_is_none(database: Database) -> None:
    assert await read(database) == {
        "first": [20.0, None, 7.0],
        "second": [None, 2.0, None],
        "third": [None, None, None],
    }


async def test_names_of_targets_are_bound_and_never_part_of_the_query(database: Database) -> None:
    named = {"first": {"target": "x') OR ('1'='1"}}
    values = await SqlSource(database.connection).values(named, QUERY, T0, T0 + timedelta(seconds=30), 1)
    assert values == {"first": [None]}


async def test_rows_that_nobody_asked_for_are_left_out(database: Database) -> None:
    everything = "SELECT host AS target, at AS time, depth AS value FROM queue WHERE host IN :targets OR 1 = 1"
    assert await read(database, everything) == await read(database)


async def test_target_without_a_row_is_said_when_planning_and_blocks_nothing(database: Database) -> None:
    found = await SqlSource(database.connection).validate_gauge(NAMED, QUERY, T0 + timedelta(seconds=30))
    assert [(refusal.blocking, "third" in refusal.message) for refusal in found] == [(False, True)]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (QUERY.replace("depth", "debth"), "debth"),
        (QUERY.replace("FROM queue", "FROM queues"), "queues"),
        (QUERY.replace("SELECT", "SELCT"), "syntax"),
        (QUERY.replace("AS target", "AS host"), "no column target, but host, time, value"),
        (QUERY.replace("depth AS value", "label AS value"), 'value "x" is no number'),
        (QUERY.replace("at AS time", "'2026-03-01 12:00:05' AS time"), "has no zone"),
        (QUERY.replace("at AS time", "'yesterday' AS time"), "no RFC 3339 time"),
        (QUERY.replace("at AS time", "1772366405000 AS time"), "divide milliseconds"),
        (QUERY.replace(":targets", ":hosts"), "its parameters are hosts, start, end"),
    ],
)
async def test_query_that_cannot_work_is_found_when_planning(database: Database, query: str, words: str) -> None:
    (found,) = await problems(database, query)
    assert words in found


@pytest.mark.parametrize("statement", [f"{DELETE} WHERE host IN :targets", f"{QUERY}; {DELETE}"])
async def test_nothing_is_ever_written(database: Database, statement: str) -> None:
    with pytest.raises(MetricQueryRefused):
        await read(database, statement)
    assert (await read(database))["first"] == [20.0, None, 7.0]


async def test_renamed_column_after_planning_is_no_answer(database: Database) -> None:
    database.run("ALTER TABLE queue RENAME COLUMN depth TO length")
    try:
        with pytest.raises(MetricSourceUnavailable, match="depth"):
            await read(database)
    finally:
        database.run("ALTER TABLE queue RENAME COLUMN length TO depth")


async def test_query_that_never_ends_is_ended(database: Database) -> None:
    source = SqlSource(database.connection, timeout=0.2)
    with pytest.raises(MetricSourceUnavailable, match=r"gave no answer: (interrupted|canceling statement)"):
        await source.values({"a": {"target": "a"}}, database.endless, T0, T0 + timedelta(seconds=1), 1)


@pytest.mark.parametrize(
    "connection",
    [
        Connection(id="shop", type="sqlite", host="/nowhere/shop.db"),
        Connection(id="shop", type="postgres", host="127.0.0.1", port=1, schema_="shop", password="hunter2"),
    ],
)
async def test_database_that_is_not_there_is_no_answer_and_no_error_of_the_plan(connection: Connection) -> None:
    source = SqlSource(connection)
    with pytest.raises(MetricSourceUnavailable, match="no answer") as caught:
        await source.validate_gauge(NAMED, QUERY, T0)
    assert "hunter2" not in str(caught.value)


async def test_connection_of_another_type_is_found_when_planning() -> None:
    found = await SqlSource(Connection(id="shop", type="http", host="db")).validate_gauge(NAMED, QUERY, T0)
    assert 'type "http"; a query needs one of type postgres or sqlite' in found[0].message
    assert found[0].blocking


async def test_two_targets_with_one_name_in_the_rows_are_found_when_planning(sqlite: Database) -> None:
    same = {"first": {"target": "web"}, "second": {"target": "web"}}
    (found,) = await SqlSource(sqlite.connection).validate_gauge(same, QUERY, T0)
    assert "does not tell first and second apart" in found.message
