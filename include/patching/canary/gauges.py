"""One check of a gauge → one verdict: an e-process of means at every look, and ranks once at the end; pure."""

from __future__ import annotations

from datetime import UTC, datetime
from math import erfc, inf, log1p

import numpy as np

from patching.canary.comparison import verdict_of
from patching.canary.counts import LEANING, MOST_EVIDENCE, tolerance
from patching.canary.eprocess import DISTANCES, mean_evidence, mean_limits, mean_needed
from patching.canary.levels import LevelMeasurements, Levels, Scale, Shift, scale_of, shift_beside, shift_since
from patching.canary.loggamma import Floats
from patching.canary.power import FOUR_OF_FIVE, distance
from patching.canary.ranks import greater, hodges_lehmann, smallest_p
from patching.canary.series import STALE_SCRAPES
from patching.canary.verdicts import CheckVerdict, Finding, Numbers
from patching.canary.words import names, power
from patching.policy import Check, Compare
from patching.policy_metrics import FEWEST_VALUES
from patching.rollout.answers import VerdictName

MEAN_TEST = "e-process of means (normal, variance of the first look), valid at every look"
BARE_TEST = "e-process of means (Student's t, variance of few windows), at every look"
RANK_TEST = "; and Mann-Whitney over hosts, once, with a fifth of the bound"

RANK_SHARE = 0.2
"""Part of a gauge's share of alpha that the one look at ranks has, where there are hosts enough for it."""


def judge_levels(check: Check, measured: LevelMeasurements, share: float = 1.0, *, last: bool = True) -> CheckVerdict:
    """Judge one check of a gauge; ``last`` is the end of the soak, when the ranks are looked at, once.

    Promoted only where the spread between hosts is known, from the time before or from three controls.
    """
    silent = _silent(measured.canary)
    compare, passed_over = check.compare, []
    level = compare.alpha * share
    for name in compare.against:
        found = _against(name, measured, compare, level, last=last)
        if isinstance(found, Finding):
            break
        passed_over.append(f"{name}: {found}")
    else:
        reason = f"no comparison has enough data ({'; '.join(passed_over)})"
        if silent:
            reason = f"{names(silent)} gave no data after the change, and no data is never a pass; {reason}"
        nothing = not np.isfinite(measured.canary.values).any()
        return verdict_of(
            check, VerdictName.INCONCLUSIVE, None, reason, silent, (), tuple(passed_over), no_data=bool(nothing)
        )
    verdict, reason = VerdictName.PROMOTE if found.acceptable else VerdictName.INCONCLUSIVE, found.sentence
    if found.alarm:
        verdict = VerdictName.UNDO
    elif silent:
        verdict = VerdictName.INCONCLUSIVE
        reason = f"{names(silent)} gave no data after the change, and no data is never a pass; else: {reason}"
    return verdict_of(check, verdict, found, reason, silent, (), tuple(passed_over))


def _silent(canary: Levels) -> tuple[str, ...]:
    """Name treated targets without a value, or whose newest one is more than three of their distances old."""
    found = []
    for name, known in zip(canary.targets, list(np.isfinite(canary.values)), strict=True):
        at = canary.ends[known]
        gap = float(np.median(np.diff(at))) if len(at) > 1 else 0.0
        if not len(at) or (len(at) > 1 and float(canary.ends[-1] - at[-1]) > STALE_SCRAPES * gap):
            found.append(name)
    return tuple(sorted(found))


def _against(name: str, measured: LevelMeasurements, compare: Compare, level: float, *, last: bool) -> Finding | str:
    first = measured.first_look
    canary = measured.canary.with_data(first)
    if not canary.targets:
        return "the treated targets gave no value"
    if name == "threshold":
        return "a gauge has none"
    control = measured.control.with_data(first)
    if name == "control" and not control.targets:
        return "the control has no data"
    reference = control if name == "control" else measured.before
    scale = scale_of(reference, measured.before, canary)
    if scale is None:
        return "its level there is zero, so no relative change can be told"
    shift = shift_beside(measured, scale) if name == "control" else shift_since(measured, scale)
    if shift is None:
        return "the time before is too short to tell how it moves by itself"
    return _finding(name, measured, reference, scale, shift, compare, level, last=last)


def _finding(
    name: str,
    measured: LevelMeasurements,
    reference: Levels,
    scale: Scale,
    shift: Shift,
    compare: Compare,
    level: float,
    *,
    last: bool,
) -> Finding:
    tolerated = tolerance(compare)
    delta = log1p(tolerated) if scale.base is None else tolerated
    ranked = last and smallest_p(len(shift.treated), len(shift.other)) <= RANK_SHARE * level
    mine = level * (1 - RANK_SHARE) if ranked else level
    evidence = _directed(shift, delta, compare)
    rank_p = _ranks(shift, delta, compare) if ranked else None
    numbers = _numbers(measured, reference, scale, shift, evidence, mine).model_copy(
        update={
            "rank_p": rank_p,
            "rank_alpha": RANK_SHARE * level if ranked else None,
            "seen_ratio": _seen(scale, shift, delta, mine, compare),
        }
    )
    by_ranks = rank_p is not None and rank_p <= RANK_SHARE * level
    alarm = numbers.alarm_at is not None or by_ranks
    z = (_worst(float(shift.course[-1]), compare) - delta) / shift.variance**0.5
    leaning = not alarm and 0.5 * erfc(_as_normal(z, shift.freedom) / 2**0.5) < LEANING * level
    enough = int(np.isfinite(measured.canary.values).any(axis=0).sum()) >= FEWEST_VALUES
    test = (MEAN_TEST if shift.freedom == inf else BARE_TEST) + (RANK_TEST if ranked else "")
    sentence = _sentence(numbers, name, scale, shift, alarm=alarm, leaning=leaning, by_ranks=by_ranks, enough=enough)
    return Finding(name, test, alarm, shift.known and enough and not leaning, numbers, sentence)


def _seen(scale: Scale, shift: Shift, delta: float, level: float, compare: Compare) -> float:
    """Give the factor that such a soak shows in four of five rollouts."""
    both = 2 if compare.direction == "either" else 1
    if shift.freedom < inf:
        away = mean_needed(level / both, shift.freedom) + FOUR_OF_FIVE
    else:
        away = distance(level, len(DISTANCES) * both)
    change = delta + shift.variance**0.5 * away
    return scale.ratio(-change if compare.direction == "decrease" else change)


def _worst(change: float, compare: Compare) -> float:
    return {"increase": change, "decrease": -change, "either": abs(change)}[compare.direction]


def _as_normal(t: float, freedom: float) -> float:
    """Give the normal deviate with the same tail as Student's t (Wallace, Ann. Math. Stat. 30, 1959)."""
    if freedom == inf or t <= 0:
        return t
    return float((8 * freedom + 1) / (8 * freedom + 3) * (freedom * log1p(t * t / freedom)) ** 0.5)


def _directed(shift: Shift, delta: float, compare: Compare) -> Floats:
    rise = mean_evidence(shift.course, shift.variance, delta, shift.freedom)
    fall = mean_evidence(-shift.course, shift.variance, delta, shift.freedom)
    return {"increase": rise, "decrease": fall, "either": (rise + fall) / 2}[compare.direction]


def _ranks(shift: Shift, delta: float, compare: Compare) -> float:
    """Test whether the treated hosts' own changes are larger than the others', beyond the tolerated one."""
    up = greater(shift.treated - delta, shift.other)
    if compare.direction == "increase":
        return up
    down = greater(-shift.treated - delta, -shift.other)
    return down if compare.direction == "decrease" else min(1.0, 2 * min(up, down))


def _numbers(
    measured: LevelMeasurements, reference: Levels, scale: Scale, shift: Shift, evidence: Floats, level: float
) -> Numbers:
    best = min(float(evidence.max()), MOST_EVIDENCE)
    reached = np.flatnonzero(evidence >= 1 / level)
    ends = measured.canary.ends[measured.first_look - 1 :]
    low, high = mean_limits(float(shift.course[-1]), shift.variance, level, shift.freedom)
    effect = hodges_lehmann(shift.treated, shift.other) if len(shift.other) else float(np.median(shift.treated))
    return Numbers(
        treated_errors=0.0,
        treated_requests=float(np.isfinite(measured.canary.values).sum()),
        treated_level=float(np.nanmean(measured.canary.values)),
        reference_level=float(np.nanmean(reference.values)),
        ratio=scale.ratio(float(shift.course[-1])),
        ratio_low=None if low is None else scale.ratio(low),
        ratio_high=None if high is None else scale.ratio(high),
        host_effect=scale.ratio(effect),
        p_value=min(1.0, 1 / best) if best > 0 else 1.0,
        alpha=level,
        spread=shift.variance**0.5,
        evidence=best,
        evidence_needed=1 / level,
        alarm_at=datetime.fromtimestamp(float(ends[reached[0]]), UTC) if len(reached) else None,
        looks=len(evidence),
    )


def _sentence(
    numbers: Numbers,
    name: str,
    scale: Scale,
    shift: Shift,
    *,
    alarm: bool,
    leaning: bool,
    by_ranks: bool,
    enough: bool,
) -> str:
    label = "the unchanged targets" if name == "control" else "the time before"
    moved = f"moved by a factor of {numbers.ratio:.3g} against it"
    said = f"level {numbers.treated_level:.4g}, against {numbers.reference_level:.4g} at {label}; it {moved}"
    strength = f"evidence {numbers.evidence or 0:.3g}, {numbers.evidence_needed or 0:.3g} is needed"
    ranks = f"ranks of the hosts: p {numbers.rank_p or 0:.2g}, alarm at {numbers.rank_alpha or 0:.2g}"
    if alarm:
        said += f": more than tolerated ({ranks if by_ranks else strength})"
    elif leaning:
        said += f": looks like more than tolerated, but not beyond chance yet ({strength}); more data must tell"
    elif not enough:
        said += f"; fewer than {FEWEST_VALUES} values are too few to promote on"
    elif not shift.known:
        said += "; how much hosts differ is not known: no time before, and fewer than three controls"
    else:
        high = "unbounded" if numbers.ratio_high is None else f"{numbers.ratio_high:.2f} ×"
        said += f"; no alarm, the true factor may be up to {high}"
    return said if alarm else said + power(numbers.seen_ratio)
