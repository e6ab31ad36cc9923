"""E-processes and what they are made of: against SciPy, against the definition, and as martingales (S5)."""

from __future__ import annotations

from math import exp, inf, lgamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.canary.eprocess import (
    EFFECTS,
    Past,
    Sides,
    count_evidence,
    lower_limit,
    mean_evidence,
    mean_limits,
    past_evidence,
    past_limits,
    ratio_limits,
)
from patching.canary.loggamma import log_gamma


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=20))
def test_log_gamma_is_that_of_the_standard_library(values: list[float]) -> None:
    expected = [lgamma(value) for value in values]
    assert log_gamma(np.array(values)) == pytest.approx(expected, rel=1e-11, abs=1e-10)


@pytest.mark.slow
def test_counts_are_the_mean_of_scipys_beta_binomial_ratios() -> None:
    stats = pytest.importorskip("scipy.stats")
    sides = Sides(7, 500.0, 12, 1500.0, 1.2, 0.05)
    base = 500 * 1.2 / 1500 * 1.5
    share = base / (1 + base)
    nu = 1 / (share * (1 - share) * 0.05) - 1
    under = stats.betabinom.pmf(7, 19, nu * share, nu * (1 - share))
    bets = [base * exp(effect) for effect in EFFECTS]
    over = [stats.betabinom.pmf(7, 19, nu * bet / (1 + bet), nu / (1 + bet)) for bet in bets]
    assert float(count_evidence(sides, np.log(1.5))) == pytest.approx(np.mean(over) / under, rel=1e-9)


@pytest.mark.slow
def test_past_is_the_mean_of_scipys_negative_binomial_ratios() -> None:
    stats = pytest.importorskip("scipy.stats")
    shape = 1 / 0.3
    means = [0.01 * 400 * exp(effect) for effect in (0.0, *EFFECTS)]
    mass = [stats.nbinom.pmf(9, shape, shape / (shape + mean)) for mean in means]
    found = float(past_evidence(Past(9, 400.0, 0.01, 0.3), 0.0))
    assert found == pytest.approx(np.mean(mass[1:]) / mass[0], rel=1e-9)


@pytest.mark.slow
def test_expected_evidence_is_one_where_nothing_is_worse_than_tolerated() -> None:
    """The definition: summed over everything that could have been counted, weighted by its probability."""
    stats = pytest.importorskip("scipy.stats")
    counts = np.arange(41)
    share = 1 / 4
    nu = 1 / (share * (1 - share) * 0.1) - 1
    mass = stats.betabinom.pmf(counts, 40, nu * share, nu * (1 - share))
    evidence = count_evidence(Sides(counts, 100.0, 40 - counts, 300.0, 1.0, 0.1), 0.0)
    assert float((mass * evidence).sum()) == pytest.approx(1.0, rel=1e-9)


def test_evidence_of_growing_counts_is_a_martingale() -> None:
    """One more error is the treated side's with chance (ν·π + C)/(ν + N): on average the evidence stays as it is."""
    for treated, other in ((0, 0), (3, 4), (20, 5), (0, 30)):
        share, variance = 0.25, 0.05
        nu = 1 / (share * (1 - share) * variance) - 1
        chance = (nu * share + treated) / (nu + treated + other)
        now, more, less = (
            float(count_evidence(Sides(t, 100.0, o, 300.0, 1.0, variance), 0.0))
            for t, o in ((treated, other), (treated + 1, other), (treated, other + 1))
        )
        assert chance * more + (1 - chance) * less == pytest.approx(now, rel=1e-9)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.001, 1.0), st.floats(0.0, 1.0))
def test_one_more_error_of_the_treated_never_lowers_the_evidence(
    treated: int, other: int, variance: float, delta: float
) -> None:
    one, two = (
        float(count_evidence(Sides(c, 100.0, other, 300.0, 1.0, variance), delta)) for c in (treated, treated + 1)
    )
    assert two >= one
    one, two = (float(past_evidence(Past(c, 100.0, 0.1, variance), delta)) for c in (treated, treated + 1))
    assert two >= one


def test_no_exposure_is_no_bet() -> None:
    found = count_evidence(Sides(np.array([0, 5]), np.array([0.0, 10.0]), 0, 0.0, 1.0, 0.1), 0.0)
    assert found.tolist() == [1.0, 1.0]


def test_means_bet_nothing_on_average_at_the_first_look() -> None:
    z = np.linspace(-12, 24, 20001)
    normal = np.exp(-(z**2) / 2) / (2 * np.pi) ** 0.5
    evidence = mean_evidence(z * 0.3, 0.09, 0.0)
    assert float((normal * evidence).sum() * (z[1] - z[0])) == pytest.approx(1.0, rel=1e-6)


def test_limits_enclose_what_was_counted_and_narrow_with_counts() -> None:
    few = ratio_limits(Sides(4.0, 100.0, 12.0, 300.0, 1.0, 0.01), 0.05)
    many = ratio_limits(Sides(400.0, 10_000.0, 1200.0, 30_000.0, 1.0, 0.01), 0.05)
    assert few[0] is not None
    assert few[1] is not None
    assert many[0] is not None
    assert many[1] is not None
    assert few[0] < many[0] < 1 < many[1] < few[1]


def test_limits_are_where_the_evidence_reaches_what_is_needed() -> None:
    sides = Sides(30.0, 500.0, 20.0, 1500.0, 1.0, 0.02)
    low, _ = ratio_limits(sides, 0.05)
    assert low is not None
    assert float(count_evidence(sides, np.log(low))) == pytest.approx(20, rel=0.01)


def test_nothing_counted_limits_nothing() -> None:
    assert ratio_limits(Sides(0.0, 100.0, 0.0, 300.0, 1.0, 0.02), 0.05) == (None, None)
    assert past_limits(Past(0.0, 0.0, 0.01, 0.02), 0.05) == (None, None)
    assert lower_limit(lambda grid: np.full(len(grid), 1e9), 0.05) == inf


def test_limits_of_means_are_symmetric() -> None:
    low, high = mean_limits(0.5, 0.04, 0.05)
    assert low is not None
    assert high is not None
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.01)
