"""The exact tests against exact rational arithmetic and published numbers (S5)."""

from __future__ import annotations

from fractions import Fraction
from math import comb, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.canary.exact import (
    beta_binomial_tail,
    binomial_tail,
    ratio_p_value,
    share_limits,
)


def exact_binomial(errors: int, n: int, share: Fraction) -> Fraction:
    return sum((comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(errors, n + 1)), Fraction(0))


def rising(start: Fraction, times: int) -> Fraction:
    return prod((start + step for step in range(times)), start=Fraction(1))


def exact_beta_binomial(errors: int, n: int, a: Fraction, b: Fraction) -> Fraction:
    """The Pólya urn: P(k) = C(n, k) · a↑k · b↑(n−k) / (a+b)↑n, by rising factorials, without any logarithm."""
    whole = rising(a + b, n)
    return sum((comb(n, k) * rising(a, k) * rising(b, n - k) / whole for k in range(errors, n + 1)), Fraction(0))


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 60), st.integers(1, 60), st.fractions("1/1000", "999/1000", max_denominator=1000))
def test_binomial_tail_is_that_of_exact_fractions(errors: int, n: int, share: Fraction) -> None:
    expected = float(exact_binomial(errors, n, share))
    assert binomial_tail(errors, n, float(share)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 40),
    st.integers(1, 40),
    st.fractions("1/50", 200, max_denominator=50),
    st.fractions("1/50", 200, max_denominator=50),
)
def test_beta_binomial_tail_is_that_of_exact_fractions(errors: int, n: int, a: Fraction, b: Fraction) -> None:
    expected = float(exact_beta_binomial(errors, n, a, b))
    assert beta_binomial_tail(errors, n, float(a), float(b)) == pytest.approx(expected, rel=1e-8, abs=1e-11)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60_000), st.integers(1, 1_000_000), st.floats(1e-5, 0.9))
def test_binomial_tail_of_large_counts_is_scipys(errors: int, n: int, share: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binom.sf(errors - 1, n, share)
    assert binomial_tail(errors, n, share) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_fair_coin_by_hand() -> None:
    """8 or more of 10: (45 + 10 + 1) / 1024."""
    assert binomial_tail(8, 10, 0.5) == pytest.approx(56 / 1024)


def test_uniform_beta_binomial_by_hand() -> None:
    """With a = b = 1 every count from 0 to n is equally likely."""
    assert beta_binomial_tail(8, 10, 1, 1) == pytest.approx(3 / 11)


def test_share_limits_of_clopper_and_pearson() -> None:
    """Zero of 10: the upper 95 % limit is 1 − 0.05^(1/10) = 25.9 % (the rule of three's exact form)."""
    assert share_limits(0, 10, alpha=0.05) == (0.0, pytest.approx(1 - 0.05**0.1, abs=1e-9))
    assert share_limits(10, 10, alpha=0.05) == (pytest.approx(0.05**0.1, abs=1e-9), 1.0)
    assert share_limits(0, 0, alpha=0.05) == (0.0, 1.0)


def test_share_limits_of_a_published_table() -> None:
    """Clopper and Pearson's two-sided 95 % limits for 4 of 20: 5.73 % and 43.66 %."""
    assert share_limits(4, 20, alpha=0.025) == (pytest.approx(0.0573, abs=5e-5), pytest.approx(0.4366, abs=5e-5))


def test_conditional_test_without_spread_is_the_binomial_one() -> None:
    """5 errors in 100 against 0 in 300: the five fall on the treated quarter by chance with (1/4)^5."""
    assert ratio_p_value(5, 100, 0, 300, ratio=1, variance=0) == pytest.approx(0.25**5)


counts = st.integers(0, 400)
exposures = st.integers(1, 100_000)
variances = st.floats(0, 2)


@settings(deadline=None, max_examples=100)
@given(counts, exposures, counts, exposures, variances, st.integers(1, 50))
def test_more_treated_errors_never_raise_the_p_value(
    errors: int, asked: int, other: int, other_asked: int, variance: float, more: int
) -> None:
    fewer = ratio_p_value(errors, asked, other, other_asked, ratio=1.5, variance=variance)
    assert ratio_p_value(errors + more, asked, other, other_asked, ratio=1.5, variance=variance) <= fewer + 1e-9


@settings(deadline=None, max_examples=100)
@given(counts, exposures, counts, exposures, variances, st.integers(2, 1000))
def test_scaling_both_exposures_changes_nothing(
    errors: int, asked: int, other: int, other_asked: int, variance: float, factor: int
) -> None:
    """Only the shares of the traffic count: seconds, requests or thousands of requests give the same answer."""
    once = ratio_p_value(errors, asked, other, other_asked, ratio=1.5, variance=variance)
    scaled = ratio_p_value(errors, asked * factor, other, other_asked * factor, ratio=1.5, variance=variance)
    assert scaled == pytest.approx(once, rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(st.integers(19_990, 20_010), st.integers(0, 30))
def test_more_errors_never_raise_the_p_value_where_totals_begin_to_be_scaled(errors: int, other: int) -> None:
    fewer = ratio_p_value(errors, 10, other, 10, ratio=1, variance=0.02)
    assert ratio_p_value(errors + 1, 10, other, 10, ratio=1, variance=0.02) <= fewer + 1e-9


def test_a_million_errors_are_judged() -> None:
    assert ratio_p_value(600_000, 1e7, 400_000, 1e7, ratio=1.0, variance=0.0) < 1e-12
    assert ratio_p_value(400_000, 1e7, 600_000, 1e7, ratio=1.0, variance=0.02) > 0.5
