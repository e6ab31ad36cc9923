"""False alarms and power of whole rollouts, peeked at every scrape: python -m bench.bench_judge_bound [runs a cell].

The same rollouts are judged by ours, by a z-test at every scrape, and by Kayenta's rule at the end of each wave.
Target: in every cell without a change the exact upper 95 % limit of our false alarms is at most alpha, and the mean
evidence at stopping at most 1 (within three standard errors).
"""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from simulated_rollouts import ALPHA, World, kayenta, naive, rollout, sequential, upper_limit

ROLLOUTS = 2_000
GRID = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=metrics, hosts=24 if canaries == 10 else 12)
    for rho, sigma, canaries, metrics in itertools.product((0.0, 0.8), (0.2, 0.4), (1, 3, 10), (1, 5))
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


def cell(job: tuple[World, int]) -> tuple[World, dict[str, float]]:
    """Run one cell by all three judges on the same seeds."""
    world, number = job
    found: dict[str, float] = {}
    for name, judge in (("ours", sequential), ("z", naive), ("kayenta", kayenta)):
        runs = [rollout(np.random.default_rng([7, seed]), world, judge) for seed in range(number)]
        found[name] = sum(run.alarm for run in runs)
        found[f"{name} canary"] = sum(run.alarm and run.wave == 1 for run in runs)
        if name == "ours":
            evidence = np.array([run.stopped_at for run in runs])
            found["evidence"] = float(evidence.mean())
            found["error"] = float(evidence.std() / number**0.5)
    return world, found


def main() -> int:
    """Print the tables; 1 if the target is missed."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else ROLLOUTS
    good = True
    with ProcessPoolExecutor(2) as pool:
        print(f"{number:,} rollouts a cell, alpha {ALPHA:.0%}, no tolerated increase, three waves")
        print("\nnothing changed: rollouts stopped in vain")
        print("rho sigma canaries metrics errors | ours  limit  mean E | z-test  Kayenta's rule")
        for world, found in pool.map(cell, [(world, number) for world in GRID + SPARSE]):
            limit = upper_limit(int(found["ours"]), number)
            good = good and limit <= ALPHA and found["evidence"] <= 1 + 3 * found["error"]
            print(
                f"{world.rho:3.1f} {world.sigma:5.1f} {world.canaries:8d} {world.metrics:7d} {world.errors:6.2f} | "
                f"{found['ours'] / number:5.1%} {limit:5.1%} {found['evidence']:7.2f} | "
                f"{found['z'] / number:6.1%} {found['kayenta'] / number:8.1%}"
            )
        print("\nthe patch multiplies errors: caught on the canary (in the whole rollout)")
        print("factor sigma canaries errors | ours           z-test         Kayenta's rule")
        for world, found in pool.map(cell, [(world, number) for world in HARM]):
            shown = "  ".join(
                f"{found[f'{name} canary'] / number:5.0%} ({found[name] / number:5.0%})"
                for name in ("ours", "z", "kayenta")
            )
            print(f"{world.factor:6.1f} {world.sigma:5.1f} {world.canaries:8d} {world.errors:6.2f} | {shown}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
