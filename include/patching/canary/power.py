"""Power: the smallest change that a check can see, before the wave in the plan and after it in the verdict; pure.

With evidence that bets on G effects with equal stakes, an alarm at level a needs z ≥ √(2·ln(G/a)) standard errors over
the tolerated increase; 0.84 more are reached in four of five rollouts. So the ratio that is seen in four of five is
exp(δ + √v·(√(2·ln(G/a)) + 0.84)), with v = σ²·(1/c + 1/k) and, with e errors expected at the treated and o at the
other side, 1/e + 1/o on top. A normal approximation of the beta-binomial: good from about ten errors on.
"""

from __future__ import annotations

from math import exp, log, log1p, sqrt

from patching.canary.eprocess import EFFECTS
from patching.canary.spread import LEAST_VARIANCE

TYPICAL_SPREAD = 0.2
"""Spread of hosts (σ) that the plan assumes, which has not measured them yet."""

FOUR_OF_FIVE = 0.8416


def seen_ratio(
    canaries: int, controls: int, level: float, tolerated: float, spread: float, errors: float | None = None
) -> float:
    """Give the ratio of error rates that is seen in four of five rollouts, at the end of the soak.

    ``level`` is alpha times the check's share, ``tolerated`` the tolerated relative increase, ``errors`` what the
    treated side counts without harm (None: so many that only the hosts' spread is left).
    """
    variance = max(spread**2 * (1 / max(canaries, 1) + 1 / max(controls, 1)), LEAST_VARIANCE)
    if errors is not None:
        least = max(errors, 0.5)
        variance += 1 / least + canaries / (least * max(controls, 1))
    distance = sqrt(2 * log(len(EFFECTS) / level)) + FOUR_OF_FIVE
    return exp(log1p(tolerated) + sqrt(variance) * distance)
