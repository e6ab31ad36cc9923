"""The guard: a wave that soaks is looked at again and again, and an alarm ends the soak at once.

The evidence is valid at every look, so that looking early costs nothing of the bound. Only alarms count before the
end of the soak: no early look promotes or holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from patching.canary.verdicts import CheckVerdict, WaveVerdict
from patching.errors import MetricSourceUnavailable
from patching.ledger.base import TargetRow
from patching.plan.document import Plan
from patching.rollout.answers import VerdictName
from patching.rollout.asked import asked_of, judge_asked, measure_asked
from patching.rollout.measuring import Measured, spans_of
from patching.rollout.site import Site

SHORTEST_SOAK = 60.0
"""Soaks shorter than this are judged at their end only."""

LEAST_PAUSE = 30.0


def next_look(soak: float, now: datetime, until: datetime) -> datetime:
    """Say when a soaking wave is looked at next: six times in a soak, at most twice a minute."""
    if soak < SHORTEST_SOAK:
        return until
    return min(until, now + timedelta(seconds=max(LEAST_PAUSE, soak / 6)))


async def early_alarm(
    site: Site, plan: Plan, soak: float, applied: Sequence[TargetRow], control: Sequence[str], looks: int
) -> tuple[WaveVerdict, dict[str, Measured]] | None:
    """Look at a soaking wave; an alarm of a critical check gives the verdict and what was measured, else None.

    The first look comes after a third of the soak or twenty scrapes, as long as the placebo windows. A source that
    fails says nothing here: the end of the soak decides. ``looks`` is among how many judgements the bound is shared.
    """
    if soak < SHORTEST_SOAK or not any(row.ended_at for row in applied):
        return None
    verdicts: list[CheckVerdict] = []
    evidence: dict[str, Measured] = {}
    for asked in asked_of(plan, applied[0].wave):
        check = asked.check
        if check.dry_run or not check.critical or not spans_of(plan, check, applied, site.clock()).complete:
            continue
        try:
            measured = await measure_asked(site, plan, asked, applied, control)
        except MetricSourceUnavailable as error:
            site.log(f"{check.name}: not looked at while the wave soaks: {error}")
            continue
        verdicts.append(judge_asked(plan, asked, measured, looks, last=False))
        evidence[check.name] = measured
    alarms = [verdict.reason for verdict in verdicts if verdict.verdict is VerdictName.UNDO]
    if not alarms:
        return None
    reason = f"{'; '.join(alarms)}; found while the wave soaked"
    return WaveVerdict(verdict=VerdictName.UNDO, reason=reason, checks=tuple(verdicts)), evidence
