"""Wald's sequential probability ratio test of a failure rate: is it the acceptable or the unacceptable one?

Pure. After ``n`` ended targets of which ``k`` failed, the likelihood ratio of the two rates is

    (p1/p0)^k · ((1-p1)/(1-p0))^(n-k)

It stops at ``(1-beta)/alpha`` or above, and accepts at ``beta/(1-alpha)`` or below (Wald 1945). The engine goes on
watching after an acceptance. That costs nothing: by Ville's inequality the ratio ever reaches the upper limit with a
probability of at most ``alpha/(1-beta)`` while the rate is the acceptable one, however long the wave is and however
often one looks; and the chance to miss the unacceptable rate only gets smaller than Wald's ``beta/(1-alpha)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum

from patching.policy import SequentialTest
from patching.quantity import fraction
from patching.value import Value


class Decision(StrEnum):
    """What the test says so far."""

    GO_ON = "go_on"
    ACCEPT = "accept"
    STOP = "stop"


class Point(Value):
    """The test after ``ended`` targets: the natural logarithms of the ratio and of its two limits."""

    ended: int
    failed: int
    log_ratio: float
    lower: float
    upper: float
    decision: Decision


def rates(rules: SequentialTest) -> tuple[float, float]:
    """Give the acceptable and the unacceptable rate; the policy's rules see to it that they are shares in order."""
    return fraction(rules.acceptable) or 0.0, fraction(rules.unacceptable) or 0.0


def look(rules: SequentialTest, ended: int, failed: int) -> Point:
    """Give the test at one moment; only the two counts matter, not the order in which targets ended."""
    good, bad = rates(rules)
    ratio = failed * math.log(bad / good) + (ended - failed) * math.log((1 - bad) / (1 - good))
    lower, upper = math.log(rules.beta / (1 - rules.alpha)), math.log((1 - rules.beta) / rules.alpha)
    decision = Decision.STOP if ratio >= upper else Decision.ACCEPT if ratio <= lower else Decision.GO_ON
    return Point(ended=ended, failed=failed, log_ratio=ratio, lower=lower, upper=upper, decision=decision)


def walk(rules: SequentialTest, failures: Iterable[bool]) -> list[Point]:
    """Trace the test target by target (True = failed), up to the first that stops it."""
    points: list[Point] = []
    failed = 0
    for ended, bad in enumerate(failures, start=1):
        failed += bad
        points.append(look(rules, ended, failed))
        if points[-1].decision is Decision.STOP:
            break
    return points


def sentence(rules: SequentialTest, point: Point) -> str:
    """Say why the test stops, with its numbers and its error rates."""
    return (
        f"{point.failed} of {point.ended} ended have failed, which is {math.exp(point.log_ratio):.3g} times likelier "
        f"at a failure rate of {rules.unacceptable} than at {rules.acceptable} "
        f"(the limit is {math.exp(point.upper):.3g}: alpha {rules.alpha:g}, beta {rules.beta:g})"
    )
