"""What a check can see (S3, S5): the statement of the plan, held against simulated rollouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from patching.canary.comparison import judge_counts
from patching.canary.power import seen_ratio
from patching.canary.sides import Measurements
from patching.canary.verdicts import CheckVerdict
from patching.policy import Check, Compare
from patching.rollout.answers import VerdictName
from simulated_fleet import RULES, World, fleet, soak
from simulated_rollouts import rollout

LEVEL = 0.05 / 3


def test_more_hosts_and_more_errors_see_smaller_changes() -> None:
    assert seen_ratio(3, 9, LEVEL, 0.0, 0.2) < seen_ratio(1, 11, LEVEL, 0.0, 0.2)
    assert seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=1000) < seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=10)
    assert seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=1e9) == pytest.approx(seen_ratio(3, 9, LEVEL, 0.0, 0.2))


def test_what_is_tolerated_comes_on_top() -> None:
    assert seen_ratio(3, 9, LEVEL, 0.5, 0.2) == pytest.approx(1.5 * seen_ratio(3, 9, LEVEL, 0.0, 0.2))


def test_few_errors_are_seen_only_when_they_grow_manifold_and_none_at_all_is_not_blind() -> None:
    ten, one, none = (seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=errors) for errors in (10, 1, 0))
    assert ten < one < none < 100


def test_more_metrics_and_waves_see_a_little_less() -> None:
    one, five = seen_ratio(3, 9, LEVEL, 0.0, 0.2), seen_ratio(3, 9, LEVEL / 5, 0.0, 0.2)
    assert one < five < 1.15 * one


def judged(world: World, seed: int, against: str) -> CheckVerdict:
    """Judge the first wave of a simulated rollout at its end."""
    random, wave = np.random.default_rng([8, seed]), world.waves()[0]
    lasting = random.normal(size=world.hosts) * world.sigma * (against != "threshold")
    compare = {"against": [against], "maxRelativeIncrease": "0%", "minRequests": 1, "threshold": f"{world.errors}%"}
    check = Check(name="m", prometheus=RULES, compare=Compare.model_validate(compare))
    evidence = soak(fleet(random, world, lasting, wave), wave)
    assert isinstance(evidence, Measurements)
    return judge_counts(check, evidence, 1 / 3)


@pytest.mark.parametrize("against", ["control", "before", "threshold"])
@pytest.mark.parametrize("errors", [2.0, 0.02])
def test_what_the_verdict_says_it_would_have_shown_is_shown(against: str, errors: float) -> None:
    """Each rollout is judged healthy, and again with a patch that does what its verdict says would have been seen."""
    world, caught = World(canaries=3, errors=errors), 0
    for seed in range(20):
        healthy = judged(world, seed, against)
        assert healthy.numbers is not None
        seen = healthy.numbers.seen_ratio
        assert seen is not None
        caught += judged(replace(world, factor=seen), seed, against).verdict is VerdictName.UNDO
        if healthy.verdict is not VerdictName.UNDO:
            assert "; in 4 of 5 rollouts it would have shown " in healthy.reason
    assert caught >= 15


@pytest.mark.slow
def test_stated_ratio_is_seen_in_four_of_five_simulated_rollouts() -> None:
    """The statement must not promise more than whole rollouts keep."""
    world = World(rho=0.8, sigma=0.2, canaries=3, factor=seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=2.0 * 3 * 60))
    runs = [rollout(np.random.default_rng([3, seed]), world) for seed in range(40)]
    assert sum(run.alarm and run.wave == 1 for run in runs) >= 30
