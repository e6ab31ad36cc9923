"""Panels: hosts × looks as arrays, from samples or from raw cumulative counters; the host is the unit; pure.

NaN is "no data" and never zero. What a host counted in a look is in ``errors`` and ``requests``; a look in which a host
has no data leaves that host out of both, so that numerator and denominator always come from the same scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from patching.canary.loggamma import Floats
from patching.sources.base import Sample


@dataclass(frozen=True)
class Panel:
    """Counted in each look: ``errors`` and ``requests`` are (targets, looks).

    ``start`` is where the first look begins, ``ends`` where each ends, in epoch seconds.
    """

    targets: tuple[str, ...]
    start: float
    ends: Floats
    errors: Floats
    requests: Floats

    @property
    def looks(self) -> int:
        """Number of looks."""
        return len(self.ends)

    @property
    def seconds(self) -> float:
        """Length of the whole span, never 0."""
        return max(float(self.ends[-1]) - self.start, 1e-9) if self.looks else 1e-9

    def of(self, names: Iterable[str]) -> Panel:
        """Give the rows of some targets, in the panel's order."""
        wanted = set(names)
        if wanted.issuperset(self.targets):
            return self
        rows = [index for index, name in enumerate(self.targets) if name in wanted]
        names = tuple(self.targets[row] for row in rows)
        return Panel(names, self.start, self.ends, self.errors[rows], self.requests[rows])

    def slice(self, first: int, last: int) -> Panel:
        """Give the looks from ``first`` to before ``last``."""
        start = self.start if first == 0 else float(self.ends[first - 1])
        looks = slice(first, last)
        return Panel(self.targets, start, self.ends[looks], self.errors[:, looks], self.requests[:, looks])

    @cached_property
    def _counted(self) -> tuple[Floats, Floats]:
        """Errors and requests with zeros where there are no data, for summing."""
        known = np.isfinite(self.requests)
        if known.all() and np.isfinite(self.errors).all():
            return self.errors, self.requests
        return np.where(known, np.nan_to_num(self.errors), 0.0), np.where(known, self.requests, 0.0)

    def with_data(self) -> Panel:
        """Give the rows that have any request."""
        alive = np.flatnonzero(np.any(self._counted[1] > 0, axis=1))
        return self if len(alive) == len(self.targets) else self.of(self.targets[row] for row in alive)

    def totals(self) -> tuple[float, float]:
        """Sum errors and requests of all targets over all looks."""
        failed, asked = self._counted
        return float(failed.sum()), float(asked.sum())

    def by_target(self) -> tuple[Floats, Floats]:
        """Sum errors and requests over the looks, a value a target."""
        failed, asked = self._counted
        return failed.sum(axis=1), asked.sum(axis=1)

    def cumulative(self) -> tuple[Floats, Floats]:
        """Sum errors and requests over targets and over time up to the end of each look."""
        failed, asked = self._counted
        return np.cumsum(failed.sum(axis=0)), np.cumsum(asked.sum(axis=0))

    def each_cumulative(self) -> tuple[Floats, Floats]:
        """Sum errors and requests of each target over time, (targets, looks)."""
        failed, asked = self._counted
        return np.cumsum(failed, axis=1), np.cumsum(asked, axis=1)

    def windows(self, length: int) -> Panel:
        """Join every ``length`` looks into one, from the newest backwards; what is left over is dropped."""
        number = self.looks // max(length, 1)
        if length <= 1:
            return self
        first = self.looks - number * length
        shape = (len(self.targets), number, length)
        known = np.isfinite(self.requests[:, first:])
        failed = np.where(known, np.nan_to_num(self.errors[:, first:]), 0.0).reshape(shape).sum(axis=2)
        asked = np.where(known, self.requests[:, first:], 0.0).reshape(shape).sum(axis=2)
        asked = np.where(known.reshape(shape).any(axis=2), asked, np.nan)
        start = self.start if first == 0 else float(self.ends[first - 1])
        return Panel(self.targets, start, self.ends[first + length - 1 :: length], failed, asked)


def panel_of(samples: Sequence[Sample]) -> Panel:
    """Arrange samples, one a target and look; looks are told apart by their ends, as an own grid or one for all."""
    ends = sorted({sample.end.timestamp() for sample in samples})
    names = sorted({sample.target for sample in samples})
    column = {end: index for index, end in enumerate(ends)}
    row = {name: index for index, name in enumerate(names)}
    errors = np.full((len(names), len(ends)), np.nan)
    requests = np.full((len(names), len(ends)), np.nan)
    for sample in samples:
        if sample.requests is not None:
            place = (row[sample.target], column[sample.end.timestamp()])
            errors[place], requests[place] = sample.errors or 0.0, sample.requests
    start = min((sample.start.timestamp() for sample in samples), default=0.0)
    return Panel(tuple(names), start, np.array(ends, dtype=np.float64), errors, requests)


def counted(values: Floats) -> Floats:
    """Turn cumulative counters, (…, times), into what was counted at each time after the first.

    A value that falls is a restart and counts from zero. A gap (NaN) gives NaN, and the first value after it counts
    everything since the last one before it.
    """
    known = np.isfinite(values)
    if known.all():
        steps = np.diff(values, axis=-1)
        fallen = steps < 0
        if fallen.any():
            steps[fallen] = values[..., 1:][fallen]
        return steps
    index = np.where(known, np.arange(values.shape[-1]), 0)
    last = np.maximum.accumulate(index, axis=-1)
    filled = np.take_along_axis(values, last, axis=-1)
    steps = np.diff(filled, axis=-1)
    steps = np.where(steps < 0, filled[..., 1:], steps)
    return np.where(known[..., 1:], steps, np.nan)


def panel_from_counters(targets: Sequence[str], times: Any, errors: Floats, requests: Floats) -> Panel:
    """Make a panel from cumulative counters scraped at the same ``times``: arrays (targets, times).

    A target whose error counter does not exist yet (all NaN) while its requests move has no errors, not no data.
    """
    asked, failed = counted(requests), counted(errors)
    absent = ~np.isfinite(errors)
    if absent.any():
        born = np.isfinite(errors[:, 1:]) & (np.cumsum(np.isfinite(errors), axis=1)[:, :-1] == 0)
        failed = np.where(born, errors[:, 1:], np.nan_to_num(failed))
    moments = np.asarray(times, dtype=np.float64)
    return Panel(tuple(targets), float(moments[0]), moments[1:], failed, asked)
