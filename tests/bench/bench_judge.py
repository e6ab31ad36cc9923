"""Judging 50 metrics × 1,000 hosts × 1 h of 15 s samples: python -m bench.bench_judge.

Raw cumulative counters in, verdicts out. The target: below 2 s and 500 MB. The baseline is the same statistic once: the
beta-binomial E of the whole side and of each canary, at the last look, by NumPy and scipy.stats.betabinom. The judge
computes it at every look, and σ, limits, ranges of data and a sentence besides.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from math import log

import numpy as np

from patching.canary.comparison import judge_counts
from patching.canary.counts import tolerance
from patching.canary.eprocess import EFFECTS, RESTLESS, RESTLESS_VARIANCE, Sides, count_evidence
from patching.canary.panel import Panel, panel_from_counters
from patching.canary.sides import Measurements
from patching.policy import Check, Compare, PrometheusCheck

METRICS, HOSTS, CANARIES, SCRAPES = 50, 1_000, 50, 240
BEFORE = 120
SECONDS, MEGABYTES, SAME = 2.0, 500, 1e-6
TOLERATED = 1 + tolerance(Compare())

Counters = tuple[np.ndarray, np.ndarray]


def recorded(random: np.random.Generator) -> list[Counters]:
    """Make an hour of cumulative counters for every metric; float32, as much memory as raw samples need."""
    found = []
    for _ in range(METRICS):
        requests = np.cumsum(random.poisson(60, size=(HOSTS, SCRAPES + 1)), axis=1, dtype=np.float32)
        errors = np.cumsum(random.poisson(0.6, size=(HOSTS, SCRAPES + 1)), axis=1, dtype=np.float32)
        found.append((errors, requests))
    return found


def judged(metrics: list[Counters]) -> list[str]:
    """Judge every metric at every look of the second half hour, with the first one as the time before."""
    names = [f"h{index}" for index in range(HOSTS)]
    rules = PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}")
    check = Check(name="m", prometheus=rules, compare=Compare())
    times = np.arange(SCRAPES + 1) * 15.0
    said = []
    for errors, requests in metrics:
        whole = panel_from_counters(names, times, errors.astype(float), requests.astype(float))
        before, after = whole.slice(0, BEFORE), whole.slice(BEFORE, SCRAPES)
        measured = Measurements(*_sides(after), *_sides(before))
        said.append(judge_counts(check, measured, 1 / (3 * METRICS)).verdict.value)
    return said


def _sides(panel: Panel) -> tuple[Panel, Panel]:
    return tuple(  # type: ignore[return-value]
        Panel(panel.targets[rows], panel.start, panel.ends, panel.errors[rows], panel.requests[rows])
        for rows in (slice(0, CANARIES), slice(CANARIES, None))
    )


def plain(metrics: list[Counters]) -> list[float]:
    """The same increases and sums, and one z-test a metric at its end: NumPy and nothing else."""
    said = []
    for errors, requests in metrics:
        failed, asked = np.diff(errors.astype(float), axis=1), np.diff(requests.astype(float), axis=1)
        (c, x), (d, y) = (
            (failed[rows, BEFORE:].sum(axis=0).cumsum(), asked[rows, BEFORE:].sum(axis=0).cumsum())
            for rows in (slice(0, CANARIES), slice(CANARIES, None))
        )
        pooled = (c + d) / (x + y)
        z = (c / x - d / y) / np.sqrt(pooled * (1 - pooled) * (1 / x + 1 / y))
        said.append(float(z[-1]))
    return said


def same_once(metrics: list[Counters]) -> list[float]:
    """The same increases, r from before and E as the judge bets it, once a metric at its end, by SciPy."""
    found = []
    for treated, exposure, other, rest, ratio in map(last_sums, metrics):
        whole = once(treated.sum(), exposure.sum() * ratio / rest, other, host_variance(CANARIES))
        single = once(treated, exposure * ratio / rest, other, host_variance(1)).mean()
        found.append(float((whole + single) / 2))
    return found


def last_sums(metric: Counters) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    """Give errors and requests of each canary, those of the control together, and r from the time before."""
    failed, asked = (np.diff(one.astype(float), axis=1) for one in metric)
    errors, requests = failed[:, BEFORE:].sum(axis=1), asked[:, BEFORE:].sum(axis=1)
    past = [part[rows, :BEFORE].sum() for part in (failed, asked) for rows in (slice(CANARIES), slice(CANARIES, None))]
    ratio = (past[0] / past[2]) / (past[1] / past[3])
    return errors[:CANARIES], requests[:CANARIES], errors[CANARIES:].sum(), requests[CANARIES:].sum(), ratio


def once(treated: np.ndarray, odds: np.ndarray, other: float, variance: float) -> np.ndarray:
    """Give E by its definition: the mean of ratios of beta-binomial masses (``canary.eprocess`` says it)."""
    from scipy.stats import betabinom

    base = odds * TOLERATED
    share = base / (1 + base)
    usual = 1 / (share * (1 - share) * variance)
    mass = []
    for bet in (base * np.exp(effect) for effect in (0.0, *EFFECTS)):
        parts = [
            log(part) + betabinom.logpmf(treated, treated + other, nu * bet / (1 + bet), nu / (1 + bet))
            for part, nu in ((1 - RESTLESS, usual - 1), (RESTLESS, usual / RESTLESS_VARIANCE - 1))
        ]
        mass.append(np.logaddexp(*parts))
    return np.exp(np.array(mass[1:]) - mass[0]).mean(axis=0)


def host_variance(canaries: int) -> float:
    """Give v of hosts that vary by σ = 0.2."""
    return 0.2**2 * (1 / canaries + 1 / (HOSTS - CANARIES))


def furthest(metrics: list[Counters]) -> float:
    """Give the largest relative difference of both ways to compute the same E: they must be the same statistic."""
    worst = 0.0
    for treated, exposure, other, rest, ratio in map(last_sums, metrics):
        variance = host_variance(CANARIES)
        ours = float(count_evidence(Sides(treated.sum(), exposure.sum(), other, rest, ratio, variance), log(TOLERATED)))
        theirs = float(once(treated.sum(), exposure.sum() * ratio / rest, other, variance))
        worst = max(worst, abs(ours / theirs - 1))
    return worst


def timed(work: Callable[[list[Counters]], object], metrics: list[Counters]) -> float:
    """Give the best of three runs, in CPU seconds."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        work(metrics)
        best = min(best, time.process_time() - start)
    return best


def main() -> int:
    """Print what was measured; 1 if the target is missed."""
    metrics = recorded(np.random.default_rng(1))
    ours, floor = timed(judged, metrics), timed(plain, metrics)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{METRICS} metrics x {HOSTS} hosts x {SCRAPES} samples, {CANARIES} canaries")
    print(f"judge         {ours:6.2f} CPU-s, {memory:.0f} MB with the data (targets: {SECONDS:g} s, {MEGABYTES} MB)")
    print(f"plain NumPy   {floor:6.2f} CPU-s; the judge costs {ours / floor:.1f} x")
    scipy, apart = timed(same_once, metrics), furthest(metrics)
    print(
        f"same E once  {scipy:6.2f} CPU-s by SciPy; the judge, at {SCRAPES - BEFORE} looks, costs {ours / scipy:.1f} x"
    )
    print(f"largest relative difference of both E {apart:.1e} (target: {SAME:g})")
    return 0 if ours < SECONDS and memory < MEGABYTES and apart < SAME else 1


if __name__ == "__main__":
    sys.exit(main())
