"""The bound of a plot: the most that a check tolerates of the canary's mean since the change; pure.

It says where *more than tolerated* begins, not where an alarm does: that needs evidence beyond chance as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from patching.canary.plot import Plot, Point
from patching.policy import Check
from patching.quantity import fraction


def bounded(plot: Plot, check: Check, comparison: str | None) -> Plot:
    """Add the bound against what the check was compared with, or would be where it was not judged yet (None)."""
    if not plot.changes:
        return plot
    begun = plot.changes[0].at
    chosen = comparison or next((name for name in check.compare.against if _known(name, plot, check, begun)), None)
    values = _reference(chosen, plot, check, begun)
    if plot.unit == "share":
        values = [(at, min(value, 1.0)) for at, value in values]
    return plot.model_copy(update={"tolerated": tuple(Point(at=at, value=value) for at, value in values)})


def _known(name: str, plot: Plot, check: Check, begun: datetime) -> bool:
    if name == "threshold":
        return check.compare.threshold is not None
    points = [point for point in plot.control if point.at > begun] if name == "control" else _before(plot.canary, begun)
    return _mean(points) is not None


def _reference(name: str | None, plot: Plot, check: Check, begun: datetime) -> list[tuple[datetime, float]]:
    since = [point for point in plot.canary if point.at > begun]
    own = _mean(_before(plot.canary, begun))
    if name == "threshold" and check.compare.threshold is not None:
        most = fraction(check.compare.threshold) or 0.0
        return [(point.at, most) for point in since]
    if name == "before" and own is not None:
        return [(point.at, _worst(own, check)) for point in since]
    if name != "control":
        return []
    theirs = _mean(_before(plot.control, begun))
    control = [point for point in plot.control if point.at > begun]
    means = [(point.at, _mean(control[: index + 1])) for index, point in enumerate(control)]
    return [(at, _worst(_alike(mean, own, theirs), check)) for at, mean in means if mean is not None]


def _worst(value: float, check: Check) -> float:
    tolerated = (fraction(check.compare.max_relative_increase) or 0.0) * abs(value)
    return value - tolerated if check.compare.direction == "decrease" else value + tolerated


def _alike(value: float, own: float | None, theirs: float | None) -> float:
    """Put the control's mean to where the canary stood beside it before: twice as high, twice as high."""
    if own is None or theirs is None:
        return value
    return value * own / theirs if own > 0 and theirs > 0 else value + own - theirs


def _before(points: Sequence[Point], begun: datetime) -> list[Point]:
    return [point for point in points if point.at <= begun]


def _mean(points: Sequence[Point]) -> float | None:
    """Give the share of all requests together, or the mean of a gauge's levels."""
    known = [point for point in points if point.value is not None]
    requests = sum(point.requests or 0.0 for point in known)
    if requests > 0:
        return sum(point.errors or 0.0 for point in known) / requests
    return sum(point.value or 0.0 for point in known) / len(known) if known else None
