"""Mann-Whitney and Hodges-Lehmann, against SciPy and against counting (S5)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.canary.ranks import greater, hodges_lehmann, smallest_p

values = st.lists(st.integers(0, 12), min_size=1, max_size=9)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(values, values)
def test_p_value_is_scipys(one: list[int], two: list[int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    ties = len(set(one + two)) < len(one) + len(two)
    if len(set(one + two)) == 1:
        assert greater(np.array(one, float), np.array(two, float)) == 1.0
        return
    method = "asymptotic" if ties else "exact"
    expected = stats.mannwhitneyu(one, two, alternative="greater", method=method).pvalue
    assert greater(np.array(one, float), np.array(two, float)) == pytest.approx(expected, rel=1e-9)


def test_exact_p_value_is_the_counted_share_of_all_arrangements() -> None:
    treated, other = np.array([4.0, 7.0, 9.0]), np.array([1.0, 2.0, 5.0, 6.0])
    everything = np.concatenate([treated, other])
    u = sum(a > b for a in treated for b in other)
    above = total = 0
    for chosen in combinations(range(7), 3):
        rest = [everything[i] for i in range(7) if i not in chosen]
        total += 1
        above += sum(everything[i] > b for i in chosen for b in rest) >= u
    assert greater(treated, other) == pytest.approx(above / total)


def test_few_hosts_cannot_prove_anything_by_ranks() -> None:
    """1 of 12 hosts: no rank test can go below 0.083."""
    assert smallest_p(1, 11) == pytest.approx(1 / 12)
    assert greater(np.array([99.0]), np.arange(11.0)) == pytest.approx(1 / 12)
    assert smallest_p(0, 4) == 1.0


def test_effect_is_the_median_of_all_differences() -> None:
    assert hodges_lehmann(np.array([3.0, 5.0]), np.array([1.0, 1.0, 2.0])) == 2.5
