"""Whole rollouts of a simulated fleet, peeked at every scrape (S5): the bound holds, and could fail.

300 rollouts over a grid ρ × σ × canaries × metrics × errors, fixed seed; `make bench` runs 2,000 a cell.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from simulated_rollouts import ALPHA, Judge, Run, World, naive, rollout, sequential, upper_limit

GRID = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=metrics, errors=errors)
    for rho, sigma, canaries, metrics, errors in itertools.product((0.0, 0.8), (0.2, 0.4), (1, 3), (1, 2), (2.0, 0.1))
]
RUNS = 300


def runs(judge: Judge, number: int, worlds: list[World]) -> list[Run]:
    random = np.random.default_rng(20260301)
    return [rollout(random, worlds[index % len(worlds)], judge) for index in range(number)]


@pytest.mark.slow
def test_false_alarms_of_whole_rollouts_stay_below_alpha_with_peeking_at_every_scrape() -> None:
    found = runs(sequential, RUNS, GRID)
    alarms = sum(run.alarm for run in found)
    assert upper_limit(alarms, RUNS) <= ALPHA, f"{alarms} of {RUNS} rollouts were stopped in vain"
    weights = [run.checks for run in found]
    assert np.average([run.stopped_at for run in found], weights=weights) <= 1.0


@pytest.mark.slow
def test_naive_test_fails_the_same_test() -> None:
    """The z-test of two shares at every scrape: if it passed too, the test above would prove nothing."""
    alarms = sum(run.alarm for run in runs(naive, 100, GRID))
    assert alarms / 100 > 4 * ALPHA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "least"),
    [
        (World(factor=2.0), 0.6),
        (World(factor=3.0), 0.95),
        (World(canaries=3, factor=2.0), 0.9),
        (World(errors=0.1, factor=8.0), 0.6),
    ],
    ids=["twice", "three times", "twice with three canaries", "sparse errors, eight times"],
)
def test_stated_regressions_are_caught_on_the_canary(world: World, least: float) -> None:
    found = runs(sequential, 40, [world])
    assert sum(run.alarm and run.wave == 1 for run in found) / 40 >= least


def test_limit_of_a_rate_is_the_exact_one() -> None:
    """Rule of three, and a value of the tables."""
    assert upper_limit(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert upper_limit(3, 100) == pytest.approx(0.0757, abs=1e-4)
