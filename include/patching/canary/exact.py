"""Exact one-sided tests for error counts, in plain arithmetic.

Source: the conditional test of two Poisson rates (Przyborowski and Wilenski, Biometrika 31, 1940): given N errors in
all, those of the treated side are Binomial(N, π) with π = x_T·θ / (x_T·θ + x_C) for exposures x and a true ratio θ.
Hosts differ among themselves, so the share π varies with variance v of its log-odds, and the binomial becomes a
beta-binomial with ν = 1/[π(1−π)·v] − 1. Limits of intervals invert the same tests (Clopper and Pearson, 1934).
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log

LARGEST_TOTAL = 20_000
"""Larger totals are scaled down to this: there the variance between hosts dominates anyway."""

_SMALLEST_NU = 0.05
_NEGLIGIBLE = 1e-18
_NO_SPREAD = 1e-9
_TINY = 1e-300
_CONVERGED = 1e-15
_MOST_TERMS = 2_000


def binomial_tail(errors: int, requests: int, share: float) -> float:
    """P(X ≥ errors) for X ~ Binomial(requests, share)."""
    if errors <= 0:
        return 1.0
    if errors > requests or share <= 0.0:
        return 0.0
    if share >= 1.0:
        return 1.0
    return _incomplete_beta(errors, requests - errors + 1, share)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function, by its continued fraction (Lentz; DLMF 8.17.22)."""
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1 - x)
    front = exp(a * log(x) + b * log(1 - x) - _log_beta(a, b)) / a
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1 / _apart(1 + term * d)
            c = _apart(1 + term / c)
            step = c * d
            fraction *= step
        if abs(step - 1) < _CONVERGED:
            break
    return min(1.0, max(0.0, front * fraction))


def _apart(value: float) -> float:
    """Keep a divisor apart from zero, as Lentz's method asks."""
    return value if abs(value) > _TINY else _TINY


def beta_binomial_tail(errors: int, total: int, a: float, b: float) -> float:
    """P(X ≥ errors) for X ~ BetaBinomial(total, a, b)."""
    if errors <= 0:
        return 1.0
    if errors > total:
        return 0.0

    def ratio(k: int) -> float:
        return (total - k) / (k + 1) * (k + a) / (total - k - 1 + b)

    def log_mass(k: int) -> float:
        return _log_choose(total, k) + _log_beta(k + a, total - k + b) - _log_beta(a, b)

    return _tail(errors, total, errors > total * a / (a + b), log_mass, ratio)


def _tail(
    errors: int, total: int, above_mean: bool, log_mass: Callable[[int], float], ratio: Callable[[int], float]
) -> float:
    """Sum the shorter side of a distribution on 0…total from ``errors`` on, by the ratio of neighbouring masses."""
    if above_mean:
        return min(1.0, _sum_from(errors, total, exp(log_mass(errors)), ratio))
    term = exp(log_mass(errors - 1))
    below = term
    for k in range(errors - 2, -1, -1):
        term /= ratio(k)
        below += term
        if term < below * _NEGLIGIBLE:
            break
    return min(1.0, max(0.0, 1.0 - below))


def _sum_from(first: int, total: int, term: float, ratio: Callable[[int], float]) -> float:
    whole = term
    for k in range(first, total):
        term *= ratio(k)
        whole += term
        if term < whole * _NEGLIGIBLE:
            break
    return whole


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def ratio_p_value(
    treated: float, treated_exposure: float, other: float, other_exposure: float, *, ratio: float, variance: float
) -> float:
    """Test "treated error rate ≤ ratio × the other's" against "greater", one-sided, given the sum of both counts.

    ``variance`` is that of the log ratio between sides that have nothing wrong (0: exact conditional binomial).
    More treated errors never raise the result.
    """
    errors, total = _scaled(treated, other)
    share = treated_exposure * ratio / (treated_exposure * ratio + other_exposure)
    if variance < _NO_SPREAD:
        return binomial_tail(errors, total, share)
    nu = max(1.0 / (share * (1.0 - share) * variance) - 1.0, _SMALLEST_NU)
    return beta_binomial_tail(errors, total, nu * share, nu * (1.0 - share))


def _scaled(treated: float, other: float) -> tuple[int, int]:
    errors, rest = int(treated + 1e-9), int(other + 1e-9)
    total = errors + rest
    if total <= LARGEST_TOTAL:
        return errors, total
    return errors * LARGEST_TOTAL // total, LARGEST_TOTAL


def share_limits(errors: float, requests: float, *, alpha: float) -> tuple[float, float]:
    """Give the Clopper-Pearson limits of an error share, each one-sided at 1 − alpha."""
    n = int(requests + 1e-9)
    k = min(int(errors + 1e-9), n)
    if n == 0:
        return 0.0, 1.0
    low = 0.0 if k == 0 else _share_crossing(lambda share: binomial_tail(k, n, share) > alpha)
    high = 1.0 if k == n else _share_crossing(lambda share: 1.0 - binomial_tail(k + 1, n, share) <= alpha)
    return low, high


def _share_crossing(beyond: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return (low + high) / 2
