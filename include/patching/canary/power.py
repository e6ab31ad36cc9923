"""Power: the smallest change that a check can see, before the wave in the plan and after it in the verdict; pure.

With evidence that bets on G effects with equal stakes, an alarm at level a needs z ≥ √(2·ln(G/a)) standard errors over
the tolerated increase; 0.84 more are reached in four of five rollouts. So the ratio that is seen in four of five is

    R = exp(δ + √v·(√(2·ln(G/a)) + 0.84))

with v = σ²·(1/c + 1/k) + 1/(e·√R) + 1/o for e errors expected at the treated and o at the other side. The chance in
the treated side's counts is taken half-way between no change and R, as the normal approximation of few errors needs it.
Against 60 simulated rollouts for each of fourteen settings (0.02 to 5 errors a host and scrape) R was seen in 82 to
100 % of them: what is said is kept.
"""

from __future__ import annotations

from math import exp, log, log1p, sqrt

from patching.canary.eprocess import EFFECTS
from patching.canary.spread import LEAST_VARIANCE

TYPICAL_SPREAD = 0.2
"""Spread of hosts (σ) that the plan assumes, which has not measured them yet."""

FOUR_OF_FIVE = 0.8416

LEAST_ERRORS = 0.5
"""Errors that are reckoned with where fewer are expected: a counter without errors still sees when they begin."""

MOST = log(1e6)
_ROUNDS = 40


def bets(treated: int, direction: str) -> int:
    """Give on how many effects the stake is: half of it is on single targets, and half on falls with ``either``."""
    return len(EFFECTS) * (2 if treated > 1 else 1) * (2 if direction == "either" else 1)


def seen_ratio(
    canaries: int,
    controls: int,
    level: float,
    tolerated: float,
    spread: float,
    errors: float | None = None,
    direction: str = "increase",
) -> float:
    """Give the ratio of error rates that is seen beside a control in four of five rollouts, at the end of the soak.

    ``level`` is alpha times the check's share, ``tolerated`` the tolerated relative increase, ``errors`` what the
    treated side counts without harm (None: so many that only the hosts' spread is left).
    """
    variance = max(spread**2 * (1 / max(canaries, 1) + 1 / max(controls, 1)), LEAST_VARIANCE)
    if errors is not None:
        variance += canaries / (max(errors, LEAST_ERRORS) * max(controls, 1))
    return seen_at(variance, errors, level, tolerated, bets(canaries, direction))


def seen_at(variance: float, errors: float | None, level: float, tolerated: float, stakes: int) -> float:
    """Give R for a log ratio of this ``variance``, that of the treated side's own ``errors`` not counted in."""
    away = distance(level, stakes)
    found = log1p(tolerated)
    for _ in range(_ROUNDS):
        chance = 0.0 if errors is None else exp(-found / 2) / max(errors, LEAST_ERRORS)
        found = min(log1p(tolerated) + sqrt(variance + chance) * away, MOST)
    return exp(found)


def distance(level: float, stakes: int) -> float:
    """Give how many standard errors over the tolerated change are seen in four of five rollouts."""
    return sqrt(2 * log(stakes / level)) + FOUR_OF_FIVE
