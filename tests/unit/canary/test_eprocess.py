"""E-processes and what they are made of: against SciPy, against the definition, and as martingales (S5)."""

from __future__ import annotations

from math import exp, inf, lgamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.canary.eprocess import (
    EFFECTS,
    RESTLESS,
    RESTLESS_VARIANCE,
    Past,
    Sides,
    count_evidence,
    lower_limit,
    mean_evidence,
    mean_limits,
    mean_needed,
    past_evidence,
    past_limits,
    ratio_limits,
)
from patching.canary.loggamma import log_gamma


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=20))
def test_log_gamma_is_that_of_the_standard_library(values: list[float]) -> None:
    expected = [lgamma(value) for value in values]
    assert log_gamma(np.array(values)) == pytest.approx(expected, rel=1e-11, abs=1e-10)


def concentrations(share: float, variance: float) -> list[tuple[float, float]]:
    """Give ν of the usual and of the restless hosts, each with its part of all waves."""
    usual = 1 / (share * (1 - share) * variance)
    return [(1 - RESTLESS, usual - 1), (RESTLESS, usual / RESTLESS_VARIANCE - 1)]


@pytest.mark.slow
def test_counts_are_the_mean_of_scipys_beta_binomial_ratios() -> None:
    stats = pytest.importorskip("scipy.stats")
    sides = Sides(7, 500.0, 12, 1500.0, 1.2, 0.05)
    base = 500 * 1.2 / 1500 * 1.5
    found = [
        sum(
            part * stats.betabinom.pmf(7, 19, nu * bet / (1 + bet), nu / (1 + bet))
            for part, nu in concentrations(base / (1 + base), 0.05)
        )
        for bet in (base * exp(effect) for effect in (0.0, *EFFECTS))
    ]
    assert float(count_evidence(sides, np.log(1.5))) == pytest.approx(np.mean(found[1:]) / found[0], rel=1e-9)


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
    mass = sum(part * stats.betabinom.pmf(counts, 40, nu / 4, nu * 3 / 4) for part, nu in concentrations(1 / 4, 0.1))
    evidence = count_evidence(Sides(counts, 100.0, 40 - counts, 300.0, 1.0, 0.1), 0.0)
    assert float((mass * evidence).sum()) == pytest.approx(1.0, rel=1e-9)


def test_evidence_of_growing_counts_is_a_martingale() -> None:
    """One more error is the treated side's with chance (ν·π + C)/(ν + N): on average the evidence stays as it is.

    ν is that of usual or of restless hosts, as far as the counts so far speak for either.
    """
    for treated, other in ((0, 0), (3, 4), (20, 5), (0, 30)):
        weights, chances = [], []
        for part, nu in concentrations(0.25, 0.05):
            a, b = nu / 4, nu * 3 / 4
            weights.append(part * exp(lbeta(treated + a, other + b) - lbeta(a, b)))
            chances.append((a + treated) / (nu + treated + other))
        chance = np.average(chances, weights=weights)
        now, more, less = (
            float(count_evidence(Sides(t, 100.0, o, 300.0, 1.0, 0.05), 0.0))
            for t, o in ((treated, other), (treated + 1, other), (treated, other + 1))
        )
        assert chance * more + (1 - chance) * less == pytest.approx(now, rel=1e-9)


def lbeta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.001, 0.5), st.floats(0.0, 1.0))
def test_one_more_error_of_the_treated_never_lowers_evidence_for_harm(
    treated: int, other: int, variance: float, delta: float
) -> None:
    """Evidence below 1 speaks for no harm; there, far fewer errors than expected speak for restless hosts, too.

    Up to a spread of 0.7 between hosts; beyond it, see the next test.
    """
    one, two = (
        float(count_evidence(Sides(c, 100.0, other, 300.0, 1.0, variance), delta)) for c in (treated, treated + 1)
    )
    assert max(two, 1.0) >= max(one, 1.0) * (1 - 1e-9)
    one, two = (float(past_evidence(Past(c, 100.0, 0.1, variance), delta)) for c in (treated, treated + 1))
    assert two >= one


@settings(deadline=None)
@given(st.integers(0, 200), st.floats(0.5, 1.0), st.floats(0.0, 1.0))
def test_where_hosts_differ_most_the_evidence_of_a_huge_harm_levels_off_and_falls_by_a_quarter_at_most(
    other: int, variance: float, delta: float
) -> None:
    """The restless hosts explain what no effect that is bet on does: documented among the judge's limits."""
    treated = np.arange(0, 1500.0)
    sides = Sides(
        treated, np.full_like(treated, 100.0), np.full_like(treated, other), np.full_like(treated, 300.0), 1.0, variance
    )
    course = np.maximum(np.asarray(count_evidence(sides, delta)), 1.0)
    assert (course / np.maximum.accumulate(course)).min() > 0.75


def test_no_exposure_is_no_bet() -> None:
    found = count_evidence(Sides(np.array([0, 5]), np.array([0.0, 10.0]), 0, 0.0, 1.0, 0.1), 0.0)
    assert found.tolist() == [1.0, 1.0]


def test_means_bet_nothing_on_average_at_the_first_look() -> None:
    z = np.linspace(-30, 60, 90001)
    mass = (1 - RESTLESS) * np.exp(-(z**2) / 2) + RESTLESS * np.exp(-(z**2) / 8) / 2
    evidence = mean_evidence(z * 0.3, 0.09, 0.0)
    assert float((mass * evidence).sum() * (z[1] - z[0])) == pytest.approx((2 * np.pi) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("freedom", [2, 5, 20])
def test_means_with_an_estimated_variance_bet_nothing_on_average_and_never_fall_with_harm(freedom: int) -> None:
    """Simulated as it happens: the variance is that of a few windows before, and all windows are alike."""
    random = np.random.default_rng(freedom)
    windows = random.normal(size=(200_000, freedom + 1))
    change = random.normal(size=200_000) - windows.mean(axis=1)
    error = (windows.var(axis=1, ddof=1) * (1 + 1 / (freedom + 1))) ** 0.5
    evidence = mean_evidence(change / error, 1.0, 0.0, freedom)
    assert 0.3 < float(np.minimum(evidence, 1e4).mean()) < 1.02
    rising = mean_evidence(np.linspace(2, 1000, 5001), 1.0, 0.0, freedom)
    assert (np.diff(rising) > 0).all()
    needed = mean_needed(0.01, freedom)
    assert float(mean_evidence(needed, 1.0, 0.0, freedom)) == pytest.approx(100)


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
