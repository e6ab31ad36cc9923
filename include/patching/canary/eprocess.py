"""E-processes: evidence against "not worse than tolerated" that may be looked at after every scrape; pure arrays.

An e-process is a betting score that starts at 1 and, while nothing is wrong, is expected to stay at or below 1. By
Ville's inequality P(it ever reaches 1/a) ≤ a, so an alarm at E ≥ 1/a is false with probability at most a, however often
one looks. (Ville 1939; Ramdas, Grünwald, Vovk and Shafer, Statistical Science 38, 2023.)

Each is a mean, over a grid of effects θ > δ, of likelihood ratios θ : δ, where δ = ln(1 + tolerated increase):

* counts beside a control: beta-binomial, the treated share of all errors (Lindon and Malek, NeurIPS 2022, with a host
  effect of variance v: ν = 1/[π(1−π)·v] − 1);
* counts against a known past: Poisson rate with a gamma prior made from that past (negative binomial);
* means: normal, with the variance of the *first* look. Means of more data vary less, and a likelihood ratio of
  means is a reverse submartingale, so Doob's inequality bounds the maximum over all later looks by the first. Where
  that variance is a bare estimate from few windows, Student's t takes the place of the normal.

The variance is an estimate, and hosts are not as regular as any distribution. So beside hosts both hypotheses are a
mixture: in one wave of two hundred the hosts vary twice as much as was measured (``RESTLESS``). An alarm costs little
more for it, but evidence from far out in the tails, where a spread that is a little too small makes it enormous, is
bounded by two hundred times that of the doubled spread; without it single rollouts carry the mean of E.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, lgamma, log, log1p, pi
from typing import Any

import numpy as np

from patching.canary.loggamma import Floats, log_gamma

EFFECTS = np.log(np.array([1.3, 1.7, 2.5, 4.0, 8.0, 20.0, 60.0]))
"""Effects beyond the tolerated one that the counts bet on, as log ratios, each with the same stake."""

DISTANCES = np.array([1.5, 2.5, 3.5, 5.0, 8.0, 12.0])
"""Effects beyond the tolerated one that the means bet on, in standard errors of the first look."""

RESTLESS, RESTLESS_VARIANCE = 0.005, 4.0
"""Part of all waves in which hosts vary more than measured, and by how much their variance is larger then."""

SMALLEST_NU = 0.05
"""Concentration below which a beta-binomial says nothing any more."""

LARGEST_LOG = 650.0
_WIDEST = log(1e6)


@dataclass(frozen=True)
class Sides:
    """Cumulative errors and exposures of the treated and the other side, one value a look (or one number).

    ``ratio`` is the treated error rate over the other's before the wave; ``variance`` is v of the host effect.
    """

    treated: Any
    treated_exposure: Any
    other: Any
    other_exposure: Any
    ratio: float
    variance: float

    def swapped(self) -> Sides:
        """Give the same with the roles exchanged: evidence for fewer errors, and for upper limits."""
        return Sides(
            self.other, self.other_exposure, self.treated, self.treated_exposure, 1 / self.ratio, self.variance
        )


def count_evidence(sides: Sides, delta: Any) -> Floats:
    """Give E for counts beside a control; ``delta`` is a log ratio, broadcast against the looks.

    A side without exposure gives 1: no bet is made.
    """
    treated = np.asarray(sides.treated, dtype=np.float64)
    other = np.asarray(sides.other, dtype=np.float64)
    exposure = np.asarray(sides.treated_exposure, dtype=np.float64) * sides.ratio
    rest = np.asarray(sides.other_exposure, dtype=np.float64)
    played = (exposure > 0) & (rest > 0)
    odds = np.where(played, exposure, 1.0) / np.where(played, rest, 1.0)
    base = odds * np.exp(np.asarray(delta, dtype=np.float64))
    share = base / (1.0 + base)
    precision = 1.0 / (share * (1.0 - share) * sides.variance)
    # One axis more in front: the tolerated effect first, then all that are bet on.
    bets = base * np.exp(np.concatenate([[0.0], EFFECTS])).reshape(-1, *[1] * np.broadcast(treated, base).ndim)
    shares = bets / (1.0 + bets)
    mass = _mixed(
        *(
            _beta_binomial(treated, other, np.maximum(precision / variance - 1.0, SMALLEST_NU), shares)
            for variance in (1.0, RESTLESS_VARIANCE)
        )
    )
    ratios = np.exp(np.minimum(mass[1:] - mass[0], LARGEST_LOG)).mean(axis=0)
    return np.where(played, ratios, 1.0)


def _mixed(usual: Floats, restless: Floats) -> Floats:
    """Mix two log masses."""
    return np.logaddexp(usual + log1p(-RESTLESS), restless + log(RESTLESS))


def _beta_binomial(treated: Floats, other: Floats, nu: Floats, share: Floats) -> Floats:
    """Give the log mass of a beta-binomial without the factors that depend on the counts alone."""
    a, b = nu * share, nu * (1.0 - share)
    whole = log_gamma(nu) - log_gamma(nu + treated + other)
    return log_gamma(treated + a) - log_gamma(a) + log_gamma(other + b) - log_gamma(b) + whole


@dataclass(frozen=True)
class Past:
    """Cumulative errors and exposure, one value a look, against a rate known from before.

    The rate has mean ``rate`` and relative variance ``variance`` (of its estimate and of time itself together).
    """

    errors: Any
    exposure: Any
    rate: float
    variance: float


def past_evidence(past: Past, delta: Any, sign: int = 1) -> Floats:
    """Give E for counts against the past: with shape s = 1/v, exp((θ−δ)·C)·[(s/m + x·e^δ)/(s/m + x·e^θ)]^(s+C).

    ``sign`` −1 bets on effects below δ.
    """
    errors = np.asarray(past.errors, dtype=np.float64)
    exposure = np.asarray(past.exposure, dtype=np.float64)
    shape = 1.0 / past.variance
    inverse = shape / past.rate
    tolerated = exposure * np.exp(np.asarray(delta, dtype=np.float64))
    total = np.zeros(np.broadcast(errors, tolerated).shape)
    for effect in sign * EFFECTS:
        shrink = np.log(inverse + tolerated) - np.log(inverse + tolerated * np.exp(effect))
        total = total + np.exp(np.minimum(effect * errors + (shape + errors) * shrink, LARGEST_LOG))
    return np.asarray(total / len(EFFECTS), dtype=np.float64)


def mean_evidence(difference: Any, variance: float, delta: Any, freedom: float = inf) -> Floats:
    """Give E for a difference of means whose first look has ``variance``: mean of φ(z − g)/φ(z), z from δ, φ mixed.

    With ``freedom``, the variance being a bare estimate with so many degrees of it, φ is Student's density, and the one
    bet is on all distances at once (``_far``): single ones would leave gaps that a larger effect falls into.
    """
    z = (np.asarray(difference, dtype=np.float64) - np.asarray(delta, dtype=np.float64)) / variance**0.5
    if freedom < inf:
        restless = _student(z / RESTLESS_VARIANCE**0.5, freedom) - log(RESTLESS_VARIANCE) / 2
        return np.asarray(np.exp(np.minimum(_far(z) - _mixed(_student(z, freedom), restless), LARGEST_LOG)))
    square = (z - np.append(0.0, DISTANCES).reshape(-1, *[1] * z.ndim)) ** 2
    mass = _mixed(-square / 2, -square / (2 * RESTLESS_VARIANCE) - log(RESTLESS_VARIANCE) / 2)
    return np.asarray(np.exp(np.minimum(mass[1:] - mass[0], LARGEST_LOG)).mean(axis=0), dtype=np.float64)


def mean_needed(level: float, freedom: float) -> float:
    """Give z, in standard errors from δ, at which the evidence of so many degrees of freedom reaches 1/level."""
    low, high = 0.0, 1e9
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if float(mean_evidence(middle, 1.0, 0.0, freedom)) >= 1 / level else (middle, high)
    return high


def _student(z: Floats, freedom: float) -> Floats:
    """Give the log density of Student's t."""
    constant = lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - log(freedom * pi) / 2
    return constant - (freedom + 1) / 2 * np.log1p(z**2 / freedom)


def _far(z: Floats) -> Floats:
    """Give the log density of the positive half of Student's t with half a degree of freedom, four times as wide."""
    return np.where(z > 0, log(2 / 4) + _student(z / 4, 0.5), -inf)


def lower_limit(evidence: Any, level: float) -> float | None:
    """Give the largest δ that the evidence rejects at ``level``, None if it rejects none within a millionfold.

    ``evidence`` maps an array of δ to E at one look and falls with δ. Inverting an e-process gives a limit that holds
    at every look at once (a confidence sequence).
    """
    low, high = -_WIDEST, _WIDEST
    for _ in range(3):
        grid = np.linspace(low, high, 65)
        rejected = np.flatnonzero(evidence(grid) >= 1.0 / level)
        if not len(rejected):
            return None
        last = int(rejected[-1])
        if last == len(grid) - 1:
            return inf
        low, high = float(grid[last]), float(grid[last + 1])
    return low


def ratio_limits(sides: Sides, level: float) -> tuple[float | None, float | None]:
    """Give the lower and the upper limit of the true ratio at one look, each at 1 − level; None = unbounded."""
    low = lower_limit(lambda delta: count_evidence(sides, delta), level)
    high = lower_limit(lambda delta: count_evidence(sides.swapped(), delta), level)
    return _exp(low), _exp(None if high is None else -high)


def past_limits(past: Past, level: float) -> tuple[float | None, float | None]:
    """Give the limits of the true ratio to the past at one look, each at 1 − level; None = unbounded."""
    low = lower_limit(lambda delta: past_evidence(past, delta), level)
    high = lower_limit(lambda delta: past_evidence(past, -delta, sign=-1), level)
    return _exp(low), _exp(None if high is None else -high)


def mean_limits(
    difference: float, variance: float, level: float, freedom: float = inf
) -> tuple[float | None, float | None]:
    """Give the limits of the true log ratio of means at one look, each at 1 − level."""
    low = lower_limit(lambda delta: mean_evidence(difference, variance, delta, freedom), level)
    high = lower_limit(lambda delta: mean_evidence(-difference, variance, delta, freedom), level)
    return low, None if high is None else -high


def _exp(value: float | None) -> float | None:
    return None if value is None or abs(value) == inf else float(np.exp(value))
