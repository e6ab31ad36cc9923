"""Levels: gauges and means, one value a host and scrape; how far the treated hosts moved from the others; pure.

A host's level is the mean of its values since the change; positive values are compared by their logarithms, so that
"20 % more" is the same everywhere; others relative to the mean level before. NaN is no data and left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from patching.canary.loggamma import Floats
from patching.canary.sides import looks_first
from patching.canary.spread import ASSUMED, FEWEST_WINDOWS, raised

LEAST_LEVEL = 0.03
"""Relative spread of gauges that is always assumed."""


@dataclass(frozen=True)
class Levels:
    """Values of a gauge, (targets, looks); ``ends`` are the looks' ends in epoch seconds."""

    targets: tuple[str, ...]
    ends: Floats
    values: Floats

    def with_data(self, looks: int | None = None) -> Levels:
        """Give the targets that have a value within the first ``looks`` (all)."""
        keep = np.flatnonzero(np.any(np.isfinite(self.values[:, :looks]), axis=1))
        return Levels(tuple(self.targets[row] for row in keep), self.ends, self.values[keep])

    def of(self, names: tuple[str, ...]) -> Levels:
        """Give the rows of some targets."""
        rows = [index for index, name in enumerate(self.targets) if name in set(names)]
        return Levels(tuple(self.targets[row] for row in rows), self.ends, self.values[rows])

    def running(self) -> Floats:
        """Mean of each target up to each look, NaN before its first value."""
        known = np.isfinite(self.values)
        number = np.cumsum(known, axis=1)
        total = np.cumsum(np.where(known, self.values, 0.0), axis=1)
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    def windows(self, length: int) -> Floats:
        """Mean of each target in placebo windows of ``length`` looks, the newest last; NaN without a value."""
        number = self.values.shape[1] // max(length, 1)
        if not number:
            return np.empty((len(self.targets), 0))
        kept = self.values[:, self.values.shape[1] - number * length :].reshape(len(self.targets), number, length)
        known = np.isfinite(kept)
        total = np.where(known, kept, 0.0).sum(axis=2)
        return np.where(known.any(axis=2), total / np.maximum(known.sum(axis=2), 1), np.nan)


@dataclass(frozen=True)
class LevelMeasurements:
    """Everything one check of a gauge looks at; ``first`` as for counters, fixed when the wave starts."""

    canary: Levels
    control: Levels
    before: Levels
    control_before: Levels
    first: int = 20

    @property
    def first_look(self) -> int:
        """Number of looks in the first evaluation."""
        return looks_first(self.first, len(self.before.ends), len(self.canary.ends))


@dataclass(frozen=True)
class Scale:
    """How levels are compared: by logarithm, or relative to ``base``."""

    base: float | None

    def of(self, values: Floats) -> Floats:
        """Put levels on the scale of relative change."""
        if self.base is not None:
            return values / self.base
        return np.log(values)

    def ratio(self, change: float) -> float:
        """Turn a change on the scale into a factor."""
        return float(np.exp(min(change, 600.0))) if self.base is None else 1.0 + change


def scale_of(*levels: Levels) -> Scale | None:
    """Choose the scale: logarithms if every value is positive, else relative to the mean; None where that is zero.

    ``levels`` are the reference first: its mean is what "relative" means.
    """
    values = [part.values[np.isfinite(part.values)] for part in levels]
    if all((part > 0).all() for part in values):
        return Scale(None)
    base = next((float(np.abs(part).mean()) for part in values if len(part)), 0.0)
    return Scale(base) if base > 0 else None


@dataclass(frozen=True)
class Shift:
    """How far the treated moved, look by look, with the variance of the first look; ``known``: measured, not assumed.

    ``treated`` and ``other`` are each host's own change at the last look, for the rank test. ``freedom``: degrees of
    freedom of a variance that is a bare estimate; inf where it was raised to a limit or assumed.
    """

    course: Floats
    variance: float
    known: bool
    treated: Floats
    other: Floats
    freedom: float = inf


def shift_beside(measured: LevelMeasurements, scale: Scale) -> Shift:
    """Give the difference in differences: treated − control since the change, minus the same before."""
    first = measured.first_look
    canary, control = measured.canary.with_data(first), measured.control.with_data(first)
    after = scale.of(canary.running())[:, first - 1 :], scale.of(control.running())[:, first - 1 :]
    before = (
        measured.before.of(canary.targets).windows(first),
        measured.control_before.of(control.targets).windows(first),
    )
    hosts = 1 / len(canary.targets) + 1 / len(control.targets)
    mine, theirs = _seen(*_alike(*before))
    together = scale.of(np.concatenate((mine, theirs)))
    full = np.atleast_1d(np.all(np.isfinite(together), axis=1))
    if together.shape[1] < FEWEST_WINDOWS or full.sum() < 2 or not full[: len(mine)].any():
        between, known = _between(after[1][:, 0])
        course = np.nanmean(after[0], axis=0) - np.nanmean(after[1], axis=0)
        return Shift(course, max(between, LEAST_LEVEL**2) * hosts, known, after[0][:, -1], after[1][:, -1])
    within = max(_within(together[full]), LEAST_LEVEL**2)
    own = np.nanmean(scale.of(mine), axis=1), np.nanmean(scale.of(theirs), axis=1)
    moved = after[0] - own[0][:, None], after[1] - own[1][:, None]
    course = np.nanmean(moved[0], axis=0) - np.nanmean(moved[1], axis=0)
    variance = within * hosts * (1 + 1 / together.shape[1])
    return Shift(course, variance, True, moved[0][:, -1], moved[1][:, -1])


def shift_since(measured: LevelMeasurements, scale: Scale) -> Shift | None:
    """Give the change of the treated since before; None where the time before is too short to know how they move."""
    first = measured.first_look
    canary = measured.canary.with_data(first)
    (windows,) = _seen(scale.of(measured.before.of(canary.targets).windows(first)))
    if windows.shape[1] < FEWEST_WINDOWS or windows.shape[0] != len(canary.targets):
        return None
    own = np.nanmean(windows, axis=1)
    moved = scale.of(canary.running())[:, first - 1 :] - own[:, None]
    together, number = np.nanmean(windows, axis=0), windows.shape[1]
    variance = max(float(np.nanvar(together, ddof=1)) * (1 + 1 / number), 2 * LEAST_LEVEL**2)
    return Shift(np.nanmean(moved, axis=0), variance, True, moved[:, -1], np.empty(0), number - 1)


def _alike(one: Floats, two: Floats) -> tuple[Floats, Floats]:
    looks = min(one.shape[1], two.shape[1])
    return one[:, one.shape[1] - looks :], two[:, two.shape[1] - looks :]


def _seen(*sides: Floats) -> tuple[Floats, ...]:
    """Leave out the windows in which nobody at all was seen: they say nothing, and are no window that was short."""
    seen = np.isfinite(np.concatenate(sides)).any(axis=0)
    return tuple(side[:, seen] for side in sides)


def _within(levels: Floats) -> float:
    """Give the variance of a host's level from window to window, without what all hosts share (two-way residuals)."""
    residual = levels - levels.mean(axis=1, keepdims=True) - levels.mean(axis=0, keepdims=True) + levels.mean()
    freedom = (levels.shape[0] - 1) * (levels.shape[1] - 1)
    return raised(float((residual**2).sum()) / freedom, freedom)


def _between(levels: Floats) -> tuple[float, bool]:
    """Give the variance between control hosts at their first look, or what is assumed for few."""
    if len(levels) < FEWEST_WINDOWS:
        return ASSUMED**2, False
    return raised(float(levels.var(ddof=1)), len(levels) - 1), True
