"""How long each host's own patch takes, and the least time in which anybody can roll it out."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

MEDIAN, SPREAD = 2.0, 0.6
STRAGGLERS, SLOWER = 0.02, 4.0


def durations(count: int, seed: int) -> list[float]:
    """Draw log-normal seconds (median 2, sigma 0.6); two in a hundred are stragglers, four times as slow."""
    drawn = random.Random(seed)  # noqa: S311 - repeatable, not secret
    found = []
    for _ in range(count):
        seconds = drawn.lognormvariate(0.0, SPREAD) * MEDIAN
        found.append(round(seconds * (SLOWER if drawn.random() < STRAGGLERS else 1.0), 3))
    return found


def bound(seconds: Sequence[float], window: int) -> float:
    """List scheduling of the hosts' own seconds in their order, ``window`` at once, with a controller that is free."""
    free = [0.0] * min(window, len(seconds))
    for item in seconds:
        heapq.heappush(free, heapq.heappop(free) + item)
    return max(free)
