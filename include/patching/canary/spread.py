"""Spread: how much hosts with nothing wrong differ, from the time before the wave; pure.

Two numbers, both standard deviations of a log ratio of error rates, both net of the chance in the counts themselves:

* ``between``: lasting differences between hosts, from their totals before;
* ``within``: how a host's own ratio moves, from *placebo windows* before the wave, as long as the first look. So it
  contains the autocorrelation of the series; from single scrapes it would be far too small.

Moment estimates of a negative binomial (McCullagh and Nelder, Generalized Linear Models, §6.2), raised to their upper
80 % limit: σ·√(df/χ²) for the hosts (Wilson and Hilferty, PNAS 17, 1931) and 0.84 standard errors for the counts. A
host counts by its errors, here and in the sum that is judged, so unlike hosts are worth fewer than there are: as
degrees of freedom (Satterthwaite, Biometrics 2, 1946) and as hosts of a side (Kish, Survey Sampling, 1965).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from patching.canary.loggamma import Floats
from patching.canary.panel import Panel

LEAST = 0.1
"""Spread that is always assumed: no fleet is perfectly alike."""

ASSUMED = 0.3
"""Spread that is assumed where the time before is too short or has too few errors to tell."""

LEAST_VARIANCE = 0.05**2
"""Variance of the log ratio of two sides that is always assumed, however many hosts they have."""

FEWEST_WINDOWS = 3
_UPPER = 0.8416


@dataclass(frozen=True)
class Reference:
    """What the time before says: r with its variance, the spreads, from how many windows; what the bound rests on.

    ``worth`` is how many equal hosts each side's were worth, see ``worth``.
    """

    log_ratio: float
    ratio_variance: float
    between: float
    within: float
    windows: int
    known: bool
    worth: tuple[float, float] = (inf, inf)

    def variance(self, treated: int, other: int) -> float:
        """Give v of the host effect for so many hosts on each side."""
        hosts = sum(1 / max(min(number, most), 1) for number, most in zip((treated, other), self.worth, strict=True))
        lasting = 1 + 1 / self.windows if self.windows else 1.0
        return max(self.within**2 * hosts * lasting + self.ratio_variance, LEAST_VARIANCE)


def raised(variance: float, freedom: float) -> float:
    """Raise an estimated variance to its upper 80 % limit; without a degree of freedom it says nothing (inf)."""
    if freedom < 1:
        return inf
    quantile = freedom * max(1 - 2 / (9 * freedom) - _UPPER * (2 / (9 * freedom)) ** 0.5, 0.0) ** 3
    return inf if quantile <= 0 else variance * freedom / quantile


def _moment(errors: Floats, expected: Floats, freedom: int) -> tuple[float, float]:
    """Give σ² (may be negative) beyond Poisson, and its standard error where there is none."""
    weight = float((expected**2).sum())
    if weight <= 0 or freedom < 1:
        return 0.0, inf
    correction = errors.size / freedom
    excess = float((((errors - expected) ** 2) * correction - expected).sum()) / weight
    return excess, float((2 * expected**2 + expected).sum()) ** 0.5 / weight


def _freedom(expected: Floats, freedom: int) -> float:
    """Give the degrees of freedom of an estimate in which each count weighs by its square; at least one."""
    weight = expected**2
    return max(1.0, freedom * float(weight.sum()) ** 2 / (weight.size * float((weight**2).sum())))


def _cautious(errors: Floats, expected: Floats, freedom: int) -> tuple[float, bool]:
    """Estimate by moments the spread that is used, and say whether it was known at all."""
    excess, error = _moment(errors, expected, freedom)
    estimate = raised(max(excess, 0.0), _freedom(expected, freedom))
    upper = estimate + _UPPER * error
    most = max(ASSUMED**2, estimate if estimate < inf else 0.0)
    return float(np.sqrt(min(max(upper, LEAST**2), most))), _UPPER * error <= ASSUMED**2


def between_hosts(panel: Panel) -> tuple[float, bool]:
    """Give the lasting spread between hosts, from their totals, and whether it is known."""
    failed, asked = panel.by_target()
    alive = asked > 0
    failed, asked = failed[alive], asked[alive]
    if len(asked) < FEWEST_WINDOWS or failed.sum() <= 0:
        return ASSUMED, False
    expected = failed.sum() / asked.sum() * asked
    return _cautious(failed, expected, len(asked) - 1)


def within_hosts(windows: Panel) -> tuple[float, bool]:
    """Give how the hosts' ratios move from placebo window to placebo window, and whether it is known."""
    known = np.isfinite(windows.requests) & (windows.requests > 0)
    full = known.all(axis=1)
    errors, asked = windows.errors[full], windows.requests[full]
    hosts, number = errors.shape
    freedom = (hosts - 1) * (number - 1)
    if hosts < 2 or number < FEWEST_WINDOWS or errors.sum() <= 0:
        return ASSUMED, False
    rate = errors.sum(axis=0) / asked.sum(axis=0)
    level = errors.sum(axis=1) / np.maximum((asked * rate).sum(axis=1), 1e-300)
    return _cautious(errors, asked * rate * level[:, None], freedom)


def over_time(windows: Panel) -> tuple[float, bool]:
    """Give how the rate of all hosts together moves from window to window, and whether it is known."""
    failed = np.nansum(windows.errors, axis=0)
    asked = np.nansum(windows.requests, axis=0)
    alive = asked > 0
    failed, asked = failed[alive], asked[alive]
    if len(asked) < FEWEST_WINDOWS or failed.sum() <= 0:
        return ASSUMED, False
    return _cautious(failed, failed.sum() / asked.sum() * asked, len(asked) - 1)


def reference(canary: Panel, control: Panel, length: int, now: Panel | None = None) -> Reference:
    """Measure r and the spreads before the wave, in placebo windows of ``length`` looks.

    r is shrunk to 1 as far as the counts cannot tell it from the hosts' lasting differences: with its prior variance
    t² = between²·(1/c + 1/k) and that of the counts s² = 1/P_T + 1/P_C, ln r is weighted by t²/(t² + s²) and keeps the
    variance t²·s²/(t² + s²); with many errors before that is E's 1/P_T + 1/P_C. Without any time before, r = 1 and the
    control's own first look, ``now``, says how hosts differ.
    """
    canary, control = canary.with_data(), control.with_data()
    together = _joined(canary, control)
    if not len(canary.targets) or not len(control.targets):
        between, known = between_hosts(now) if now is not None else (ASSUMED, False)
        few = now is None or len(now.with_data().targets) < FEWEST_WINDOWS
        return Reference(0.0, 0.0, between, max(between, ASSUMED) if few else between, 0, known)
    between, _ = between_hosts(together)
    windows = together.windows(length)
    within, known = within_hosts(windows)
    if windows.looks < FEWEST_WINDOWS:
        # One window cannot show how a host moves; its lasting difference is all there is to go by.
        within = max(between if len(together.targets) >= FEWEST_WINDOWS else ASSUMED, LEAST)
    log_ratio, variance = _shrunk(canary, control, between)
    sides = worth(canary, between), worth(control, between)
    return Reference(log_ratio, variance, between, within, windows.looks, known, sides)


def worth(panel: Panel, between: float) -> float:
    """Give how many equal hosts vary as much in their sum as these: 1/Σ p², p being a host's part of their errors.

    A host's errors are what its requests let expect, times its own level: shrunk to 1 as far as the counts cannot tell
    it, with the prior variance ``between``² (gamma).
    """
    failed, asked = panel.by_target()
    prior = 1 / between**2
    part = asked * (failed + prior) / (asked * (failed.sum() / asked.sum()) + prior)
    return float(part.sum() ** 2 / (part**2).sum())


def _shrunk(canary: Panel, control: Panel, between: float) -> tuple[float, float]:
    (failed, asked), (others, other_asked) = canary.totals(), control.totals()
    seen = np.log((failed + 0.5) / asked) - np.log((others + 0.5) / other_asked)
    chance = 1 / (failed + 0.5) + 1 / (others + 0.5)
    prior = between**2 * (1 / len(canary.targets) + 1 / len(control.targets))
    weight = prior / (prior + chance)
    return float(weight * seen), float(weight * chance)


def _joined(one: Panel, two: Panel) -> Panel:
    if one.looks != two.looks:
        looks = min(one.looks, two.looks)
        one, two = one.slice(one.looks - looks, one.looks), two.slice(two.looks - looks, two.looks)
    errors = np.concatenate([one.errors, two.errors])
    requests = np.concatenate([one.requests, two.requests])
    return Panel((*one.targets, *two.targets), one.start, one.ends, errors, requests)
