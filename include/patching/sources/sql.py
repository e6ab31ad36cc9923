"""SQL as a metric source: values with their times that a database keeps, by a query with bound parameters."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from patching.change import Refusal
from patching.errors import MetricQueryRefused, MetricSourceUnavailable
from patching.policy_metrics import parameters
from patching.sources.base import Connection
from patching.sources.database import ReadOnlyDatabase
from patching.sources.points import in_looks
from patching.sources.refusal import silent, unusable
from patching.sources.sent import note

COLUMNS = ("target", "time", "value")
TARGETS_PER_QUERY = 1000
TRIED = timedelta(hours=1)
"""How far back a query is tried when planning."""

MILLISECONDS = 1e11
"""A number of seconds above this is in the year 5138; it is one of milliseconds."""

REMEDY = (
    "write a SELECT of the columns target, time and value with the parameters :targets, :start and :end, such as "
    "SELECT host AS target, at AS time, depth AS value FROM queue "
    "WHERE host IN :targets AND at > :start AND at <= :end"
)


class SqlSource:
    """A GaugeSource over a database; ``timeout`` is seconds a query.

    ``:targets``, ``:start`` and ``:end`` are bound by the driver and never become part of the query's text.
    """

    def __init__(self, connection: Connection, *, timeout: float = 15.0) -> None:
        self._database = ReadOnlyDatabase(connection, timeout)
        self._patience = 2 * timeout

    async def values(
        self, matchers: dict[str, dict[str, str]], query: str, start: datetime, end: datetime, number: int
    ) -> dict[str, list[float | None]]:
        """Read the mean of each target's rows in each of ``number`` equal parts of a span; None without a row.

        Raises MetricSourceUnavailable.
        """
        owners = _owners(matchers)
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for part in _batches(list(owners)):
            columns, rows = await self._ask(query, part, start, end)
            for called, at, value in _plain(columns, rows):
                if called in owners:
                    points[owners[called]].append((at, value))
        return in_looks(points, matchers, start, end, number)

    async def validate_gauge(self, matchers: dict[str, dict[str, str]], query: str, at: datetime) -> list[Refusal]:
        """Find, when planning, a query that cannot work (blocking), and targets without a row in the last hour."""
        if self._database.lacks is not None:
            return [unusable("connection", self._database.lacks, "define such a connection in Airflow")]
        try:
            found = await self.values(matchers, query, at - TRIED, at, 1)
        except MetricQueryRefused as error:
            return [unusable("query", str(error), REMEDY)]
        missing = [name for name, values in found.items() if values == [None]]
        return silent(missing, "row (of the last hour)", 'compare "target" with what the rows call the target')

    async def _ask(
        self, query: str, targets: Sequence[str], start: datetime, end: datetime
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        moments: list[Any] = [start, end]
        if self._database.moments_are_numbers:
            moments = [moment.timestamp() for moment in moments]
        given: dict[str, sa.BindParameter[Any]] = {
            "start": sa.bindparam("start", moments[0]),
            "end": sa.bindparam("end", moments[1]),
        }
        given["targets"] = sa.bindparam("targets", list(targets), expanding=True)
        named = parameters(query)
        unknown = [name for name in named if name not in given]
        if unknown or "targets" not in named:
            raise MetricQueryRefused(f"its parameters are {', '.join(named) or 'none'}; use :targets, :start and :end")
        note(f"{query} -- :targets = {', '.join(targets)}", start, end)
        statement = sa.text(query).bindparams(*(given[name] for name in named))
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.to_thread(self._database.rows, statement)
        except TimeoutError as error:
            raise MetricSourceUnavailable(
                f'the database of "{self._database.id}" gave no answer within {self._patience:g} s. '
                "No data is never a pass: the check is inconclusive"
            ) from error


def _owners(matchers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Map what the rows call a target to its name; refuses two targets with one name in the rows."""
    owners: dict[str, str] = {}
    for name, each in matchers.items():
        called = each["target"]
        if called in owners:
            raise MetricQueryRefused(f'"target" does not tell {owners[called]} and {name} apart: both are "{called}"')
        owners[called] = name
    return owners


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), TARGETS_PER_QUERY):
        yield names[first : first + TARGETS_PER_QUERY]


def _plain(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, float, float]]:
    """Give target, epoch seconds and value of each row; a row without a value is left out."""
    absent = [name for name in COLUMNS if name not in columns]
    if absent:
        given = ", ".join(columns)
        raise MetricQueryRefused(f"the query gives no column {', '.join(absent)}, but {given}; name it with AS")
    places = [columns.index(name) for name in COLUMNS]
    for row in rows:
        called, at, value = (row[place] for place in places)
        if value is not None:
            yield str(called), _moment(at), _number(value)


def _moment(at: Any) -> float:
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError as error:
            raise MetricQueryRefused(f'the time "{at}" is no RFC 3339 time and no number of seconds') from error
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise MetricQueryRefused(
                f"the time \"{at}\" has no zone; write at AT TIME ZONE 'UTC' AS time (PostgreSQL) or "
                "unixepoch(at) AS time (SQLite)"
            )
        return at.timestamp()
    seconds = _number(at, "time")
    if seconds > MILLISECONDS:
        raise MetricQueryRefused(f"the time {seconds:.0f} is no number of seconds since 1970; divide milliseconds")
    return seconds


def _number(value: Any, what: str = "value") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise MetricQueryRefused(f'the {what} "{value}" is no number ({type(value).__name__}); cast it in the query')
    return float(value)
