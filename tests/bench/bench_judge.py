"""Judging 50 metrics × 1,000 hosts × 1 h of 15 s samples: python -m bench.bench_judge.

Raw cumulative counters in, verdicts out. The target: below 2 s and 500 MB. Beside it plain NumPy, and SciPy where it is
installed, computing the same kind of numbers once: increases, sums by side and look, and one test a metric.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from patching.canary.comparison import judge_counts
from patching.canary.panel import Panel, panel_from_counters
from patching.canary.sides import Measurements
from patching.policy import Check, Compare, PrometheusCheck

METRICS, HOSTS, CANARIES, SCRAPES = 50, 1_000, 50, 240
BEFORE = 120
SECONDS, MEGABYTES = 2.0, 500

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


def with_scipy(metrics: list[Counters]) -> list[float]:
    """The same increases, and SciPy's Mann-Whitney over the hosts' shares, once a metric."""
    from scipy.stats import mannwhitneyu

    said = []
    for errors, requests in metrics:
        failed, asked = np.diff(errors.astype(float), axis=1), np.diff(requests.astype(float), axis=1)
        share = failed[:, BEFORE:].sum(axis=1) / asked[:, BEFORE:].sum(axis=1)
        said.append(float(mannwhitneyu(share[:CANARIES], share[CANARIES:], alternative="greater").pvalue))
    return said


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
    try:
        scipy = timed(with_scipy, metrics)
    except ImportError:
        print("SciPy is not installed")
    else:
        print(f"SciPy's ranks {scipy:6.2f} CPU-s; the judge costs {ours / scipy:.1f} x")
    return 0 if ours < SECONDS and memory < MEGABYTES else 1


if __name__ == "__main__":
    sys.exit(main())
