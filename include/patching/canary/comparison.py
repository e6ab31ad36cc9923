"""One metric check → one verdict: the error share of the treated targets against the first reference with data.

Pure. The test looks once, at the end of the soak: asking again and again until it alarms ("peeking") is outside its
bound. A check alarms when the exact one-sided p-value of "at most the tolerated increase" is ≤ alpha / looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patching.canary.exact import binomial_tail, cautious, host_spread, ratio_limits, ratio_p_value, share_limits
from patching.canary.sides import Counts, Measurements, counts, without_traffic
from patching.canary.verdicts import CheckVerdict, Numbers
from patching.policy import Check, Compare
from patching.quantity import fraction
from patching.rollout.answers import VerdictName
from patching.sources.base import Sample

LEAST_SPREAD = 0.1
"""Relative difference between healthy hosts that is always assumed: no fleet is perfectly alike."""

ASSUMED_SPREAD = 0.3
"""What is assumed where the control has fewer than ``FEWEST_TO_KNOW`` hosts, which cannot show how they differ."""

FEWEST_TO_KNOW = 3

RATIO_TEST = "exact conditional test of two rates, beta-binomial for the spread between hosts, one-sided, one look"
SHARE_TEST = "exact binomial test of a share, one-sided, one look"


@dataclass(frozen=True)
class Finding:
    """What one comparison found: whether it alarms, whether it can be promoted on, and its numbers."""

    comparison: str
    test: str
    alarm: bool
    acceptable: bool
    numbers: Numbers
    sentence: str


Comparison = Callable[[Counts, Measurements, Compare, float], "Finding | str"]
"""Compare the treated with one reference at a level alpha, or say why that reference has no data.

The place where a later sequential test (an e-process) plugs in: it needs the same inputs and gives the same answer.
"""


def judge_check(
    check: Check,
    *,
    canary: Sequence[Sample],
    control: Sequence[Sample] = (),
    before: Sequence[Sample] = (),
    control_before: Sequence[Sample] = (),
    looks: int = 1,
) -> CheckVerdict:
    """Judge one metric check: undo, promote or inconclusive.

    ``canary`` are the changed targets of the wave; ``before`` is the same targets before it, ``control_before`` the
    control then (without it nobody can say whether the control was a fair reference, and it is taken as one).
    ``looks`` is how many such judgements the whole rollout makes (checks × waves): alpha is divided by it, so that
    alpha bounds the chance of any false alarm in the rollout (Boole). Errors that are significant win over missing
    data; missing data win over everything else. More errors never improve a verdict.
    """
    compare, measured = check.compare, Measurements(canary, control, before, control_before)
    silent, idle = without_traffic(measured)
    treated = counts(measured.canary)
    found, passed_over = _first_with_data(treated, measured, compare, compare.alpha / max(looks, 1))
    if found is None:
        reason = _no_comparison(treated, compare, silent, passed_over)
        return _verdict(check, VerdictName.INCONCLUSIVE, None, silent, idle, passed_over, reason)
    if found.alarm:
        return _verdict(check, VerdictName.UNDO, found, silent, idle, passed_over, found.sentence)
    if silent:
        reason = f"{_names(silent)} gave no data after the change, and no data is never a pass; else: {found.sentence}"
        return _verdict(check, VerdictName.INCONCLUSIVE, found, silent, idle, passed_over, reason)
    name = VerdictName.PROMOTE if found.acceptable else VerdictName.INCONCLUSIVE
    return _verdict(check, name, found, silent, idle, passed_over, found.sentence)


def _verdict(
    check: Check,
    verdict: VerdictName,
    found: Finding | None,
    silent: tuple[str, ...],
    idle: tuple[str, ...],
    passed_over: tuple[str, ...],
    reason: str,
) -> CheckVerdict:
    return CheckVerdict(
        name=check.name,
        verdict=verdict,
        comparison=found.comparison if found else None,
        test=found.test if found else None,
        numbers=found.numbers if found else None,
        silent=silent,
        idle=idle,
        passed_over=passed_over,
        reason=f"{check.name}: {reason}",
    )


def _first_with_data(
    treated: Counts, measured: Measurements, compare: Compare, alpha: float
) -> tuple[Finding | None, tuple[str, ...]]:
    """Walk the chain of comparisons; a treated side below the minimum can alarm, but never be promoted."""
    passed_over: list[str] = []
    for name in compare.against:
        answer = COMPARISONS[name](treated, measured, compare, alpha)
        if isinstance(answer, Finding):
            return answer, tuple(passed_over)
        passed_over.append(f"{name}: {answer}")
    return None, tuple(passed_over)


def against_control(treated: Counts, measured: Measurements, compare: Compare, alpha: float) -> Finding | str:
    """Compare with the targets that are not changed yet, in the same minutes."""
    control = counts(measured.control)
    lacking = _lacking(control, compare, "the control")
    if lacking:
        return lacking
    spread = _spread(measured)
    variance = spread**2 * (1 / max(treated.hosts, 1) + 1 / control.hosts)
    unlike = _unlike_before(measured, compare, alpha, spread)
    if unlike:
        return unlike
    label = f"{control.hosts} unchanged target{'s' if control.hosts > 1 else ''}"
    return _ratio_finding("control", label, treated, control, compare, alpha, spread, variance)


def against_before(treated: Counts, measured: Measurements, compare: Compare, alpha: float) -> Finding | str:
    """Compare the treated targets with themselves before the change."""
    judged = {sample.target for sample in measured.canary if sample.requests}
    before = counts([sample for sample in measured.before if sample.target in judged])
    lacking = _lacking(before, compare, "the time before")
    if lacking:
        return lacking
    # Time moves all hosts together, so more hosts do not make it smaller.
    variance = 2 * LEAST_SPREAD**2
    return _ratio_finding("before", "the time before", treated, before, compare, alpha, LEAST_SPREAD, variance)


def against_threshold(treated: Counts, _measured: Measurements, compare: Compare, alpha: float) -> Finding | str:
    """Compare the treated error share with the policy's absolute limit."""
    if compare.threshold is None:
        return "the policy sets none"
    limit = fraction(compare.threshold)
    if limit is None:
        return f'threshold "{compare.threshold}" is no percentage'
    if treated.requests <= 0:
        return "the treated targets had no requests"
    p_value = binomial_tail(int(treated.errors), max(int(treated.requests), int(treated.errors)), limit)
    share = treated.share or 0.0
    enough = treated.requests >= compare.min_requests
    alarm = p_value <= alpha
    numbers = _numbers(treated, None, alpha, p_value=p_value)
    sentence = f"error share {_percent(share)} of {_count(treated.requests)} requests, limit {_percent(limit)}"
    if alarm:
        sentence += f": above the limit (p = {p_value:.2g})"
    elif not enough:
        sentence += f"; too few to promote on, the policy wants {compare.min_requests}"
    elif share > limit:
        sentence += f": above it, but not beyond chance (p = {p_value:.2g})"
    return Finding("threshold", SHARE_TEST, alarm, enough and share <= limit, numbers, sentence)


COMPARISONS: dict[str, Comparison] = {
    "control": against_control,
    "before": against_before,
    "threshold": against_threshold,
}


def _ratio_finding(
    comparison: str,
    label: str,
    treated: Counts,
    other: Counts,
    compare: Compare,
    alpha: float,
    spread: float,
    variance: float,
) -> Finding | str:
    if treated.requests <= 0:
        return "the treated targets had no requests"
    tolerated = 1 + _tolerance(compare)
    sides = (treated.errors, treated.requests, other.errors, other.requests)
    p_value = ratio_p_value(*sides, ratio=tolerated, variance=variance)
    low, high = ratio_limits(*sides, alpha=alpha, variance=variance)
    alarm = p_value <= alpha
    enough = treated.requests >= compare.min_requests
    numbers = _numbers(treated, other, alpha, p_value=p_value, low=low, high=high, spread=spread)
    sentence = (
        f"error share {_percent(treated.share)} of {_count(treated.requests)} requests, against "
        f"{_percent(other.share)} of {_count(other.requests)} at {label}"
    )
    sentence += _conclusion(alarm, enough, p_value, tolerated, numbers, compare)
    return Finding(comparison, RATIO_TEST, alarm, enough, numbers, sentence)


def _conclusion(alarm: bool, enough: bool, p_value: float, tolerated: float, numbers: Numbers, compare: Compare) -> str:
    if alarm:
        return f": worse than the tolerated {tolerated:.2f} × (p = {p_value:.2g})"
    if not enough:
        return f"; too few requests to promote on, the policy wants {compare.min_requests}"
    if numbers.ratio_high is None:
        return f"; no alarm, the true share may be up to {_percent(numbers.share_high)}"
    return f"; no alarm, the true ratio may be up to {numbers.ratio_high:.2f} ×"


def _numbers(
    treated: Counts,
    other: Counts | None,
    alpha: float,
    *,
    p_value: float,
    low: float | None = None,
    high: float | None = None,
    spread: float | None = None,
) -> Numbers:
    share_low, share_high = share_limits(treated.errors, treated.requests, alpha=alpha)
    reference = other.share if other else None
    return Numbers(
        treated_errors=treated.errors,
        treated_requests=treated.requests,
        reference_errors=other.errors if other else None,
        reference_requests=other.requests if other else None,
        treated_share=treated.share,
        reference_share=reference,
        share_low=share_low,
        share_high=share_high,
        ratio=treated.share / reference if reference and treated.share is not None else None,
        ratio_low=low,
        ratio_high=high,
        p_value=p_value,
        alpha=alpha,
        spread=spread,
    )


def _spread(measured: Measurements) -> float:
    """Spread between healthy hosts: from the control, now or before, whichever is larger; never below the least."""
    groups = [
        [(sample.errors or 0.0, sample.requests) for sample in samples if sample.requests]
        for samples in (measured.control, measured.control_before)
    ]
    known = [(host_spread(group), len(group)) for group in groups]
    found = [cautious(spread, hosts) for spread, hosts in known if spread is not None]
    few = len(groups[0]) < FEWEST_TO_KNOW
    return max([ASSUMED_SPREAD if few else LEAST_SPREAD, *found])


def _unlike_before(measured: Measurements, compare: Compare, alpha: float, spread: float) -> str | None:
    """Say why the control is no fair reference: the treated targets differed from it before anything was changed."""
    treated, control = counts(measured.before), counts(measured.control_before)
    if min(treated.requests, control.requests) < compare.min_requests:
        return None
    variance = spread**2 * (1 / treated.hosts + 1 / control.hosts)
    tolerated = 1 + _tolerance(compare)
    sides = (treated.errors, treated.requests, control.errors, control.requests)
    swapped = (control.errors, control.requests, treated.errors, treated.requests)
    more = ratio_p_value(*sides, ratio=tolerated, variance=variance) <= alpha
    fewer = ratio_p_value(*swapped, ratio=tolerated, variance=variance) <= alpha
    if not (more or fewer):
        return None
    shares = f"{_percent(treated.share)} against {_percent(control.share)}"
    return f"the treated targets had {'more' if more else 'fewer'} errors than it before the change ({shares})"


def _lacking(side: Counts, compare: Compare, name: str) -> str | None:
    if side.requests >= compare.min_requests:
        return None
    if side.hosts == 0:
        return f"{name} has no data"
    return f"{name} had only {_count(side.requests)} requests, the policy wants {compare.min_requests}"


def _no_comparison(treated: Counts, compare: Compare, silent: tuple[str, ...], passed_over: tuple[str, ...]) -> str:
    if treated.requests <= 0 and silent:
        return f"no data after the change from {_names(silent)}; no data is never a pass"
    if treated.requests <= 0:
        return "the treated targets had no requests, so nothing was tested"
    return f"no comparison has enough data ({'; '.join(passed_over) or 'the policy names none'})"


def _tolerance(compare: Compare) -> float:
    share = fraction(compare.max_relative_increase)
    return float(compare.max_relative_increase) if share is None else share


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.3g} %"


def _count(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")
