"""Whole rollouts of counters and gauges, peeked at every scrape (S5): the bound over all of it holds, and could fail.

300 rollouts over a grid ρ × σ × canaries × metrics × errors × gauges, fixed seed; `make bench` runs 2,000 a cell.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from guarded_waves import blocks
from patching.canary.blocks import in_one_look, judge_block
from patching.canary.kept import judge_metric
from patching.canary.verdicts import CheckVerdict
from patching.rollout.answers import VerdictName
from simulated_evidence import Seen, sequential
from simulated_fleet import ALPHA, World, fleet, gauges, soak
from simulated_rollouts import JUDGES, OURS, Run, rollout, rollouts, upper_limit

COUNTS = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=metrics, errors=errors)
    for rho, sigma, canaries, metrics, errors in itertools.product((0.0, 0.8), (0.2, 0.4), (1, 3), (1, 2), (2.0, 0.1))
]
MIXED = [replace(world, gauges=3 - world.metrics, hosts=24) for world in COUNTS[1::2]]
"""With so many hosts the ranks of the gauges are looked at, too."""

GRID = [*COUNTS, *MIXED]
RUNS = 300


@pytest.fixture(scope="module")
def runs() -> list[dict[str, Run]]:
    random = np.random.default_rng(20260301)
    return [rollouts(random, GRID[index % len(GRID)], JUDGES) for index in range(RUNS)]


@pytest.mark.slow
def test_false_alarms_of_whole_rollouts_stay_below_alpha_with_peeking_at_every_scrape(
    runs: list[dict[str, Run]],
) -> None:
    found = [run[OURS] for run in runs]
    alarms = [run.by for run in found if run.alarm]
    assert upper_limit(len(alarms), RUNS) <= ALPHA, f"stopped in vain by {alarms}"
    assert np.mean([evidence for run in found for evidence in run.stopped]) <= 1.0


@pytest.mark.slow
def test_naive_test_fails_the_same_test(runs: list[dict[str, Run]]) -> None:
    """A z-test at every scrape: if it passed too, the test above would prove nothing."""
    assert sum(run["z"].alarm for run in runs) / RUNS > 4 * ALPHA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "least"),
    [
        (World(factor=2.0), 0.6),
        (World(factor=3.0), 0.95),
        (World(canaries=3, factor=2.0), 0.9),
        (World(errors=0.1, factor=8.0), 0.6),
        (World(metrics=0, gauges=1, factor=2.0), 0.9),
        (World(metrics=0, gauges=1, canaries=3, factor=1.5, hosts=24), 0.9),
    ],
    ids=["twice", "three times", "twice with three canaries", "sparse errors, eight times", "gauge", "gauge of three"],
)
def test_stated_regressions_are_caught_on_the_canary(world: World, least: float) -> None:
    found = [rollout(np.random.default_rng([1, seed]), world) for seed in range(40)]
    assert sum(run.alarm and run.wave == 1 for run in found) / 40 >= least


@pytest.mark.parametrize("world", [World(factor=2.0), World(metrics=0, gauges=1, canaries=3, hosts=24, factor=1.3)])
def test_simulated_judge_is_the_judge(world: World) -> None:
    """Soaks and blocks, with and without harm: the same evidence, and an alarm where the judge says undo."""
    (check,), ranked = world.checks(), 0
    for seed in range(6):
        random, one = np.random.default_rng([2, seed]), replace(world, factor=world.factor if seed % 2 else 1.0)
        for wave in one.waves():
            drawn = (fleet if world.metrics else gauges)(random, one, np.zeros(one.hosts), wave)
            found = soak(drawn, wave)
            verdict = judge_metric(check, found, 0.5)
            agree(sequential(found, ALPHA * 0.5), verdict)
            ranked += verdict.numbers is not None and verdict.numbers.rank_p is not None
            for block, seen in blocks(drawn, wave):
                level = ALPHA * 0.5 / (block.number * (block.number + 1))
                agree(sequential(in_one_look(seen), level, last=False), judge_block(check, seen, 0.5, block.number))
    assert bool(ranked) is not bool(world.metrics)


def agree(seen: Seen | None, verdict: CheckVerdict) -> None:
    assert seen is not None
    assert verdict.numbers is not None
    assert (seen.stop is not None) is (verdict.verdict is VerdictName.UNDO)
    assert float(seen.evidence.max()) == pytest.approx(verdict.numbers.evidence)


def test_limit_of_a_rate_is_the_exact_one() -> None:
    """Rule of three, and a value of the tables."""
    assert upper_limit(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert upper_limit(3, 100) == pytest.approx(0.0757, abs=1e-4)
