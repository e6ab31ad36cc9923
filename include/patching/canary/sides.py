"""Sides of a comparison: what was counted on changed and unchanged targets, and who of them has no traffic; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from patching.canary.panel import Panel, panel_of
from patching.canary.series import STALE_SCRAPES
from patching.canary.spread import FEWEST_WINDOWS
from patching.sources.base import Sample

STARVED = 0.1
"""A target with less than this share of the requests that the reference's change predicts does not answer properly."""

FIRST_LOOK = 20
"""Looks (scrapes) before the first evaluation: placebo windows of that length must contain the autocorrelation."""


SHORTEST_FIRST = 10
"""Looks of a first evaluation that is shortened so that three placebo windows fit into a short time before."""


def looks_first(wanted: int, before: int, after: int) -> int:
    """Give the looks of the first evaluation: ``wanted``, fewer if the time before is short, never more than there are.

    It follows from what was fixed when the wave started, not from what came.
    """
    fitting = before // FEWEST_WINDOWS
    first = fitting if SHORTEST_FIRST <= fitting < wanted else wanted
    return max(1, min(first, after))


@dataclass(frozen=True)
class Measurements:
    """Everything one check of counters looks at: canary and control, since the change and before it.

    ``first`` is how many looks after the change are waited for before the first evaluation. It must be fixed when the
    wave starts, not chosen by what came.
    """

    canary: Panel
    control: Panel
    before: Panel
    control_before: Panel
    first: int = FIRST_LOOK

    @classmethod
    def of_samples(
        cls,
        canary: Sequence[Sample],
        control: Sequence[Sample] = (),
        before: Sequence[Sample] = (),
        control_before: Sequence[Sample] = (),
        first: int = FIRST_LOOK,
    ) -> Measurements:
        """Arrange samples: one a target and look; one a target in all is a single look."""
        return cls(panel_of(canary), panel_of(control), panel_of(before), panel_of(control_before), first)

    @property
    def first_look(self) -> int:
        """Number of looks in the first evaluation, see ``looks_first``."""
        return looks_first(self.first, self.before.looks, self.canary.looks)


@dataclass(frozen=True)
class Counts:
    """Errors and requests of one side, summed over its targets that have data."""

    errors: float
    requests: float
    hosts: int

    @property
    def share(self) -> float | None:
        """Error share, None without requests; at most 1."""
        return min(1.0, self.errors / self.requests) if self.requests > 0 else None

    @property
    def per_host(self) -> float | None:
        """Requests of a host, None without hosts."""
        return self.requests / self.hosts if self.hosts else None


def counts(panel: Panel) -> Counts:
    """Sum the targets that have data."""
    known = panel.with_data()
    return Counts(*known.totals(), len(known.targets))


def without_traffic(measured: Measurements) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the changed targets that fell silent or starve, and those that got no request before nor after.

    A target is expected to get the requests of its own before, scaled by what became of the control's. One whose last
    scrape is older than three of its scrapes fell silent, too.
    """
    earlier = dict(zip(measured.before.targets, _requests(measured.before), strict=True))
    expected = _expected_change(measured)
    silent, idle = [], []
    stale = _stale(measured.canary)
    for name, asked, old in zip(measured.canary.targets, _requests(measured.canary), stale, strict=True):
        then = earlier.get(name)
        if asked == 0 and then == 0 and not old:
            idle.append(name)
        elif not asked or old or (then and asked < STARVED * expected(then)):
            silent.append(name)
    return tuple(sorted(silent)), tuple(sorted(idle))


def _requests(panel: Panel) -> list[float | None]:
    known = np.isfinite(panel.requests)
    sums = np.where(known, panel.requests, 0.0).sum(axis=1)
    some = np.any(known, axis=1).tolist()
    return [float(total) if seen else None for total, seen in zip(sums.tolist(), some, strict=True)]


def _stale(panel: Panel) -> list[bool]:
    """Say of each target whether its newest look with data is more than three of its own distances from the end."""
    if panel.looks < 2:
        return [False] * len(panel.targets)
    found = []
    for row in list(np.isfinite(panel.requests)):
        at = panel.ends[row]
        gap = float(np.median(np.diff(at))) if len(at) > 1 else float(panel.ends[-1] - panel.start)
        found.append(bool(len(at)) and float(panel.ends[-1] - at[-1]) > STALE_SCRAPES * gap)
    return found


def _expected_change(measured: Measurements) -> Callable[[float], float]:
    """Predict a target's requests from its own before, the windows' lengths, and what became of the control's."""
    alive = {
        name
        for name, asked in zip(measured.control.targets, _requests(measured.control), strict=True)
        if asked is not None
    }
    now = sum(asked or 0.0 for asked in _requests(measured.control.of(alive)))
    then = sum(asked or 0.0 for asked in _requests(measured.control_before.of(alive)))
    then_rate = then / measured.control_before.seconds
    change = min(1.0, now / measured.control.seconds / then_rate) if then_rate > 0 else 1.0
    scale = measured.canary.seconds / measured.before.seconds * change
    return lambda earlier: earlier * scale
