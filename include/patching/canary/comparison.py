"""One metric check → one verdict: the treated targets against the first reference with data.

Pure. The evidence of every look is valid at every look (``eprocess``): watching longer, or asking again, stays inside
the bound. A check alarms when its evidence reaches 1/(alpha·w), w being its share of the rollout's bound (``weights``).
"""

from __future__ import annotations

from collections.abc import Sequence

from patching.canary.counts import COMPARISONS
from patching.canary.sides import FIRST_LOOK, Counts, Measurements, counts, without_traffic
from patching.canary.verdicts import CheckVerdict, Finding
from patching.canary.words import names
from patching.policy import Check, Compare
from patching.rollout.answers import VerdictName
from patching.sources.base import Sample


def judge_check(
    check: Check,
    *,
    canary: Sequence[Sample],
    control: Sequence[Sample] = (),
    before: Sequence[Sample] = (),
    control_before: Sequence[Sample] = (),
    share: float = 1.0,
    first: int = FIRST_LOOK,
) -> CheckVerdict:
    """Judge one check of counters from samples: one a target and look, or one a target for a single look.

    ``canary`` are the changed targets of the wave; ``before`` is the same targets before it, ``control_before`` the
    control then. ``share`` is this metric's and wave's part w of the bound. See ``judge_counts``.
    """
    return judge_counts(check, Measurements.of_samples(canary, control, before, control_before, first), share)


def judge_counts(check: Check, measured: Measurements, share: float = 1.0) -> CheckVerdict:
    """Judge one check of counters: undo, promote or inconclusive.

    An alarm wins over missing data; missing data win over everything else. More errors never improve a verdict.
    """
    compare = check.compare
    silent, idle = without_traffic(measured)
    found, passed_over = _first_with_data(measured, compare, compare.alpha * share)
    if found is None:
        treated = counts(measured.canary)
        reason = _no_comparison(treated, silent, passed_over)
        return verdict_of(
            check,
            VerdictName.INCONCLUSIVE,
            None,
            reason,
            silent,
            idle,
            passed_over,
            no_data=treated.requests <= 0,
        )
    if found.alarm:
        return verdict_of(check, VerdictName.UNDO, found, found.sentence, silent, idle, passed_over)
    if silent:
        reason = f"{names(silent)} gave no data after the change, and no data is never a pass; else: {found.sentence}"
        return verdict_of(check, VerdictName.INCONCLUSIVE, found, reason, silent, idle, passed_over)
    name = VerdictName.PROMOTE if found.acceptable else VerdictName.INCONCLUSIVE
    return verdict_of(check, name, found, found.sentence, silent, idle, passed_over)


def verdict_of(
    check: Check,
    verdict: VerdictName,
    found: Finding | None,
    reason: str,
    silent: tuple[str, ...] = (),
    idle: tuple[str, ...] = (),
    passed_over: tuple[str, ...] = (),
    *,
    no_data: bool = False,
) -> CheckVerdict:
    """Put together what the ledger keeps of one check; a silent target is no data, too."""
    return CheckVerdict(
        name=check.name,
        verdict=verdict,
        comparison=found.comparison if found else None,
        test=found.test if found else None,
        numbers=found.numbers if found else None,
        silent=silent,
        idle=idle,
        no_data=no_data or bool(silent),
        passed_over=passed_over,
        reason=f"{check.name}: {reason}",
    )


def _first_with_data(measured: Measurements, compare: Compare, level: float) -> tuple[Finding | None, tuple[str, ...]]:
    """Walk the chain of comparisons; a treated side below the minimum can alarm, but never be promoted."""
    passed_over: list[str] = []
    for name in compare.against:
        answer = COMPARISONS[name](measured, compare, level)
        if isinstance(answer, Finding):
            return answer, tuple(passed_over)
        passed_over.append(f"{name}: {answer}")
    return None, tuple(passed_over)


def _no_comparison(treated: Counts, silent: tuple[str, ...], passed_over: tuple[str, ...]) -> str:
    if treated.requests <= 0 and silent:
        return f"no data after the change from {names(silent)}; no data is never a pass"
    if treated.requests <= 0:
        return "the treated targets had no requests, so nothing was tested"
    return f"no comparison has enough data ({'; '.join(passed_over) or 'the policy names none'})"
