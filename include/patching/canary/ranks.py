"""Ranks: Mann-Whitney's test and the Hodges-Lehmann effect over hosts; looked at once, with its own share of alpha.

Not sequential: it is asked at the end of the soak only. It needs hosts: with c and k of them no p-value can fall below
1 / (c+k choose c), so with few hosts it is not asked at all and leaves its share to the e-process.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb, erfc, sqrt

import numpy as np

from patching.canary.loggamma import Floats

EXACT_PRODUCT = 2_500
"""Largest product of both sizes for which the distribution is counted out; beyond it the normal one is used."""


def smallest_p(treated: int, other: int) -> float:
    """Give the smallest one-sided p-value that so many hosts can reach."""
    return 1 / comb(treated + other, treated) if treated and other else 1.0


def greater(treated: Floats, other: Floats) -> float:
    """Give the one-sided p-value of "the treated are larger" (Mann and Whitney, Ann. Math. Stat. 18, 1947).

    Exact without ties and up to ``EXACT_PRODUCT``; else normal with corrections for ties and continuity.
    """
    values = np.concatenate([treated, other])
    m, n = len(treated), len(other)
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(1, len(values) + 1)
    distinct, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.bincount(inverse, ranks) / sizes)[inverse]
    u = float(ranks[:m].sum() - m * (m + 1) / 2)
    if len(distinct) == len(values) and m * n <= EXACT_PRODUCT:
        ways = _ways(m, n)
        return float(sum(ways[round(u) :]) / comb(m + n, m))
    ties = float((sizes.astype(float) ** 3 - sizes).sum())
    whole = m + n
    variance = m * n / 12 * (whole + 1 - ties / (whole * (whole - 1)))
    if variance <= 0:
        return 1.0
    return 0.5 * erfc((u - m * n / 2 - 0.5) / sqrt(2 * variance))


@lru_cache(maxsize=64)
def _ways(m: int, n: int) -> tuple[int, ...]:
    """Count the arrangements of m among m + n for each U: coefficients of the Gaussian binomial."""
    ways = [1] + [0] * (m * n)
    for step in range(1, m + 1):
        for index in range(m * n, n + step - 1, -1):
            ways[index] -= ways[index - n - step]
        for index in range(step, m * n + 1):
            ways[index] += ways[index - step]
    return tuple(ways)


def hodges_lehmann(treated: Floats, other: Floats) -> float:
    """Give the median of all differences treated − other (Hodges and Lehmann, Ann. Math. Stat. 34, 1963)."""
    return float(np.median(np.subtract.outer(treated, other)))
