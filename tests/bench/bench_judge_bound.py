"""False alarms and power of whole rollouts, peeked at every scrape: python -m bench.bench_judge_bound.

The same rollouts are judged by ours, by a z-test at every scrape, and by Kayenta's rule at the end of each wave.
Target: in every cell without a change the exact upper 95 % limit of our false alarms is at most alpha, and the mean
evidence at stopping at most 1 (within three standard errors). PATCHING_BENCH_ROLLOUTS sets the rollouts a cell, and
PATCHING_BENCH_MINUTES ends the bench early: cells that had not begun by then are named and not judged.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from simulated_rollouts import ALPHA, World, kayenta, naive, rollout, sequential, upper_limit

ROLLOUTS = int(os.environ.get("PATCHING_BENCH_ROLLOUTS", "2000"))
MINUTES = float(os.environ.get("PATCHING_BENCH_MINUTES", "inf"))
GRID = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=metrics, hosts=24 if canaries == 10 else 12)
    for metrics, rho, sigma, canaries in itertools.product((1, 5), (0.0, 0.8), (0.2, 0.4), (1, 3, 10))
]
SPARSE = [World(errors=errors, canaries=canaries) for errors, canaries in itertools.product((0.2, 0.02), (1, 3))]
HARM = [
    World(factor=2.0),
    World(factor=3.0),
    World(factor=2.0, canaries=3),
    World(factor=2.0, sigma=0.4),
    World(factor=3.0, errors=0.2),
    World(factor=8.0, errors=0.02),
]
# The cells with the fewest rollouts to draw first, so that a bench that is ended early has the most of them.
QUIET = [*SPARSE, *GRID]
JUDGES = (("ours", sequential), ("z", naive), ("kayenta", kayenta))

Found = dict[str, float]


def cell(job: tuple[World, float]) -> Found | None:
    """Run one cell by all three judges on the same seeds; None where the time was over before it began."""
    world, end = job
    if time.time() > end:
        return None
    found: Found = {}
    for name, judge in JUDGES:
        runs = [rollout(np.random.default_rng([7, seed]), world, judge) for seed in range(ROLLOUTS)]
        found[name] = sum(run.alarm for run in runs)
        found[f"{name} canary"] = sum(run.alarm and run.wave == 1 for run in runs)
        if name == "ours":
            evidence = np.array([run.stopped_at for run in runs])
            found["evidence"] = float(evidence.mean())
            found["error"] = float(evidence.std() / ROLLOUTS**0.5)
    return found


def power(world: World, found: Found) -> str:
    """Write one row of the table of harm."""
    shown = "  ".join(
        f"{found[f'{name} canary'] / ROLLOUTS:5.0%} ({found[name] / ROLLOUTS:5.0%})" for name, _ in JUDGES
    )
    return f"{world.factor:6.1f} {world.sigma:5.1f} {world.canaries:8d} {world.errors:6.2f} | {shown}"


def in_vain(world: World, found: Found) -> tuple[str, bool]:
    """Write one row of the table without harm, and say whether the target is met in it."""
    limit = upper_limit(int(found["ours"]), ROLLOUTS)
    good = limit <= ALPHA and found["evidence"] <= 1 + 3 * found["error"]
    row = (
        f"{world.rho:3.1f} {world.sigma:5.1f} {world.canaries:8d} {world.metrics:7d} {world.errors:6.2f} | "
        f"{found['ours'] / ROLLOUTS:5.1%} {limit:5.1%} {found['evidence']:6.2f} ± {found['error']:4.2f} | "
        f"{found['z'] / ROLLOUTS:6.1%} {found['kayenta'] / ROLLOUTS:8.1%}{'' if good else '  missed'}"
    )
    return row, good


def done(pool: ProcessPoolExecutor, worlds: list[World], end: float) -> Iterator[tuple[World, Found]]:
    """Run cells in their order, and name at the end how many there was no time for."""
    left = 0
    for world, found in zip(worlds, pool.map(cell, [(world, end) for world in worlds]), strict=True):
        if found is None:
            left += 1
        else:
            yield world, found
    if left:
        print(f"not run, for want of time: the last {left} of {len(worlds)} cells")


def main() -> int:
    """Print the tables; 1 if the target is missed."""
    good, end = True, time.time() + 60 * MINUTES
    with ProcessPoolExecutor(2) as pool:
        print(f"{ROLLOUTS:,} rollouts a cell, alpha {ALPHA:.0%}, no tolerated increase, three waves")
        print("\nthe patch multiplies errors: caught on the canary (in the whole rollout)")
        print("factor sigma canaries errors | ours           z-test         Kayenta's rule")
        for world, found in done(pool, HARM, end):
            print(power(world, found), flush=True)
        print("\nnothing changed: rollouts stopped in vain; limit: exact upper 95 % limit of ours")
        print("rho sigma canaries metrics errors | ours  limit  mean E (s.e.) | z-test  Kayenta's rule")
        for world, found in done(pool, QUIET, end):
            row, met = in_vain(world, found)
            good = good and met
            print(row, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
