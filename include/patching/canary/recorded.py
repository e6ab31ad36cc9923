"""Recorded series: CSV or a saved Prometheus answer → samples of each wave and metric; pure, text in.

CSV has the header ``time,wave,target,role,phase,metric,value``: RFC 3339 times; role ``canary`` or ``control``, as the
target has it in that wave; phase ``before`` or ``after`` the wave's start. Counters are cumulative as Prometheus's are,
resets included: ``<check>_errors`` (or ``<check>_good``) and ``<check>_requests``. A gauge is its check's name.

A saved Prometheus answer is read by ``saved_answer``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from patching.errors import PatchingError

HEADER = ("time", "wave", "target", "role", "phase", "metric", "value")
ROLES, PHASES = ("canary", "control"), ("before", "after")


class RecordingUnreadable(PatchingError):
    """A file of recorded series cannot be read; says where and what is expected."""


@dataclass(frozen=True)
class Row:
    """One recorded value; ``at`` is epoch seconds, ``value`` None where nothing was there (NaN, empty).

    ``series`` tells counters apart that count the same for one target, such as those of two status codes.
    """

    at: float
    wave: int
    target: str
    role: str
    phase: str
    metric: str
    value: float | None
    series: str = ""


Points = tuple[tuple[float, float], ...]
Many = tuple[Points, ...]


@dataclass(frozen=True)
class Recording:
    """Everything recorded: wave → metric → phase → role → target → series of points (seconds, value), oldest first."""

    waves: Mapping[int, Mapping[str, Mapping[str, Mapping[str, Mapping[str, Mapping[str, Points]]]]]]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Waves in their order."""
        return tuple(sorted(self.waves))

    def metrics(self, wave: int) -> tuple[str, ...]:
        """Names of the metrics of a wave."""
        return tuple(sorted(self.waves.get(wave, {})))

    def series(self, wave: int, metric: str, role: str, phases: Sequence[str] = PHASES) -> dict[str, Many]:
        """Give the series by target, both phases as one, oldest point first; empty where there are none."""
        joined: dict[str, dict[str, dict[float, float]]] = {}
        for phase in phases:
            for target, many in self.waves.get(wave, {}).get(metric, {}).get(phase, {}).get(role, {}).items():
                for name, points in many.items():
                    joined.setdefault(target, {}).setdefault(name, {}).update(points)
        return {
            target: tuple(tuple(sorted(points.items())) for points in many.values()) for target, many in joined.items()
        }

    def span(self, wave: int, phase: str) -> tuple[float, float] | None:
        """Give the first and the last moment of a phase of a wave, over all its metrics; None without points."""
        moments = [
            at
            for metric in self.waves.get(wave, {}).values()
            for targets in metric.get(phase, {}).values()
            for many in targets.values()
            for points in many.values()
            for at, _ in points
        ]
        return (min(moments), max(moments)) if moments else None

    def hosts(self, wave: int, role: str) -> tuple[str, ...]:
        """Give every target that has the role in a wave, in any metric and phase."""
        found = {
            target
            for metric in self.waves.get(wave, {}).values()
            for phase in metric.values()
            for target in phase.get(role, {})
        }
        return tuple(sorted(found))


def recording(rows: Iterable[Row]) -> Recording:
    """Sort rows into a recording; a value that is no number leaves its target known, but without that point."""
    waves: dict[int, Any] = {}
    for row in rows:
        node: dict[Any, Any] = waves
        for key in (row.wave, row.metric, row.phase, row.role, row.target):
            node = node.setdefault(key, {})
        points = node.setdefault(row.series, [])
        if row.value is not None:
            points.append((row.at, row.value))
    return Recording(waves)


def csv_rows(text: str, name: str) -> Iterator[Row]:
    """Read the rows of a CSV file; columns may stand in any order, further ones are ignored."""
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
    missing = [column for column in HEADER if column not in (reader.fieldnames or ())]
    if missing:
        raise RecordingUnreadable(f"{name}:1: no column {', '.join(missing)}; the header must be {','.join(HEADER)}")
    for line in reader:
        yield _row(line, f"{name}:{reader.line_num}")


def _row(line: Mapping[str, str | None], place: str) -> Row:
    got = {column: (line.get(column) or "").strip() for column in HEADER}
    for column, allowed in (("role", ROLES), ("phase", PHASES)):
        if got[column] not in allowed:
            raise RecordingUnreadable(f'{place}: {column} is "{got[column]}"; it must be {" or ".join(allowed)}')
    for column in ("target", "metric"):
        if not got[column]:
            raise RecordingUnreadable(f"{place}: {column} is empty")
    return Row(
        at=moment(got["time"], place),
        wave=wave_number(got["wave"], place),
        target=got["target"],
        role=got["role"],
        phase=got["phase"],
        metric=got["metric"],
        value=number(got["value"], place),
    )


def moment(text: str, place: str) -> float:
    """Read an RFC 3339 time as epoch seconds; raises RecordingUnreadable."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecordingUnreadable(f'{place}: time "{text}" is not RFC 3339, such as 2026-03-01T12:00:00Z') from error
    if at.tzinfo is None:
        raise RecordingUnreadable(f'{place}: time "{text}" has no zone; add Z or an offset')
    return at.timestamp()


def wave_number(text: str, place: str) -> int:
    """Read a wave's number; raises RecordingUnreadable."""
    if not text.isdecimal() or int(text) < 1:
        raise RecordingUnreadable(f'{place}: wave "{text}" is no number from 1')
    return int(text)


def number(text: str, place: str) -> float | None:
    """Read a value, None for nothing, NaN and infinity; raises RecordingUnreadable for anything else."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise RecordingUnreadable(f'{place}: value "{text}" is no number') from error
    return value if math.isfinite(value) else None
