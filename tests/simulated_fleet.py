"""A simulated fleet of which a wave is changed: errors among requests, and gauges, host by host and look by look.

Hosts differ lastingly (log-normal, σ) and wander (AR(1) with ρ, stationary σ); all of them share slow shocks; errors
are Poisson. Two hosts of a wave are changed at once; while it changes a host serves nothing and has no gauge.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np

from patching.canary.blocks import Course
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.panel import Panel
from patching.canary.sides import Measurements
from patching.canary.weights import looks_of
from patching.policy import Check, Compare, PrometheusCheck

ALPHA = 0.05
BEFORE, AFTER, FIRST = 120, 60, 20
"""Looks before a wave, of its soak, and before the first evaluation; a look is a second here."""

CHANGE, TOGETHER = 15, 2
"""Looks that a change takes, and how many hosts are changed at once."""

LEVEL = 40.0
RULES = PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}")
GAUGE = PrometheusCheck(connection="p", query="g{$series}")
COMPARE = Compare(max_relative_increase="0%", alpha=ALPHA, min_requests=1)
ZERO = datetime(2026, 3, 1, tzinfo=UTC)

Random = np.random.Generator
Found = Measurements | LevelMeasurements


def at(look: float) -> datetime:
    return ZERO + timedelta(seconds=float(look))


def look_of(moment: datetime) -> int:
    return round((moment - ZERO).total_seconds())


@dataclass(frozen=True)
class Wave:
    """Hosts that a wave changes, and those that it leaves alone; ``rows`` are the indices of its hosts."""

    rows: range
    hosts: int

    def spans(self) -> list[tuple[int, int, int]]:
        """Give each host's row and the looks in which its change begins and ends."""
        began = [BEFORE + 1 + place // TOGETHER * CHANGE for place in range(len(self.rows))]
        return [(row, start, start + CHANGE) for row, start in zip(self.rows, began, strict=True)]

    @property
    def until(self) -> int:
        """Look at which the last change has ended and the soak begins."""
        return self.spans()[-1][2]

    def courses(self) -> tuple[list[Course], list[Course]]:
        """Give the courses of its hosts and of the rest."""
        mine = [Course(f"h{row}", began=at(start), ended=at(end), applied=True) for row, start, end in self.spans()]
        return mine, [Course(f"h{row}") for row in range(self.rows.stop, self.hosts)]


@dataclass(frozen=True)
class World:
    """One cell of the grid: ``errors`` is the mean number a host and scrape; ``factor`` what the patch does to it.

    ``metrics`` are counters, ``gauges`` come on top of them.
    """

    rho: float = 0.8
    sigma: float = 0.2
    canaries: int = 1
    metrics: int = 1
    gauges: int = 0
    hosts: int = 12
    errors: float = 2.0
    requests: float = 100.0
    shock: float = 0.05
    factor: float = 1.0

    def waves(self) -> list[Wave]:
        """Give its three waves: canary, half, rest; the last has no control."""
        half = max(self.canaries + 1, self.hosts // 2)
        ends = [0, self.canaries, half, self.hosts]
        return [Wave(range(first, last), self.hosts) for first, last in itertools.pairwise(ends)]

    def checks(self) -> tuple[Check, ...]:
        """Give its metrics, which tolerate no increase, the hardest case."""
        return _checks(self.metrics, self.gauges)

    def looks(self) -> int:
        """Give the number of shares of its bound, as the plan does."""
        return looks_of(self.checks(), [len(wave.rows) for wave in self.waves()], watched=False)


@cache
def _checks(metrics: int, gauges: int) -> tuple[Check, ...]:
    counters = [Check(name=f"m{index}", prometheus=RULES, compare=COMPARE) for index in range(metrics)]
    return *counters, *(Check(name=f"g{index}", prometheus=GAUGE, compare=COMPARE) for index in range(gauges))


def wandering(random: Random, rows: int, looks: int, rho: float, sigma: float) -> np.ndarray:
    """Draw stationary AR(1) series."""
    series = random.normal(size=(rows, looks)) * sigma * (1 - rho**2) ** 0.5
    series[:, 0] = random.normal(size=rows) * sigma
    step = 1
    while step < looks and rho**step > 1e-12:
        # Sums of rho^k · noise over twice as many looks each time: the recursion without a loop over looks.
        series[:, step:] += rho**step * series[:, :-step].copy()
        step *= 2
    return series


def moved(random: Random, world: World, lasting: np.ndarray, wave: Wave) -> np.ndarray:
    """Draw by which factor each host's rate or level is away from the mean, from before the wave to its soak's end."""
    looks = wave.until + AFTER
    logs = wandering(random, world.hosts, looks, world.rho, world.sigma) + lasting[:, None]
    found = np.exp(logs + wandering(random, 1, looks, 0.9, world.shock))
    for row, _, end in wave.spans():
        found[row, end:] *= world.factor
    return found


def fleet(random: Random, world: World, lasting: np.ndarray, wave: Wave) -> Panel:
    """Draw errors and requests of all hosts."""
    rate = world.errors * moved(random, world, lasting, wave)
    requests = random.poisson(world.requests, size=rate.shape).astype(float)
    for row, start, end in wave.spans():
        rate[row, start:end] = requests[row, start:end] = 0
    ends = ZERO.timestamp() + np.arange(1.0, rate.shape[1] + 1)
    names = tuple(f"h{row}" for row in range(world.hosts))
    return Panel(names, ZERO.timestamp(), ends, random.poisson(rate).astype(float), requests)


def gauges(random: Random, world: World, lasting: np.ndarray, wave: Wave) -> Levels:
    """Draw the levels of a gauge of all hosts."""
    values = LEVEL * moved(random, world, lasting, wave)
    for row, start, end in wave.spans():
        values[row, start:end] = np.nan
    ends = ZERO.timestamp() + np.arange(1.0, values.shape[1] + 1)
    return Levels(tuple(f"h{row}" for row in range(world.hosts)), ends, values)


def cut(drawn: Panel | Levels, start: int, end: int, treated: list[int], control: list[int]) -> Found:
    """Arrange the looks from ``start`` to before ``end`` as the judge sees them, beside the time before the wave."""
    spans = [(looks, rows) for looks in (slice(start, end), slice(0, BEFORE)) for rows in (treated, control)]
    if isinstance(drawn, Panel):
        return Measurements(*(_panel(drawn, looks, rows) for looks, rows in spans), first=FIRST)
    return LevelMeasurements(*(_levels(drawn, looks, rows) for looks, rows in spans), first=FIRST)


def soak(drawn: Panel | Levels, wave: Wave) -> Found:
    """Arrange the soak of a wave."""
    return cut(drawn, wave.until, wave.until + AFTER, list(wave.rows), list(range(wave.rows.stop, wave.hosts)))


def _panel(panel: Panel, looks: slice, rows: list[int]) -> Panel:
    start = panel.start + looks.start
    names = tuple(panel.targets[row] for row in rows)
    return Panel(names, start, panel.ends[looks], panel.errors[rows, looks], panel.requests[rows, looks])


def _levels(levels: Levels, looks: slice, rows: list[int]) -> Levels:
    return Levels(tuple(levels.targets[row] for row in rows), levels.ends[looks], levels.values[rows, looks])
