"""Whole rollouts of a simulated fleet, peeked at every scrape: what the judge's bound promises, put to the test.

Hosts differ lastingly (log-normal, σ) and wander (AR(1) with ρ, stationary σ); all of them share slow shocks; errors
are Poisson. A rollout has three waves, canary, half, rest; the last has no control and is compared with its own past.
It tolerates no increase, the hardest case, and shares one alpha over waves and metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log

import numpy as np

from patching.canary.counts import beside_control, past_course
from patching.canary.panel import Panel
from patching.canary.sides import Measurements
from patching.canary.weights import share_of
from patching.policy import Check, Compare, PrometheusCheck

ALPHA = 0.05
BEFORE, AFTER, FIRST = 120, 60, 20
RULES = PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}")

Random = np.random.Generator


@dataclass(frozen=True)
class World:
    """One cell of the grid: ``errors`` is the mean number a host and scrape; ``factor`` what the patch does to it."""

    rho: float = 0.8
    sigma: float = 0.2
    canaries: int = 1
    metrics: int = 1
    hosts: int = 12
    errors: float = 2.0
    requests: float = 100.0
    shock: float = 0.05
    factor: float = 1.0

    def waves(self) -> list[tuple[slice, slice]]:
        """Give treated and control hosts of each wave."""
        half = max(self.canaries + 1, self.hosts // 2)
        ends = [(0, self.canaries), (self.canaries, half), (half, self.hosts)]
        return [(slice(first, last), slice(last, self.hosts)) for first, last in ends]


def wandering(random: Random, rows: int, looks: int, rho: float, sigma: float) -> np.ndarray:
    """Draw stationary AR(1) series."""
    noise = random.normal(size=(rows, looks)) * sigma * (1 - rho**2) ** 0.5
    series = noise
    series[:, 0] = random.normal(size=rows) * sigma
    step = 1
    while step < looks:
        # Sums of rho^k · noise over twice as many looks each time: the recursion without a loop over looks.
        series[:, step:] += rho**step * series[:, :-step].copy()
        step *= 2
    return series


def fleet(random: Random, world: World, lasting: np.ndarray, treated: slice) -> tuple[np.ndarray, np.ndarray]:
    """Draw errors and requests of all hosts before and after one wave, (hosts, looks)."""
    looks = BEFORE + AFTER
    logs = lasting[:, None] + wandering(random, world.hosts, looks, world.rho, world.sigma)
    logs = logs + wandering(random, 1, looks, 0.9, world.shock)
    rate = world.errors * np.exp(logs)
    rate[treated, BEFORE:] *= world.factor
    requests = random.poisson(world.requests, size=rate.shape).astype(float)
    return random.poisson(rate).astype(float), requests


def measured(errors: np.ndarray, requests: np.ndarray, treated: slice, control: slice) -> Measurements:
    """Arrange one wave as the judge sees it."""
    names = tuple(f"h{index}" for index in range(len(errors)))

    def panel(rows: slice, first: int, last: int) -> Panel:
        ends = np.arange(first + 1, last + 1, dtype=float)
        return Panel(names[rows], float(first), ends, errors[rows, first:last], requests[rows, first:last])

    both = [
        panel(rows, first, last)
        for first, last in ((BEFORE, BEFORE + AFTER), (0, BEFORE))
        for rows in (treated, control)
    ]
    return Measurements(*both, first=FIRST)


@dataclass(frozen=True)
class Run:
    """How one rollout went: whether it was stopped in vain, in which wave, and the evidence at stopping."""

    alarm: bool
    wave: int
    look: int
    stopped_at: float
    checks: int


Judge = Callable[[Measurements, Compare, float], np.ndarray]
"""Give the evidence at each look; 1/level is an alarm."""


def sequential(found: Measurements, compare: Compare, level: float) -> np.ndarray:
    """Our judge: beside the control, or against the past where there is no fair control."""
    pair = beside_control(found, compare, level)
    return past_course(found, compare, level).evidence if isinstance(pair, str) else pair.evidence()


def naive(found: Measurements, _compare: Compare, level: float) -> np.ndarray:
    """A z-test of two shares at every look; its "evidence" is 1/p."""
    (failed, asked), (others, rest) = found.canary.cumulative(), _reference(found)
    pooled = (failed + others) / (asked + rest)
    error = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / asked + 1 / rest), 1e-300))
    z = (failed / asked - others / rest) / error
    return 1 / np.maximum([_upper(value) for value in z[FIRST - 1 :]], 1e-300)


def kayenta(found: Measurements, _compare: Compare, level: float) -> np.ndarray:
    """Kayenta's rule once, at the end, over the points of the groups' series."""
    treated = np.nansum(found.canary.errors, axis=0) / np.nansum(found.canary.requests, axis=0)
    other = found.control if found.control.targets else found.before
    points = (np.nansum(other.errors, axis=0) / np.nansum(other.requests, axis=0))[-AFTER:]
    evidence = np.ones(AFTER - FIRST + 1)
    evidence[-1] = 2 / level if kayenta_high(treated, points) else 1.0
    return evidence


def kayenta_high(treated: np.ndarray, points: np.ndarray) -> bool:
    """Classify as Kayenta does: Mann-Whitney's 98 % interval, a quarter of the Hodges-Lehmann shift as tolerance.

    High where the lower limit of the shift exceeds a quarter of the shift.
    """
    differences = np.sort(np.subtract.outer(treated, points).ravel())
    m, n = len(treated), len(points)
    middle = float(np.median(differences))
    reach = 2.326 * (m * n * (m + n + 1) / 12) ** 0.5
    lower = float(differences[max(0, int(m * n / 2 - reach))])
    return bool(middle > 0 and lower > 0.25 * middle)


def _reference(found: Measurements) -> tuple[np.ndarray, np.ndarray]:
    if found.control.targets:
        return found.control.cumulative()
    failed, asked = found.before.totals()
    return np.full(AFTER, failed), np.full(AFTER, asked)


def _upper(z: float) -> float:
    from math import erfc

    return 0.5 * erfc(z / 2**0.5)


def rollout(random: Random, world: World, judge: Judge = sequential) -> Run:
    """Run one rollout until the first alarm or its end."""
    compare = Compare(max_relative_increase="0%", alpha=ALPHA, min_requests=1)
    checks = [Check(name=f"m{index}", prometheus=RULES, compare=compare) for index in range(world.metrics)]
    stopped: list[float] = []
    lasting = random.normal(size=(world.metrics, world.hosts)) * world.sigma
    for wave, (treated, control) in enumerate(world.waves(), 1):
        courses = []
        for metric, check in enumerate(checks):
            level = ALPHA * share_of(check, checks, 3)
            found = measured(*fleet(random, world, lasting[metric], treated), treated, control)
            courses.append(judge(found, compare, level) * level)
        worst = np.max(courses, axis=0)
        at = np.flatnonzero(worst >= 1)
        stop = int(at[0]) if len(at) else -1
        stopped += [float(course[stop]) / (ALPHA * share_of(checks[0], checks, 3)) for course in courses]
        if len(at):
            return Run(True, wave, FIRST + stop, float(np.mean(stopped)), len(stopped))
    return Run(False, 3, AFTER, float(np.mean(stopped)), len(stopped))


def upper_limit(alarms: int, runs: int, confidence: float = 0.95) -> float:
    """Give the exact one-sided upper limit of a rate (Clopper and Pearson, 1934), by bisection on the binomial."""
    if alarms >= runs:
        return 1.0
    low, high = alarms / runs, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        at_most = sum(
            np.exp(
                lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1) + k * log(middle) + (runs - k) * log(1 - middle)
            )
            for k in range(alarms + 1)
        )
        low, high = (middle, high) if at_most > 1 - confidence else (low, middle)
    return high
