"""Detectable: which change a metric check would show in a wave, said from the traffic that is expected; pure."""

from __future__ import annotations

from patching.canary.counts import tolerance
from patching.canary.power import LEAST_ERRORS, TYPICAL_SPREAD, bets, seen_at, seen_ratio
from patching.canary.spread import LEAST
from patching.plan.document import PlannedWave
from patching.plan.traffic import Expected
from patching.policy import Check
from patching.quantity import fraction


def seen_beside(check: Check, wave: PlannedWave, share: float, expected: Expected | None) -> str:
    """Say what the comparison with the control can see; at best, where nobody knows how many errors come."""
    ratio = seen_ratio(
        len(wave.targets),
        len(wave.control or ()),
        check.compare.alpha * share,
        tolerance(check.compare),
        TYPICAL_SPREAD,
        expected.errors if expected is not None else None,
        check.compare.direction,
    )
    seen = f"{_ratio(ratio, check)} is seen in 4 of 5 rollouts"
    varying = f"if hosts vary by {percent(TYPICAL_SPREAD)}"
    if expected is None:
        return f"at best {seen}, {varying}"
    said = f"{seen} with {_counted(expected)}, {varying}"
    if expected.control is not None:
        said += f"; a host has {number(expected.a_host)} requests, one of the control {number(expected.control)}"
    return said


def seen_since(check: Check, share: float, expected: Expected | None) -> str:
    """Say what the comparison with the own time before can see: more hosts help only by their errors."""
    if check.metric is None or check.metric.gauge:
        return ""
    variance, errors = TYPICAL_SPREAD**2, None
    if expected is not None:
        variance, errors = variance + 1 / max(expected.past, LEAST_ERRORS), expected.errors
    stakes = bets(1, check.compare.direction)
    ratio = seen_at(variance, errors, check.compare.alpha * share, tolerance(check.compare), stakes)
    best, counted = ("at best ", "") if expected is None else ("", f" with {_counted(expected)}")
    return (
        f"; {best}{_ratio(ratio, check)} is seen in 4 of 5 rollouts{counted}, "
        f"if time moves all of them by {percent(TYPICAL_SPREAD)}"
    )


def seen_over(check: Check, share: float, expected: Expected | None) -> str:
    """Say which share over a fixed limit can be seen."""
    limit = fraction(check.compare.threshold) if check.compare.threshold is not None else None
    if expected is None or limit is None:
        return ""
    stakes = bets(1, check.compare.direction)
    ratio = seen_at(2 * LEAST**2, limit * expected.requests, check.compare.alpha * share, 0.0, stakes)
    shown = percent(min(1.0, ratio * limit))
    return f"; a share of {shown} is seen in 4 of 5 rollouts with {number(expected.requests)} requests"


def _ratio(ratio: float, check: Check) -> str:
    """Write a rise, or a fall where that is the bad direction."""
    if check.compare.direction == "decrease":
        return f"a fall to {1 / ratio:.2f} ×"
    return f"{ratio:.1f} ×" if ratio < 10 else f"{ratio:.0f} ×"


def _counted(expected: Expected) -> str:
    return f"{number(expected.errors)} errors in {number(expected.requests)} requests, as before"


def number(value: float) -> str:
    """Write a count; small ones with a digit after the point."""
    return f"{value:.1f}" if value < 10 and value != round(value) else f"{value:,.0f}".replace(",", " ")


def percent(share: float) -> str:
    """Write a share in percent."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"
