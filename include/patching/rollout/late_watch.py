"""Watching a finished rollout for late regressions (F5): the same judge, until the policy's ``watch`` is over.

Every look computes the evidence since the last change anew, and that evidence is valid at every look, so looking often
costs nothing but queries. A look is a 240th of the time until the watch ends, fixed when it begins; nothing is judged
before the first twenty are complete, a twelfth of that time. One verdict is written: the first alarm, which opens an
incident, or none until the end.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from patching.canary.judge import judge_wave
from patching.canary.verdicts import CheckVerdict, WaveVerdict
from patching.change import Outcome
from patching.errors import MetricSourceUnavailable
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.document import Plan
from patching.quantity import format_duration
from patching.rollout.answers import VerdictName
from patching.rollout.apart import apart
from patching.rollout.asked import asked_late, judge_asked
from patching.rollout.incidents import open_incident
from patching.rollout.measuring import measure_spans, spans_of
from patching.rollout.record import first_written, frozen_plan
from patching.rollout.reversibility import RUNBOOK as IRREVERSIBLE
from patching.rollout.reversibility import told, what_stays
from patching.rollout.site import Site
from patching.rollout.states import RolloutState

RUNBOOK = "docs/runbooks/late-regression.md"
RECENT = 1000
KEY = "late-verdict"
CANNOT = "it cannot be watched"


async def watch_finished(site: Site) -> list[str]:
    """Look once at every completed rollout that is still watched; gives what people should know.

    Raises LedgerUnavailable. A metric source that does not answer decides nothing: the next look asks again, and a
    watch that ends without data says so.
    """
    said: list[str] = []
    for row in site.ledger.rollouts(limit=RECENT):
        if row.state is not RolloutState.COMPLETED:
            continue
        with apart(row.id, said, CANNOT):
            plan = frozen_plan(site, row.id)
            if plan is None or not plan.policy.spec.rollout.watch or site.ledger.find(row.id, KEY) is not None:
                continue
            sentence = await _look(site, row, plan)
            said += [f"{row.id}: {sentence}"] if sentence is not None else []
    return said


def watched_until(site: Site, plan: Plan) -> datetime | None:
    """Say when the watch of a completed rollout ends; None where it is not completed."""
    moves = site.ledger.entries(plan.rollout, kinds=[EntryKind.TRANSITION])
    done = [entry.at for entry in moves if entry.body["to"] == RolloutState.COMPLETED]
    return done[-1] + timedelta(seconds=plan.policy.spec.rollout.watch) if done else None


async def _look(site: Site, row: RolloutRow, plan: Plan) -> str | None:
    until = watched_until(site, plan)
    applied = _still_as_it_left_them(site, row.id)
    if until is None or not applied:
        return None
    verdict = await _judge(site, plan, applied, until)
    if verdict.verdict is VerdictName.UNDO:
        return _alarm(site, plan, applied, verdict)
    if site.clock() >= until:
        length = format_duration(plan.policy.spec.rollout.watch)
        return _conclude(site, plan, verdict, f"watched for {length} after it was completed: {verdict.reason}")
    return None


def _still_as_it_left_them(site: Site, rollout: str) -> list[TargetRow]:
    """Give the applied targets that no later rollout has changed: what those show now is not this one's doing."""
    left = _untouched_since(site, rollout)
    return [row for row in site.ledger.targets(rollout) if row.outcome is Outcome.APPLIED and row.target in left]


def _untouched_since(site: Site, rollout: str) -> set[str]:
    return {
        row.target
        for row in site.ledger.targets(rollout)
        if row.outcome is not Outcome.SUPERSEDED and not site.ledger.later_rollouts(rollout, row.target)
    }


async def _judge(site: Site, plan: Plan, applied: list[TargetRow], until: datetime) -> WaveVerdict:
    """Judge the metrics, those of who depends on what was changed too, against the time before the rollout.

    All of them share what the bound of false alarms has for the watch.
    """
    asked = asked_late(plan, [row.target for row in applied], _untouched_since(site, plan.rollout))
    looks = plan.looks * (1 + len({one.service for one in asked if one.service}))
    found: list[CheckVerdict] = []
    for one in asked:
        of = one.targets if one.service else None
        spans = spans_of(plan, one.check, applied, site.clock(), until)
        if not spans.complete:
            found.append(CheckVerdict.unavailable(one.check, "its first look is not complete yet"))
            continue
        try:
            measured = await measure_spans(site, plan, one.check, applied, [], spans, of)
        except MetricSourceUnavailable as error:
            found.append(CheckVerdict.unavailable(one.check, str(error)))
            continue
        found.append(judge_asked(plan, one, measured, looks))
    return judge_wave(found, [], [one.check for one in asked], [row.target for row in applied])


def _conclude(site: Site, plan: Plan, verdict: WaveVerdict, sentence: str) -> str:
    body = {
        "verdict": verdict.verdict.value,
        "reason": sentence,
        "checks": [check.model_dump(mode="json") for check in verdict.checks],
    }
    entry = NewEntry(chain=plan.rollout, kind=EntryKind.LATE_VERDICT, key=KEY, body=body)
    return str(first_written(site.ledger, entry).body["reason"])


def _alarm(site: Site, plan: Plan, applied: list[TargetRow], verdict: WaveVerdict) -> str:
    """Open an incident, which locks the policy; a person decides about the undo of what is finished.

    The incident comes first: a crash in between finds no verdict, judges again, and finds the incident there.
    """
    name = f"late-{plan.rollout}"
    # An evidence that has grown meanwhile has other numbers; the incident that was opened first stays.
    open_incident(
        site.ledger,
        name,
        rollout=plan.rollout,
        policy=plan.policy.name,
        cause=f"late regression after it was completed: {verdict.reason}",
        targets=[row.target for row in applied],
        runbook=RUNBOOK,
    )
    stays = what_stays(site.ledger, plan)
    said = f"late regression: {verdict.reason}; `patching undo {plan.rollout}` puts back what it changed"
    said += f", but not {told(stays)} ({IRREVERSIBLE})" if stays else ""
    return _conclude(site, plan, verdict, said)
