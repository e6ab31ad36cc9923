"""Ports to the world that is read: inventories, advisories, metrics, connections, time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from pydantic import Field

from patching.advisory import Advisory
from patching.change import Refusal
from patching.target import Target
from patching.value import JsonValue, Value


class Connection(Value):
    """One named connection with its secrets; never logged, never serialised into the ledger."""

    id: str
    type: str | None = None
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    schema_: str | None = None
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Connection({self.id})"

    __str__ = __repr__


class ConnectionSource(Protocol):
    """Where connections come from: Airflow in production, a dict in tests."""

    def get(self, connection_id: str) -> Connection:
        """Find a connection; raises ConnectionMissing."""
        ...


class Clock(Protocol):
    """The current moment, passed in so that decisions stay pure."""

    def __call__(self) -> datetime:
        """Give the current moment, always with a time zone (UTC)."""
        ...


class InventorySource(Protocol):
    """Gives targets."""

    def targets(self) -> Sequence[Target]:
        """Read every target; raises InventoryError."""
        ...


class AdvisorySource(Protocol):
    """Gives advisories."""

    def advisories(self) -> Sequence[Advisory]:
        """Read every advisory; raises AdvisoryError."""
        ...


class Sample(Value):
    """Counters of one target over one span: errors and requests counted, None where there are no data."""

    target: str
    start: datetime
    end: datetime
    errors: float | None
    requests: float | None


class GaugeSource(Protocol):
    """The small port that every metric source has: values of a gauge by target, and whether they can be asked for.

    ``matchers`` maps the name of a target to what it is called in the source.
    """

    async def values(
        self, matchers: dict[str, dict[str, str]], query: str, start: datetime, end: datetime, number: int
    ) -> dict[str, list[float | None]]:
        """Read what a query gives for each of ``number`` equal parts of the span.

        One list a target, in the order of ``matchers``; None where it has no value of that part. Raises
        MetricSourceUnavailable.
        """
        ...

    async def validate_gauge(self, matchers: dict[str, dict[str, str]], query: str, at: datetime) -> list[Refusal]:
        """Find, when planning, a query that cannot work (blocking), and targets without a value now (not blocking).

        Raises MetricSourceUnavailable where the source itself is not there.
        """
        ...


class Polled(Value):
    """What one round of asking gave: values by target, and why the others have none."""

    values: dict[str, float]
    failed: dict[str, str] = Field(default_factory=dict)


class PolledSource(Protocol):
    """A source without a past: it says what is now, so somebody has to ask it often and to write the answers down."""

    async def now(self, targets: Sequence[Target]) -> Polled:
        """Ask for the value of every target; raises MetricSourceUnavailable where it cannot even be asked."""
        ...

    async def validate(self, targets: Sequence[Target]) -> list[Refusal]:
        """Find, when planning, what cannot work (blocking), and targets without a value now (not blocking).

        Raises MetricSourceUnavailable where nobody answers.
        """
        ...


class MetricSource(GaugeSource, Protocol):
    """A source that keeps counters as well: how much they increased per target."""

    async def increases(
        self, matchers: dict[str, dict[str, str]], errors: str, requests: str, start: datetime, end: datetime
    ) -> list[Sample]:
        """Read the increase of two counters for each target between two moments.

        ``matchers`` maps target name to label matchers that replace ``$series``. Raises MetricSourceUnavailable.
        """
        ...

    async def total(self, selector: str, seconds: float, at: datetime) -> float | None:
        """Sum what all series of a selector counted in the ``seconds`` before a moment; None without such a series.

        Raises MetricSourceUnavailable.
        """
        ...

    async def interval(self, matchers: dict[str, dict[str, str]], selector: str, at: datetime) -> float | None:
        """Give the seconds between two samples of a counter at the targets; None where that cannot be told.

        Data up to a moment are complete only so long after it. Raises MetricSourceUnavailable.
        """
        ...

    async def unknown(self, selector: str, at: datetime) -> str | None:
        """Give the name of a selector's counter if there is no series of that name at all; None where there is one.

        Other matchers do not count: a host without an error has no series of its 5xx, but the name is there. None for
        a selector without a name. Raises MetricSourceUnavailable.
        """
        ...

    async def validate(
        self, matchers: dict[str, dict[str, str]], errors: str, requests: str, at: datetime
    ) -> list[Refusal]:
        """Find, when planning, counters that cannot work (blocking), and targets without data now (not blocking).

        Raises MetricSourceUnavailable.
        """
        ...

    async def points(
        self,
        matchers: dict[str, dict[str, str]],
        errors: str,
        requests: str,
        start: datetime,
        end: datetime,
        count: int,
    ) -> list[Sample]:
        """Read the same increases in ``count`` equal parts of the span, for a picture."""
        ...
