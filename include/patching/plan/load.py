"""Load: how busy targets were before the rollout, and which others were about as busy; pure.

Whoever is busier has other errors and other latencies, so a control is compared at about the same load. The load is
known before anything is changed: nobody chooses a control by how it turns out.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Self

from patching.canary.words import ALIKE
from patching.policy import Check
from patching.value import Value

IDLE = 1e-3
"""Requests a second below which one target is as idle as another: one in a quarter of an hour."""

DIGITS = 4
SHOWN = 3


class Loads(Value):
    """Load of each target as one check told it when planning: requests a second, or a gauge's mean value."""

    check: str
    unit: Literal["requests", "value"]
    of: dict[str, float]

    @property
    def relative(self) -> bool:
        """Whether loads are near by their ratio; a gauge that is not above 0 everywhere has only differences."""
        return self.unit == "requests" or all(load > 0 for load in self.of.values())

    def positions(self) -> dict[str, float]:
        """Give each target's place on the scale on which loads are near: the logarithm, or the value itself."""
        if not self.relative:
            return dict(self.of)
        least = IDLE if self.unit == "requests" else 0.0
        return {name: math.log(max(load, least)) for name, load in self.of.items()}

    def among(self, names: Collection[str]) -> Self | None:
        """Give the loads of some targets; None where none of them has one."""
        kept = {name: load for name, load in self.of.items() if name in names}
        return self.model_copy(update={"of": kept}) if kept else None


def by_requests(checks: Sequence[Check], requests: Mapping[str, Mapping[str, float]]) -> Loads | None:
    """Take the load from the check beside a control that counts on most targets, the first of equal ones.

    ``requests`` are those a second, by check and target.
    """
    found = [check.name for check in checks if compares_with_control(check) and requests.get(check.name)]
    if not found:
        return None
    chosen = max(found, key=lambda name: len(requests[name]))
    of = {name: shortened(load) for name, load in sorted(requests[chosen].items())}
    return Loads(check=chosen, unit="requests", of=of)


def by_value(check: Check, values: Mapping[str, Sequence[float | None]]) -> Loads | None:
    """Take a gauge's mean value for the load; None where no target has one."""
    known = {name: [one for one in found if one is not None] for name, found in sorted(values.items())}
    means = {name: shortened(sum(found) / len(found)) for name, found in known.items() if found}
    return Loads(check=check.name, unit="value", of=means) if means else None


def compares_with_control(check: Check) -> bool:
    """Say whether a check compares with a control, so that it matters whom."""
    return check.metric is not None and "control" in check.compare.against


def shortened(load: float) -> float:
    """Round to as many digits as are frozen: the choice is made by what the plan shows."""
    return float(f"{load:.{DIGITS}g}")


def nearest_first(loads: Loads | None, changed: Collection[str], others: Sequence[str]) -> list[str]:
    """Order ``others`` so that the changed targets choose in turn, the busiest first, each the nearest that is left.

    Of two that are equally near, the one that stands first. Whose load is not known comes last, in the given order;
    all of them do where no load of the changed is known.
    """
    at = loads.positions() if loads is not None else {}
    choosing = sorted((at[name] for name in changed if name in at), reverse=True)
    left = sorted((at[name], place, name) for place, name in enumerate(others) if choosing and name in at)
    ordered = [_nearest(left, choosing[turn % len(choosing)]) for turn in range(len(left))]
    chosen = set(ordered)
    return [*ordered, *(name for name in others if name not in chosen)]


def _nearest(left: list[tuple[float, int, str]], position: float) -> str:
    """Take the nearest out of a sorted list: the first of those just above, or of those just below."""
    above = bisect(left, (position,))
    near = left[above : above + 1]
    if above:
        near.append(left[bisect(left, (left[above - 1][0],))])
    taken = min(near, key=lambda one: (abs(one[0] - position), one[1]))
    del left[bisect(left, taken) - 1]
    return taken[2]


def compared(loads: Loads | None, changed: Sequence[str], control: Sequence[str]) -> list[str]:
    """Say how the load of a changed target and of a control compare, and what could not be matched."""
    mine = loads.among(changed) if loads is not None else None
    theirs = loads.among(control) if loads is not None else None
    if loads is None or mine is None or theirs is None:
        return ["load not known, so chosen by service, zone and lot"]
    ours, other = (sum(one.of.values()) / len(one.of) for one in (mine, theirs))
    what = "requests a second a host" if loads.unit == "requests" else f"of {loads.check} a host"
    ratio = f" ({ours / other:.2g} ×)" if loads.relative and other > 0 else ""
    said = [f"{amount(ours)} {what} before, {amount(other)} at the control{ratio}"]
    unlike = _unlike(loads, mine, theirs)
    said += [f"no control within {ALIKE:g} × the load of {few(unlike)}"] if unlike else []
    unknown = [name for name in changed if name not in mine.of]
    return [*said, f"load of {few(unknown)} not known"] if unknown else said


def _unlike(loads: Loads, mine: Loads, theirs: Loads) -> list[str]:
    """Name the changed targets that have no control of a like load, where loads have ratios."""
    if not loads.relative:
        return []
    at = loads.positions()
    there = sorted(at[name] for name in theirs.of)
    reach = math.log(ALIKE)

    def reached(name: str) -> bool:
        above = bisect(there, at[name])
        return any(abs(one - at[name]) <= reach for one in there[max(above - 1, 0) : above + 1])

    return [name for name in mine.of if not reached(name)]


def few(names: Sequence[str]) -> str:
    """List a few targets."""
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def amount(load: float) -> str:
    """Write a load with three digits, or all that are before the point."""
    return f"{load:,.0f}".replace(",", " ") if abs(load) >= 100 else f"{load:.3g}"
