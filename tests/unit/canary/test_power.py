"""What a check can see (S3, S5): the statement of the plan, held against simulated rollouts."""

from __future__ import annotations

import pytest

from patching.canary.power import seen_ratio

LEVEL = 0.05 / 3


def test_more_hosts_and_more_errors_see_smaller_changes() -> None:
    assert seen_ratio(3, 9, LEVEL, 0.0, 0.2) < seen_ratio(1, 11, LEVEL, 0.0, 0.2)
    assert seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=1000) < seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=10)
    assert seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=1e9) == pytest.approx(seen_ratio(3, 9, LEVEL, 0.0, 0.2))


def test_what_is_tolerated_comes_on_top() -> None:
    assert seen_ratio(3, 9, LEVEL, 0.5, 0.2) == pytest.approx(1.5 * seen_ratio(3, 9, LEVEL, 0.0, 0.2))


def test_more_metrics_and_waves_see_a_little_less() -> None:
    one, five = seen_ratio(3, 9, LEVEL, 0.0, 0.2), seen_ratio(3, 9, LEVEL / 5, 0.0, 0.2)
    assert one < five < 1.15 * one


@pytest.mark.slow
def test_stated_ratio_is_seen_in_four_of_five_simulated_rollouts() -> None:
    """The statement must not promise more than whole rollouts keep."""
    import numpy as np

    from simulated_rollouts import World, rollout

    world = World(rho=0.8, sigma=0.2, canaries=3, factor=seen_ratio(3, 9, LEVEL, 0.0, 0.2, errors=2.0 * 3 * 60))
    runs = [rollout(np.random.default_rng([3, seed]), world) for seed in range(40)]
    assert sum(run.alarm and run.wave == 1 for run in runs) >= 30
