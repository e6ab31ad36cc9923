"""Points: values with their moments, by target, as the looks that the judge compares; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import ceil, isfinite

Points = Mapping[str, Sequence[tuple[float, float]]]
"""Target → (epoch seconds, value)."""

_BLINK = 1e-9


def in_looks(
    points: Points, targets: Iterable[str], start: datetime, end: datetime, number: int
) -> dict[str, list[float | None]]:
    """Give the mean of each target's values in each of ``number`` equal parts of the span; None in an empty one.

    A part begins after its start and has its end. What is no finite number, or outside of the span, is left out.
    """
    first = start.timestamp()
    step = max((end.timestamp() - first) / number, 1e-3)
    found: dict[str, list[float | None]] = {}
    for target in targets:
        parts: list[list[float]] = [[] for _ in range(number)]
        for at, value in points.get(target, ()):
            look = ceil((at - first) / step - _BLINK) - 1
            if 0 <= look < number and isfinite(value):
                parts[look].append(value)
        found[target] = [sum(part) / len(part) if part else None for part in parts]
    return found
