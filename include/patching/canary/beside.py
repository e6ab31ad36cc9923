"""The treated side beside its control, look by look: as a whole and target by target; pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np

from patching.canary.eprocess import Sides, count_evidence
from patching.canary.loggamma import Floats
from patching.canary.panel import Panel
from patching.canary.spread import Reference

HOST_LOOKS = 2_000
"""Most (target, look) pairs at which single targets are judged; more looks than that are thinned out."""


@dataclass(frozen=True)
class Beside:
    """What is frozen before the first look, and the two panels; ``drift`` shifts the odds of a request.

    ``delta`` is the tolerated log ratio, ``first`` the number of looks in the first evaluation.
    """

    treated: Panel
    control: Panel
    known: Reference
    delta: float
    direction: str
    first: int
    drift: float = 0.0

    @property
    def looks(self) -> slice:
        """Looks that are evaluated."""
        return slice(min(self.first, self.treated.looks) - 1, None)

    def variance(self, treated: int, lasting: float = 0.0) -> float:
        """Give v for so many treated targets, with ``lasting`` differences on top and the drift's square."""
        return self.known.variance(treated, len(self.control.targets)) + lasting + self.drift**2

    def sides(self) -> Sides:
        """Give the cumulative counts of both sides at the evaluated looks."""
        (failed, asked), (others, rest) = self.treated.cumulative(), self.control.cumulative()
        at, variance = self.looks, self.variance(len(self.treated.targets))
        return Sides(failed[at], asked[at], others[at], rest[at], exp(self.known.log_ratio), variance)

    def last(self) -> Sides:
        """Give the counts at the last look as single numbers."""
        sides = self.sides()
        treated, asked = float(sides.treated[-1]), float(sides.treated_exposure[-1])
        other, rest = float(sides.other[-1]), float(sides.other_exposure[-1])
        return Sides(treated, asked, other, rest, sides.ratio, sides.variance)

    def evidence(self) -> Floats:
        """Give E at every evaluated look: half on the whole side, half on its single targets."""
        sides = self.sides()
        whole = self._bet(sides)
        return whole if len(self.treated.targets) < 2 else (whole + self._single_targets(sides)) / 2

    def _bet(self, sides: Sides) -> Floats:
        """Bet on the bad direction, or half on each."""
        if self.direction == "increase":
            return count_evidence(sides, self.delta)
        if self.direction == "decrease":
            return count_evidence(sides.swapped(), self.delta)
        return (count_evidence(sides, self.delta) + count_evidence(sides.swapped(), self.delta)) / 2

    def _single_targets(self, sides: Sides) -> Floats:
        """Bet on every treated target alone and take the mean: a mean of e-processes is one, under any dependence.

        It finds one bad target among many good ones, which the sum hides. A look that is left out bets nothing.
        """
        hosts, number = len(self.treated.targets), len(sides.other)
        step = max(1, -(-hosts * number // HOST_LOOKS))
        chosen = np.arange(number - 1, -1, -step)[::-1]
        failed, asked = (one[:, self.looks][:, chosen] for one in self.treated.each_cumulative())
        # A single target differs lastingly from its side's mean, which r does not take out.
        variance = self.variance(1, self.known.between**2 * (1 - 1 / hosts))
        rest = (sides.other[chosen], sides.other_exposure[chosen], sides.ratio, variance)
        every = np.ones(number)
        every[chosen] = self._bet(Sides(failed, asked, *rest)).mean(axis=0)
        return every
