"""False alarms and power of the guard while waves are applied: python -m bench.bench_judge_guard.

Rollouts of 24 hosts, two changed at once, judged block by block. Target: without a change the exact upper 95 % limit of
the rollouts that the guard stops is at most its part of alpha, with hosts that wander for longer than a block (rho
0.97), too; and the mean evidence of a block is at most 1 (within three standard errors). A z-test of all that was
counted so far, looked at after every block, is shown beside it. PATCHING_BENCH_ROLLOUTS sets the rollouts (4,800).
"""

from __future__ import annotations

import itertools
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from guarded_waves import Guarded, growing_z, guarded_rollout
from simulated_fleet import ALPHA, World
from simulated_rollouts import upper_limit

ROLLOUTS = int(os.environ.get("PATCHING_BENCH_ROLLOUTS", "4800"))
KINDS = ((1, 0, 2.0), (2, 0, 0.1), (1, 1, 2.0))
"""Counters, gauges, and mean errors a host and scrape."""

GRID = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=metrics, gauges=gauges, errors=errors, hosts=24)
    for (metrics, gauges, errors), rho, sigma, canaries in itertools.product(
        KINDS, (0.0, 0.8, 0.97), (0.2, 0.4), (1, 3)
    )
]
HARM = [
    World(hosts=24, factor=2.0),
    World(hosts=24, factor=3.0),
    World(hosts=24, factor=2.0, sigma=0.4),
    World(hosts=24, factor=1.5, metrics=0, gauges=1),
]
RANDOM = 20260302


def guarded(job: tuple[int, World]) -> Guarded:
    """Run one rollout."""
    return guarded_rollout(np.random.default_rng([RANDOM, job[0]]), job[1])


def by_z(job: tuple[int, World]) -> bool:
    """Run one wave by the z-test."""
    return growing_z(np.random.default_rng([RANDOM, job[0]]), job[1])


def part(world: World) -> float:
    """Give the guard's part of alpha: one share for each wave of two and more hosts."""
    return ALPHA * sum(len(wave.rows) > 1 for wave in world.waves()) / world.looks()


def table(pool: ProcessPoolExecutor) -> bool:
    """Print the rollouts without harm, for each rho and in all; True if the target is met in all together."""
    jobs = [(seed, GRID[seed % len(GRID)]) for seed in range(ROLLOUTS)]
    runs = list(zip(jobs, pool.map(guarded, jobs, chunksize=20), strict=True))
    print(f"nothing changed, {ROLLOUTS:,} rollouts: stopped by the guard in vain; its part of alpha is {spent()}")
    print("rho   rollouts stopped limit   blocks  mean E (s.e.)  largest E")
    good = True
    for rho in (0.0, 0.8, 0.97, None):
        found = [run for (_, world), run in runs if rho in (world.rho, None)]
        alarms = sum(run.alarm for run in found)
        evidence = np.array([one for run in found for one in run.evidence])
        limit, error = upper_limit(alarms, len(found)), evidence.std() / len(evidence) ** 0.5
        print(
            f"{'all' if rho is None else rho!s:5s} {len(found):8,d} {alarms:7d} {limit:5.2%} {len(evidence):8,d} "
            f"{evidence.mean():7.2f} ± {error:4.2f} {evidence.max():10.3g}"
        )
        good = good and limit <= min(map(part, GRID)) and evidence.mean() <= 1 + 3 * error
    return good


def spent() -> str:
    """Say which parts of alpha the guard has in the grid."""
    parts = sorted({round(part(world), 5) for world in GRID})
    return " or ".join(f"{one:.2%}" for one in parts)


def main() -> int:
    """Print what was found; 1 if the target is missed."""
    with ProcessPoolExecutor(2) as pool:
        good = table(pool)
        waves = max(ROLLOUTS // 10, 1)
        jobs = [(seed, GRID[seed % len(GRID)]) for seed in range(waves)]
        stopped = sum(pool.map(by_z, jobs, chunksize=20))
        print(f"a z-test of all that was counted so far stops {stopped / waves:.0%} of {waves} such second waves")
        runs = max(ROLLOUTS // 24, 1)
        print(f"\nthe patch multiplies errors or a gauge, {runs} rollouts each: stopped (in the first two blocks)")
        for world in HARM:
            found = list(pool.map(guarded, [(seed, world) for seed in range(runs)], chunksize=10))
            early = sum(run.alarm and run.block <= 2 for run in found) / runs
            kind = "gauge" if world.gauges else "errors"
            caught = sum(run.alarm for run in found) / runs
            print(f"{kind:6s} × {world.factor:.1f}, sigma {world.sigma:.1f}: {caught:4.0%} ({early:4.0%})", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
