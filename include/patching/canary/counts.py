"""Errors among requests: the evidence beside the control, against the time before, and against a fixed limit; pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log, log1p

import numpy as np

from patching.canary.beside import Beside
from patching.canary.eprocess import Past, Sides, past_evidence, past_limits, ratio_limits
from patching.canary.exact import ratio_p_value, share_limits
from patching.canary.loggamma import Floats
from patching.canary.panel import Panel
from patching.canary.power import LEAST_ERRORS, bets, seen_at
from patching.canary.sides import Counts, Measurements, counts
from patching.canary.spread import ASSUMED, LEAST, Reference, over_time, reference
from patching.canary.verdicts import Finding, Numbers
from patching.canary.words import conclusion, percent, shares
from patching.policy import Compare
from patching.quantity import fraction

CONTROL_TEST = "e-process of counts beside a control (beta-binomial), valid at every look"
PAST_TEST = "e-process of counts against the past (negative binomial), valid at every look"
LIMIT_TEST = "e-process of counts against a fixed limit (negative binomial), valid at every look"

LEANING = 4.0
"""A wave whose one-look p-value is below this many times its level is not promoted: more data must tell."""

UNLIKE = log(3.0)
"""Difference of treated and control before the change beyond which the control represents nobody."""

MOST_EVIDENCE = 1e12
"""Evidence is recorded up to this: beyond it numbers mean nothing, and JSON cannot keep them."""

DRIFT = log(2.0)
"""Shift of the treated side's odds of a request beyond which nothing is promoted on the control."""


@dataclass(frozen=True)
class Course:
    """The evidence look by look, and what the last look says."""

    evidence: Floats
    ends: Floats
    low: float | None
    high: float | None
    p_value: float
    seen: float

    def alarm_at(self, level: float) -> datetime | None:
        """Give the end of the first look whose evidence reaches 1/level."""
        found = np.flatnonzero(self.evidence >= 1.0 / level)
        return datetime.fromtimestamp(float(self.ends[found[0]]), UTC) if len(found) else None


Comparison = Callable[[Measurements, Compare, float], "Finding | str"]
"""Compare the treated with one reference at a level, or say why that reference has no data."""


def against_control(measured: Measurements, compare: Compare, level: float) -> Finding | str:
    """Compare with the targets that are not changed yet, in the same looks, relative to both sides before."""
    pair = beside_control(measured, compare, level)
    if isinstance(pair, str):
        return pair
    last, evidence = pair.last(), pair.evidence()
    ends = pair.treated.ends[pair.looks]
    seen = _seen(last, len(pair.treated.targets), compare, level)
    course = Course(evidence, ends, *ratio_limits(last, level), _tail(last, compare), seen)
    number = len(pair.control.targets)
    label = f"{number} unchanged target{'s' if number > 1 else ''}"
    sides = counts(pair.treated), counts(pair.control)
    return _finding("control", CONTROL_TEST, label, sides, compare, level, course, pair.known, drift=pair.drift)


def beside_control(measured: Measurements, compare: Compare, level: float) -> Beside | str:
    """Freeze everything that the comparison with the control needs, or say why it cannot be made."""
    treated, control = measured.canary.with_data(), measured.control.with_data()
    lacking = _lacking(counts(control), compare, "the control")
    if lacking:
        return lacking
    if not treated.targets:
        return "the treated targets had no requests"
    first = measured.first_look
    before = measured.before.of(treated.targets), measured.control_before.of(control.targets)
    known = reference(*before, first, now=control.slice(0, min(first, control.looks)))
    unlike = _unlike(*before, known, compare, level)
    if unlike:
        return unlike
    drift = _drift(treated, control, *before)
    wide = drift if abs(drift) > DRIFT else 0.0
    return Beside(treated, control, known, log1p(tolerance(compare)), compare.direction, first, wide)


def _seen(sides: Sides, hosts: int, compare: Compare, level: float) -> float:
    """Give the ratio that so many counts and hosts show, from what both sides would have counted without a change."""
    mine, theirs = sides.treated_exposure * sides.ratio, sides.other_exposure
    rate = (sides.treated + sides.other) / (mine + theirs)
    variance = sides.variance + 1 / max(rate * theirs, LEAST_ERRORS)
    seen = seen_at(variance, rate * mine, level, tolerance(compare), bets(hosts, compare.direction))
    return _turned(seen, compare)


def _turned(seen: float, compare: Compare) -> float:
    """Give a fall instead of a rise where that is the bad direction."""
    return 1 / seen if compare.direction == "decrease" else seen


def _tail(sides: Sides, compare: Compare) -> float:
    """Give the one-look p-value of the bad direction, for leaning only."""
    ratio = (1 + tolerance(compare)) * sides.ratio
    totals = (sides.treated, sides.treated_exposure, sides.other, sides.other_exposure)
    more = ratio_p_value(*totals, ratio=ratio, variance=sides.variance)
    if compare.direction == "increase":
        return more
    fewer = ratio_p_value(
        *totals[2:], *totals[:2], ratio=(1 + tolerance(compare)) / sides.ratio, variance=sides.variance
    )
    return fewer if compare.direction == "decrease" else min(1.0, 2 * min(more, fewer))


def _unlike(before: Panel, control: Panel, known: Reference, compare: Compare, level: float) -> str | None:
    """Say why the control is no fair reference: the treated targets plainly differed from it before the change."""
    treated, other = counts(before), counts(control)
    if abs(known.log_ratio) <= UNLIKE or min(treated.requests, other.requests) < compare.min_requests:
        return None
    fewer = known.log_ratio < 0
    first, second = (other, treated) if fewer else (treated, other)
    variance = ASSUMED**2 * (1 / first.hosts + 1 / second.hosts)
    sides = (first.errors, first.requests, second.errors, second.requests)
    if ratio_p_value(*sides, ratio=1 + tolerance(compare), variance=variance) > level:
        return None
    said = f"{percent(treated.share)} against {percent(other.share)}"
    return f"the treated targets had {'fewer' if fewer else 'more'} errors than it before the change ({said})"


def _drift(treated: Panel, control: Panel, before: Panel, control_before: Panel) -> float:
    """Give the shift of the log odds that a request goes to the treated side, over targets with data both times."""
    both, rest = treated.of(before.with_data().targets), control.of(control_before.with_data().targets)
    now = both.totals()[1], rest.totals()[1]
    then = before.of(both.targets).totals()[1], control_before.of(rest.targets).totals()[1]
    if min(*now, *then) <= 0:
        return 0.0
    return log(now[0] / now[1]) - log(then[0] / then[1])


def against_before(measured: Measurements, compare: Compare, level: float) -> Finding | str:
    """Compare the treated targets with themselves before the change."""
    treated = measured.canary.with_data()
    before = counts(measured.before.of(treated.targets))
    lacking = _lacking(before, compare, "the time before")
    if lacking:
        return lacking
    if not treated.targets:
        return "the treated targets had no requests"
    course = past_course(measured, compare, level)
    return _finding("before", PAST_TEST, "the time before", (counts(treated), before), compare, level, course)


def past_course(measured: Measurements, compare: Compare, level: float) -> Course:
    """Follow the treated targets against their own time before; time moves all alike, so more hosts help nothing."""
    treated = measured.canary.with_data()
    before, first = measured.before.of(treated.targets), measured.first_look
    windows = before.windows(first)
    moved, known = over_time(windows)
    moving = moved**2 * (1 + 1 / windows.looks) if known else 0.0
    failed, asked = before.totals()
    past = (failed + 1) / asked, 1 / (failed + 1) + max(moving, 2 * LEAST**2)
    return _against_past(treated, past, log1p(tolerance(compare)), compare, level, first)


def against_threshold(measured: Measurements, compare: Compare, level: float) -> Finding | str:
    """Compare the treated error share with the policy's absolute limit."""
    if compare.threshold is None:
        return "the policy sets none"
    limit = fraction(compare.threshold)
    if limit is None:
        return f'threshold "{compare.threshold}" is no percentage'
    treated = measured.canary.with_data()
    if not treated.targets:
        return "the treated targets had no requests"
    course = _against_past(treated, (max(limit, 1e-9), 2 * LEAST**2), 0.0, compare, level, measured.first_look)
    return _finding("threshold", LIMIT_TEST, "", (counts(treated), None), compare, level, course, limit=limit)


def _against_past(
    treated: Panel, past: tuple[float, float], delta: float, compare: Compare, level: float, first: int
) -> Course:
    failed, asked = treated.cumulative()
    looks = slice(min(first, treated.looks) - 1, None)
    rate, variance = past
    seen = Past(failed[looks], asked[looks], rate, variance)
    evidence = [
        past_evidence(seen, sign * delta, sign)
        for sign in {"increase": (1,), "decrease": (-1,), "either": (1, -1)}[compare.direction]
    ]
    last = Past(float(failed[-1]), float(asked[-1]), rate, variance)
    # The past weighs as much as a control of that many errors would.
    other = max(1.0, 1 / variance)
    beside = Sides(float(failed[-1]), float(asked[-1]), other, other / rate, 1.0, 2 * LEAST**2)
    p_value = _tail(beside, compare if delta else compare.model_copy(update={"max_relative_increase": "0%"}))
    limits = past_limits(last, level)
    shown = seen_at(variance, rate * float(asked[-1]), level, float(np.expm1(delta)), bets(1, compare.direction))
    return Course(np.mean(evidence, axis=0), treated.ends[looks], *limits, p_value, _turned(shown, compare))


COMPARISONS: dict[str, Comparison] = {
    "control": against_control,
    "before": against_before,
    "threshold": against_threshold,
}


def _finding(
    comparison: str,
    test: str,
    label: str,
    sides: tuple[Counts, Counts | None],
    compare: Compare,
    level: float,
    course: Course,
    known: Reference | None = None,
    limit: float | None = None,
    drift: float = 0.0,
) -> Finding:
    treated, other = sides
    numbers = _numbers(treated, other, course, level, known)
    alarm = numbers.alarm_at is not None
    enough = treated.requests >= compare.min_requests
    above = limit is not None and (treated.share or 0.0) > limit
    leaning = not alarm and (above or course.p_value < LEANING * level)
    sentence = shares(numbers, label, limit) + conclusion(numbers, compare, leaning=leaning, limit=limit)
    if drift:
        sentence += f"; the treated targets' odds of a request moved by a factor of {float(np.exp(drift)):.2g}"
    return Finding(comparison, test, alarm, enough and not leaning and not drift, numbers, sentence)


def _numbers(treated: Counts, other: Counts | None, course: Course, level: float, known: Reference | None) -> Numbers:
    share_low, share_high = share_limits(treated.errors, treated.requests, alpha=level)
    best = min(float(course.evidence.max()), MOST_EVIDENCE)
    reference_share = other.share if other else None
    return Numbers(
        treated_errors=treated.errors,
        treated_requests=treated.requests,
        reference_errors=other.errors if other else None,
        reference_requests=other.requests if other else None,
        treated_share=treated.share,
        reference_share=reference_share,
        share_low=share_low,
        share_high=share_high,
        ratio=treated.share / reference_share if reference_share and treated.share is not None else None,
        ratio_low=course.low if other else None,
        ratio_high=course.high if other else None,
        p_value=min(1.0, 1 / best) if best > 0 else 1.0,
        alpha=level,
        spread=known.within if known else None,
        evidence=best,
        evidence_needed=1 / level,
        alarm_at=course.alarm_at(level),
        looks=len(course.evidence),
        before_ratio=float(np.exp(known.log_ratio)) if known else None,
        seen_ratio=course.seen,
        treated_per_host=treated.per_host if known else None,
        reference_per_host=other.per_host if known and other else None,
    )


def _lacking(side: Counts, compare: Compare, name: str) -> str | None:
    if side.requests >= compare.min_requests:
        return None
    if side.hosts == 0:
        return f"{name} has no data"
    return f"{name} had only {side.requests:.0f} requests, the policy wants {compare.min_requests}"


def tolerance(compare: Compare) -> float:
    """Give the tolerated relative increase as a fraction."""
    share = fraction(compare.max_relative_increase)
    return float(compare.max_relative_increase) if share is None else share
