"""Judges of a simulated wave, look by look: ours, a z-test at every look, and Kayenta's rule at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import erfc

import numpy as np

from patching.canary.counts import beside_control, past_course
from patching.canary.eprocess import mean_evidence
from patching.canary.gauges import RANK_SHARE
from patching.canary.levels import Scale, shift_beside, shift_since
from patching.canary.ranks import greater, smallest_p
from patching.canary.sides import Measurements
from simulated_fleet import AFTER, COMPARE, FIRST, Found


@dataclass(frozen=True)
class Seen:
    """Evidence at every look, the level at which it alarms, and whether the one look at ranks alarmed at the end."""

    evidence: np.ndarray
    level: float
    by_ranks: bool = False

    @cached_property
    def stop(self) -> int | None:
        """Give the first look that alarms."""
        reached = np.flatnonzero(self.evidence * self.level >= 1)
        if len(reached):
            return int(reached[0])
        return len(self.evidence) - 1 if self.by_ranks else None


Judge = Callable[[Found, float], "Seen | None"]


def sequential(found: Found, level: float, *, last: bool = True, past: bool = True) -> Seen | None:
    """Our judge: beside the control, or (``past``) against the time before where there is no fair control.

    ``last`` is the end of the soak, when a gauge's ranks are looked at.
    """
    if isinstance(found, Measurements):
        pair = beside_control(found, COMPARE, level)
        if not isinstance(pair, str):
            return Seen(pair.evidence(), level)
        return Seen(past_course(found, COMPARE, level).evidence, level) if past else None
    shift = shift_beside(found, Scale(None)) if found.control.targets else shift_since(found, Scale(None))
    if shift is None:
        return None
    ranked = last and smallest_p(len(shift.treated), len(shift.other)) <= RANK_SHARE * level
    mine = level * (1 - RANK_SHARE) if ranked else level
    by_ranks = ranked and greater(shift.treated, shift.other) <= RANK_SHARE * level
    return Seen(mean_evidence(shift.course, shift.variance, 0.0, shift.freedom), mine, by_ranks)


def naive(found: Found, level: float) -> Seen:
    """A z-test at every look: of two shares, or of two means as if points were independent; its "evidence" is 1/p."""
    if isinstance(found, Measurements):
        (failed, asked), (others, rest) = found.canary.cumulative(), _counted(found)
        pooled = (failed + others) / (asked + rest)
        error = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / asked + 1 / rest), 1e-300))
        z = (failed / asked - others / rest) / error
    else:
        (mean, square), (other, other_square) = _moments(found.canary.values), _moments(_beside(found).values)
        z = (mean - other) / np.sqrt(np.maximum(square + other_square, 1e-300))
    tails = np.array([erfc(value / 2**0.5) / 2 for value in z[FIRST - 1 :]])
    return Seen(1 / np.maximum(tails, 1e-300), level)


def kayenta(found: Found, level: float) -> Seen:
    """Kayenta's rule once, at the end, over the points of the groups' series."""
    evidence = np.zeros(AFTER - FIRST + 1)
    evidence[-1] = 2 / level if kayenta_high(_points(found.canary), _points(_beside(found))[-AFTER:]) else 0.0
    return Seen(evidence, level)


def kayenta_high(treated: np.ndarray, points: np.ndarray) -> bool:
    """Classify as Kayenta does: Mann-Whitney's 98 % interval, a quarter of the Hodges-Lehmann shift as tolerance.

    High where the lower limit of the shift exceeds a quarter of the shift.
    """
    differences = np.sort(np.subtract.outer(treated, points).ravel())
    m, n = len(treated), len(points)
    middle = float(np.median(differences))
    reach = 2.326 * (m * n * (m + n + 1) / 12) ** 0.5
    lower = float(differences[max(0, int(m * n / 2 - reach))])
    return bool(middle > 0 and lower > 0.25 * middle)


def _beside(found: Found):  # type: ignore[no-untyped-def]
    return found.control if found.control.targets else found.before


def _points(side) -> np.ndarray:  # type: ignore[no-untyped-def]
    if hasattr(side, "errors"):
        return np.nansum(side.errors, axis=0) / np.nansum(side.requests, axis=0)
    return np.nanmean(side.values, axis=0)


def _counted(found: Measurements) -> tuple[np.ndarray, np.ndarray]:
    if found.control.targets:
        return found.control.cumulative()
    failed, asked = found.before.totals()
    return np.full(AFTER, failed), np.full(AFTER, asked)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the mean of all points up to each look, and its squared standard error."""
    number = len(values) * np.arange(1, values.shape[1] + 1)
    mean = np.cumsum(values.sum(axis=0)) / number
    spread = np.cumsum((values**2).sum(axis=0)) / number - mean**2
    return mean[:AFTER] if values.shape[1] <= AFTER else np.full(AFTER, mean[-1]), (
        spread / number if values.shape[1] <= AFTER else np.full(AFTER, spread[-1] / number[-1])
    )
