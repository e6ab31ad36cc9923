"""A whole rollout that is judged by a query in a real database (S5, F9): found when planning, judged, held."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.canary.plot import plot_of
from patching.errors import MetricSourceUnavailable, PlanError
from patching.ledger.entry import EntryKind
from patching.rollout.answers import VerdictName
from patching.sources.base import Connection
from patching.sources.sql import SqlSource
from unit.rollout.fleet import START, Fleet

HOSTS = 8
SOAK = 600
QUERY = (
    "SELECT host AS target, at AS time, depth AS value FROM queue WHERE host IN :targets AND at BETWEEN :start AND :end"
)
SPEC = {
    "rollout": {"waves": [{"canary": {"count": 1}, "soak": "10m"}, {"size": "100%", "soak": "10m"}]},
    "verify": [{"name": "queue", "sql": {"connection": "shop", "query": QUERY}}],
}


class Shop:
    """A fleet beside the database of the service that it runs: a queue of about 50, looked at every 10 s."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder, hosts=HOSTS, **SPEC)
        self.file = folder / "shop.db"
        self.run("CREATE TABLE queue (host TEXT, at REAL, depth REAL)")
        connection = Connection(id="shop", type="sqlite", host=str(self.file))
        self.fleet.site = replace(self.fleet.site, databases=lambda _name: SqlSource(connection))
        self.fill(-7200, 0)

    def run(self, statement: str, *rows: tuple[str, float, float]) -> None:
        with closing(sqlite3.connect(self.file)) as shop, shop:
            shop.executemany(statement, rows) if rows else shop.execute(statement)

    def fill(self, start: int, end: int, *, harmed: str = "", silent: str = "") -> None:
        noise = random.Random(start)  # noqa: S311 - a figure
        rows = [
            (name, START.timestamp() + second, 50 * noise.lognormvariate(0, 0.05) * (4 if name == harmed else 1))
            for name in self.fleet.names
            for second in range(start, end, 10)
            if name != silent
        ]
        self.run("INSERT INTO queue VALUES (?, ?, ?)", *rows)

    async def canary_soaks(self) -> str:
        await self.fleet.begin()
        await self.fleet.gate(1)
        await self.fleet.apply(1)
        wave = self.fleet.frozen.wave(1)
        assert wave is not None
        return wave.targets[0]

    async def verdict(self) -> tuple[VerdictName | None, str]:
        self.fleet.clock.advance(seconds=SOAK + 5)
        answer = await self.fleet.judge(1)
        return answer.verdict, answer.sentence


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_healthy_canary_is_promoted_and_what_was_read_is_kept(shop: Shop) -> None:
    canary = await shop.canary_soaks()
    shop.fill(0, SOAK + 60)
    verdict, why = await shop.verdict()
    assert verdict is VerdictName.PROMOTE, why
    (kept,) = shop.fleet.ledger.entries(shop.fleet.rollout, kinds=[EntryKind.MEASURED])
    document = shop.fleet.ledger.document(kept.body["data"])
    looks, plot = document["looks"], plot_of("queue", document)
    assert list(looks["canary"]["targets"]) == [canary]
    assert len(looks["control"]["targets"]) == HOSTS - 1
    assert (plot.unit, [mark.label for mark in plot.changes]) == ("level", [canary])
    assert all(40 < point.value < 60 for point in (*plot.canary, *plot.control) if point.value is not None)
    assert plot.canary[0].at < plot.changes[0].at < plot.canary[-1].at
    # What was asked is there word for word, for the time since the change and for the one before.
    after, before = document["queries"]
    assert after["text"].startswith("SELECT")
    assert f":targets = {canary}, " in after["text"]
    assert after["window"] == pytest.approx(SOAK, abs=60)
    assert before["window"] == pytest.approx(2400, abs=60)


async def test_harmed_canary_is_undone(shop: Shop) -> None:
    canary = await shop.canary_soaks()
    shop.fill(0, SOAK + 60, harmed=canary)
    verdict, why = await shop.verdict()
    assert verdict is VerdictName.UNDO, why


async def test_canary_that_writes_no_row_any_more_is_held(shop: Shop) -> None:
    """F9: no data is never a pass."""
    canary = await shop.canary_soaks()
    shop.fill(0, SOAK + 60, silent=canary)
    verdict, why = await shop.verdict()
    assert verdict is VerdictName.HOLD
    assert "no data" in why


async def test_table_that_is_renamed_in_mid_rollout_holds(shop: Shop) -> None:
    await shop.canary_soaks()
    shop.run("ALTER TABLE queue RENAME TO waiting")
    verdict, why = await shop.verdict()
    assert verdict is VerdictName.HOLD
    assert "no such table: queue" in why


async def test_renamed_column_is_found_when_planning(shop: Shop) -> None:
    shop.run("ALTER TABLE queue RENAME COLUMN depth TO length")
    with pytest.raises(PlanError, match=r'check "queue": "query": .* no such column: depth; write a SELECT'):
        await shop.fleet.plan()


async def test_plan_says_who_has_no_row(shop: Shop) -> None:
    shop.run("DELETE FROM queue WHERE host = 'web-03'")
    await shop.fleet.plan()
    assert any("no current row (of the last hour) for web-03" in item.statement for item in shop.fleet.frozen.power)


async def test_gauge_with_a_past_tells_the_load_where_nothing_counts_requests(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.run("UPDATE queue SET depth = 10 * depth WHERE host = 'web-01'")
    await shop.fleet.plan()
    loads = shop.fleet.frozen.loads
    assert loads is not None
    assert (loads.check, loads.unit, sorted(loads.of)) == ("queue", "value", sorted(shop.fleet.names))
    assert loads.of["web-01"] == pytest.approx(500, rel=0.05)
    assert loads.of["web-02"] == pytest.approx(50, rel=0.05)


async def test_gauge_that_cannot_be_read_for_its_load_stops_no_plan(tmp_path: Path) -> None:
    class Once(SqlSource):
        async def values(self, matchers: Any, query: str, start: Any, end: Any, number: int) -> Any:
            if number > 1:
                raise MetricSourceUnavailable("the database is gone since the query was tried")
            return await super().values(matchers, query, start, end, number)

    shop = Shop(tmp_path)
    source = Once(Connection(id="shop", type="sqlite", host=str(shop.file)))
    shop.fleet.site = replace(shop.fleet.site, databases=lambda _name: source)
    await shop.fleet.plan()
    assert shop.fleet.frozen.loads is None
    said = [item.statement for item in shop.fleet.frozen.power if item.check == "control"]
    assert all("load not known" in text for text in said)
