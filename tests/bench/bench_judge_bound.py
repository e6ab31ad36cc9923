"""False alarms and power of whole rollouts, peeked at every scrape: python -m bench.bench_judge_bound.

The same rollouts are judged by ours, by a z-test at every scrape, and by Kayenta's rule at the end of each wave. Ours
spends one alpha on counters, gauges, the gauges' look at ranks, and the guard of each wave while it is applied.
Target: in every cell without a change the exact upper 95 % limit of our false alarms is at most alpha, and the mean
evidence at stopping at most 1 (within three standard errors; where the tails are heaviest, with ten times as many
rollouts, without that allowance). PATCHING_BENCH_ROLLOUTS sets the rollouts a cell, and
PATCHING_BENCH_MINUTES ends the bench early: cells that had not begun by then are named and not judged.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from math import exp, log
from statistics import NormalDist
from typing import TypeVar

import numpy as np

from simulated_fleet import ALPHA, World
from simulated_rollouts import JUDGES, OURS, Run, rollout, rollouts, upper_limit

ROLLOUTS = int(os.environ.get("PATCHING_BENCH_ROLLOUTS", "2000"))
MINUTES = float(os.environ.get("PATCHING_BENCH_MINUTES", "inf"))

GRID = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=metrics, hosts=24 if canaries == 10 else 12)
    for metrics, rho, sigma, canaries in itertools.product((1, 5), (0.0, 0.8), (0.2, 0.4), (1, 3, 10))
]
SPARSE = [World(errors=errors, canaries=canaries) for errors, canaries in itertools.product((0.2, 0.02), (1, 3))]
# Two counters and three gauges; with 24 hosts ranks are looked at.
MIXED = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=2, gauges=3, hosts=12 if canaries == 1 else 24)
    for rho, sigma, canaries in itertools.product((0.0, 0.8), (0.2, 0.4), (1, 3, 10))
]
GAUGE = [World(metrics=0, gauges=1, sigma=sigma, canaries=3, hosts=24) for sigma in (0.2, 0.4)]
# The cells with the fewest rollouts first, so that a bench that is ended early has the most of them.
QUIET = [*MIXED, *GAUGE, *SPARSE, *reversed(GRID)]

HEAVY = [World(sigma=0.4, canaries=1), World(sigma=0.4, canaries=3)]
LONG_RUNS = 10

Item = TypeVar("Item")
Found = dict[str, float]


def slower(part: float, times: float, sigma: float = 0.7, slow: float = 0.01) -> float:
    """Give by which factor slow answers grow where ``part`` of all answers take ``times`` as long.

    Latency is log-normal, and an answer is slow beyond the p99 of before; the median moves by a hundredth at most.
    """
    limit = NormalDist().inv_cdf(1 - slow)
    return ((1 - part) * slow + part * (1 - NormalDist().cdf(limit - log(times) / sigma))) / slow


def p99(part: float, times: float, sigma: float = 0.7) -> tuple[float, float]:
    """Give the factors by which median and p99 of these answers grow."""
    usual = NormalDist()

    def quantile(share: float) -> float:
        low, high = -10.0, 10.0
        for _ in range(60):
            z = (low + high) / 2
            below = (1 - part) * usual.cdf(z) + part * usual.cdf(z - log(times) / sigma)
            low, high = (z, high) if below < share else (low, z)
        return exp(sigma * (low - usual.inv_cdf(share)))

    return quantile(0.5), quantile(0.99)


HARM = [
    ("errors", World(factor=2.0)),
    ("errors", World(factor=3.0)),
    ("errors", World(factor=2.0, canaries=3)),
    ("errors", World(factor=2.0, sigma=0.4)),
    ("errors", World(factor=3.0, errors=0.2)),
    ("errors", World(factor=8.0, errors=0.02)),
    ("latency", World(factor=slower(0.02, 10), errors=1.0)),
    ("latency", World(factor=slower(0.02, 10), errors=1.0, canaries=3)),
    ("gauge", World(metrics=0, gauges=1, factor=1.5)),
    ("gauge", World(metrics=0, gauges=1, factor=2.0)),
    ("gauge", World(metrics=0, gauges=1, factor=1.3, canaries=3, hosts=24)),
    ("gauge", World(metrics=0, gauges=1, factor=1.5, canaries=3, hosts=24)),
]


def cell(job: tuple[World, float]) -> Found | None:
    """Run one cell by all three judges on the same data; None where the time was over before it began."""
    world, end = job
    if time.time() > end:
        return None
    runs = [rollouts(np.random.default_rng([7, seed]), world, JUDGES) for seed in range(ROLLOUTS)]
    found: Found = {}
    for name in JUDGES:
        found[name] = sum(run[name].alarm for run in runs)
        found[f"{name} canary"] = sum(run[name].alarm and run[name].wave == 1 for run in runs)
    return found | stopping([run[OURS] for run in runs])


def long_cell(world: World) -> Found:
    """Run one cell many times by our judge alone."""
    runs = [rollout(np.random.default_rng([8, seed]), world) for seed in range(LONG_RUNS * ROLLOUTS)]
    return {OURS: float(sum(run.alarm for run in runs)), **stopping(runs)}


def stopping(runs: list[Run]) -> Found:
    """Give the mean evidence at stopping with its standard error, rollouts being what is independent, and the kinds."""
    sums = np.array([sum(run.stopped) for run in runs])
    numbers = np.array([len(run.stopped) for run in runs], dtype=float)
    mean = sums.sum() / numbers.sum()
    error = float((sums - mean * numbers).std() / len(runs) ** 0.5 / numbers.mean())
    kinds = {kind: float(sum(run.by == kind for run in runs)) for kind in ("counts", "gauge", "ranks", "guard")}
    return {"evidence": float(mean), "error": error, **kinds}


def power(what: str, world: World, found: Found) -> str:
    """Write one row of the table of harm."""
    shown = "  ".join(f"{found[f'{name} canary'] / ROLLOUTS:5.0%} ({found[name] / ROLLOUTS:5.0%})" for name in JUDGES)
    errors = f"{world.errors:6.2f}" if world.metrics else "     -"
    return f"{what:7s} {world.factor:6.2f} {world.sigma:5.1f} {world.canaries:8d} {world.hosts:5d} {errors} | {shown}"


def in_vain(world: World, found: Found) -> tuple[str, bool]:
    """Write one row of the table without harm, and say whether the target is met in it."""
    limit = upper_limit(int(found[OURS]), ROLLOUTS)
    good = limit <= ALPHA and found["evidence"] <= 1 + 3 * found["error"]
    kinds = "/".join(f"{found[kind]:.0f}" for kind in ("counts", "gauge", "ranks", "guard"))
    row = (
        f"{world.rho:3.1f} {world.sigma:5.1f} {world.canaries:8d} {world.metrics:8d} {world.gauges:6d} "
        f"{world.errors:6.2f} | {found[OURS] / ROLLOUTS:5.1%} {limit:5.1%} {kinds:>9s} "
        f"{found['evidence']:5.2f} ± {found['error']:4.2f} | "
        f"{found['z'] / ROLLOUTS:6.1%} {found['kayenta'] / ROLLOUTS:8.1%}{'' if good else '  missed'}"
    )
    return row, good


def done(
    pool: ProcessPoolExecutor, items: list[Item], world: Callable[[Item], World], end: float
) -> Iterator[tuple[Item, Found]]:
    """Run cells in their order, and name at the end how many there was no time for."""
    left = 0
    for item, found in zip(items, pool.map(cell, [(world(item), end) for item in items]), strict=True):
        if found is None:
            left += 1
        else:
            yield item, found
    if left:
        print(f"not run, for want of time: the last {left} of {len(items)} cells")


def main() -> int:
    """Print the tables; 1 if the target is missed."""
    good, end = True, time.time() + 60 * MINUTES
    with ProcessPoolExecutor(2) as pool:
        print(f"{ROLLOUTS:,} rollouts a cell, alpha {ALPHA:.0%}, no tolerated increase, three waves and their guards")
        median, tail = p99(0.02, 10)
        print("\nthe patch multiplies errors, slow answers or a gauge: caught on the canary (in the whole rollout)")
        print(f"latency: every fiftieth answer takes ten times as long: median × {median:.2f}, p99 × {tail:.2f}")
        print("what    factor sigma canaries hosts errors | ours           z-test         Kayenta's rule")
        for (what, world), found in done(pool, HARM, lambda row: row[1], end):
            print(power(what, world, found), flush=True)
        print(f"\nnothing changed, where tails are heaviest: {LONG_RUNS * ROLLOUTS:,} rollouts by ours alone")
        for world, found in zip(HEAVY, pool.map(long_cell, HEAVY), strict=True):
            limit = upper_limit(int(found[OURS]), LONG_RUNS * ROLLOUTS)
            good = good and limit <= ALPHA and found["evidence"] <= 1
            print(
                f"rho {world.rho}, sigma {world.sigma}, {world.canaries} of {world.hosts}: stopped {found[OURS]:.0f} "
                f"(limit {limit:.2%}), mean E {found['evidence']:.2f} ± {found['error']:.2f}",
                flush=True,
            )
        print("\nnothing changed: rollouts stopped in vain; limit: exact upper 95 % limit of ours")
        print("by: stopped by counts / gauges / ranks / the guard; mean E of all evidence at stopping")
        print(
            "rho sigma canaries counters gauges errors | ours  limit        by  mean E (s.e.) | z-test  Kayenta's rule"
        )
        for world, found in done(pool, QUIET, lambda world: world, end):
            row, met = in_vain(world, found)
            good = good and met
            print(row, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
