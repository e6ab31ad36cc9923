"""Judging a wave: it soaks, its probes and metric checks are read, and one verdict is written to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from patching.canary.error_budget import Level
from patching.canary.judge import judge_wave
from patching.canary.verdicts import CheckVerdict, ProbeResult, WaveVerdict
from patching.change import Outcome, TargetState
from patching.errors import MetricSourceUnavailable
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Plan
from patching.probes.checks import check_fleet
from patching.quantity import format_duration
from patching.rollout.answers import JudgeAnswer, VerdictName
from patching.rollout.asked import Asked, asked_of, judge_asked, measure_asked
from patching.rollout.brake import CAPACITY
from patching.rollout.budgets import Stop, answered_for, spent
from patching.rollout.drill import failed_drill, missing
from patching.rollout.error_budget import burning, next_budget_look, record_budgets
from patching.rollout.gates import closed_by_time, reopenings, verdict_of
from patching.rollout.guard import early_alarm, next_look
from patching.rollout.losses import loss_stop, lost_targets
from patching.rollout.measuring import Measured, lag
from patching.rollout.polling import next_round, poll
from patching.rollout.record import first_written, frozen_plan, measured_entry, moved, say_waiting
from patching.rollout.restraint import lock_irreversible, restrained
from patching.rollout.shares import looks_for
from patching.rollout.site import Site
from patching.rollout.states import AT_WORK, RolloutState
from patching.rollout.wave import open_rows
from patching.rollout.wave_guard import guard_verdict
from patching.value import JsonValue

NEXT_STATE = {
    VerdictName.HOLD: RolloutState.HELD,
    VerdictName.INCONCLUSIVE: RolloutState.HELD,
    VerdictName.UNDO: RolloutState.UNDOING,
}


async def judge(site: Site, rollout: str, wave: int, run_id: str) -> JudgeAnswer:
    """Judge a wave once: wait for its soak, then decide from what the ledger, the targets and the metrics say.

    Skipped when no gate opened the wave. An unfinished wave gets no verdict: the next run goes on with it.
    A recorded verdict is given again, never re-made.
    """
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    started = site.ledger.find(rollout, f"wave-started:{wave}")
    if row is None or plan is None or started is None:
        return JudgeAnswer(wave=wave, verdict=None, sentence=f"wave {wave} was never started", skipped=True)
    recorded = verdict_of(site.ledger, rollout, wave)
    if recorded is not None:
        return _follow(site, row, wave, recorded)
    if row.state is not RolloutState.RUNNING:
        text = f'the rollout is "{row.state.value}": wave {wave} is not judged'
        return JudgeAnswer(wave=wave, verdict=None, sentence=text, skipped=True)
    rows = [item for item in site.ledger.targets(rollout) if item.wave == wave]
    alarm = guard_verdict(site, plan, wave)
    if alarm is not None:
        return _conclude(site, plan, wave, alarm, alarm.checks)
    stop = _stop(site, plan, wave, run_id)
    if stop is not None and not stop.accuses and open_rows(rows, wave):
        return _held(site, plan, wave, stop)
    if stop is not None:
        return _conclude(site, plan, wave, _over_budget(stop), [], stop)
    if open_rows(rows, wave):
        return _unfinished(site, plan, wave, rows, run_id)
    undrilled = _undrilled(site, plan, wave, rows)
    if undrilled is not None:
        return undrilled
    await poll(site, plan, wave)
    until = _soaks_until(plan, wave, rows)
    control = list(started.body.get("control", []))
    if until is not None and site.clock() < until:
        return await _soaking(site, plan, wave, rows, control, until)
    return await _decide(site, plan, wave, rows, control)


def _stop(site: Site, plan: Plan, wave: int, run_id: str) -> Stop | None:
    """Give the rule that stopped the wave: what is spent now, else a loss, else what stopped this run's launching.

    A share of failures that stopped launching may be below its limit again once everything that ran has ended.
    """
    ledger = site.ledger
    answered = answered_for(ledger.entries(plan.rollout, kinds=[EntryKind.VERDICT]))
    stop = spent(plan.policy.spec.rollout.stop_when, wave, ledger.outcomes(plan.rollout), answered)
    if stop is not None:
        return stop
    lost = lost_targets(ledger.targets(plan.rollout))
    if lost:
        return loss_stop(plan, lost)
    return next((item for item in _stops(site, plan, wave, run_id) if item.accuses), None)


def _stops(site: Site, plan: Plan, wave: int, run_id: str) -> list[Stop]:
    """Give what stopped this run's launching, every shard with what it met."""
    applied = site.ledger.entries(plan.rollout, kinds=[EntryKind.WAVE_APPLIED])
    mine = [entry.body["stop"] for entry in applied if (entry.body["wave"], entry.body["run"]) == (wave, run_id)]
    return [Stop.model_validate(item) for item in mine if item is not None]


def _over_budget(stop: Stop) -> WaveVerdict:
    name = VerdictName.UNDO if stop.accuses else VerdictName.HOLD
    return WaveVerdict(verdict=name, reason=_said(stop), checks=())


def _said(stop: Stop) -> str:
    return f"budget {stop.rule} is spent: {stop.sentence}"


def _held(site: Site, plan: Plan, wave: int, stop: Stop) -> JudgeAnswer:
    """Hold an unfinished wave for missing evidence: no verdict is recorded, so that a person can let it go on."""
    text = f"wave {wave}: {_said(stop)}"
    state = moved(site, plan.rollout, RolloutState.HELD, reason=text, only_from=AT_WORK)
    say_waiting(site, plan.rollout, "")
    held = VerdictName.HOLD if state is RolloutState.HELD else None
    return JudgeAnswer(wave=wave, verdict=held, sentence=_said(stop))


def _held_by_budget(site: Site, plan: Plan, wave: int, sentence: str) -> JudgeAnswer:
    """Answer for a wave whose service burns its error budget while it soaks: once resumed, its soak goes on."""
    row = site.ledger.rollout(plan.rollout)
    held = VerdictName.HOLD if row is not None and row.state is RolloutState.HELD else None
    return JudgeAnswer(wave=wave, verdict=held, sentence=sentence)


def _unfinished(site: Site, plan: Plan, wave: int, rows: Sequence[TargetRow], run_id: str) -> JudgeAnswer:
    left = open_rows(rows, wave)
    unknown = [row.target for row in left if row.outcome is Outcome.UNKNOWN]
    text = f"wave {wave} is not finished: {len(left)} of {len(rows)} targets have no outcome"
    if unknown:
        text += f" (unknown: {', '.join(unknown)})"
    full = {stop.sentence for stop in _stops(site, plan, wave, run_id) if stop.rule == CAPACITY}
    text += "".join(f"; {sentence}" for sentence in sorted(full))
    closed = closed_by_time(site, plan.rollout, wave, run_id)
    _leave_waiting(site, plan, closed or text, closed or f"{text}; the next run goes on with them")
    return JudgeAnswer(wave=wave, verdict=None, sentence=text)


def _undrilled(site: Site, plan: Plan, wave: int, rows: Sequence[TargetRow]) -> JudgeAnswer | None:
    """Hold a wave whose drill failed; leave one whose drill was interrupted, or marked away, to the next run.

    None where the drill has passed, or none is asked for.
    """
    broken = failed_drill(site, plan, wave, rows)
    if broken is not None:
        return _conclude(site, plan, wave, WaveVerdict(verdict=VerdictName.HOLD, reason=broken, checks=()), [])
    text = missing(site, plan, wave, rows)
    if text is None:
        return None
    _leave_waiting(site, plan, text, f"{text}; the next run does it")
    return JudgeAnswer(wave=wave, verdict=None, sentence=text)


def _leave_waiting(site: Site, plan: Plan, reason: str, sentence: str) -> None:
    """Let the rollout wait for its next run, and say so, unless somebody else moved it meanwhile."""
    waiting = RolloutState.WAITING
    if moved(site, plan.rollout, waiting, reason=reason, only_from=(RolloutState.RUNNING,)) is waiting:
        say_waiting(site, plan.rollout, sentence)


def _soaks_until(plan: Plan, wave: int, rows: Sequence[TargetRow]) -> datetime | None:
    """Say when a wave is judged: when the data of its whole soak are complete, the slowest check's too."""
    ends = [row.ended_at for row in rows if row.ended_at is not None and row.outcome is Outcome.APPLIED]
    found = plan.wave(wave)
    if not ends or found is None:
        return None
    slowest = lag(max(plan.scrapes.values(), default=0.0)) if found.soak else timedelta()
    return max(ends) + timedelta(seconds=found.soak) + slowest


async def _soaking(
    site: Site, plan: Plan, wave: int, rows: Sequence[TargetRow], control: list[str], until: datetime
) -> JudgeAnswer:
    """Let the wave soak, unless an error budget burns, which holds, or the guard finds an alarm: then conclude."""
    held = await burning(site, plan, wave)
    if held is not None:
        return _held_by_budget(site, plan, wave, held)
    found = plan.wave(wave)
    soak = found.soak if found is not None else 0.0
    applied = [row for row in rows if row.outcome is Outcome.APPLIED]
    looks = looks_for(site.ledger, plan, wave)
    alarm = await early_alarm(site, plan, soak, applied, _untouched(site, plan, control), looks)
    if alarm is not None:
        verdict, evidence = alarm
        for name, measured in evidence.items():
            _keep(site, plan, wave, name, measured)
        return _conclude(site, plan, wave, verdict, verdict.checks)
    left = format_duration((until - site.clock()).total_seconds())
    text = f"wave {wave} soaks until {until:%H:%M:%S} UTC"
    say_waiting(site, plan.rollout, text)
    now = site.clock()
    looks_at = (next_look(soak, now, until), next_round(plan, now), next_budget_look(plan, now))
    again = min(moment for moment in looks_at if moment is not None)
    return JudgeAnswer(wave=wave, verdict=None, sentence=f"{text} ({left} left)", again_at=again)


async def _decide(site: Site, plan: Plan, wave: int, rows: Sequence[TargetRow], control: list[str]) -> JudgeAnswer:
    applied = [row for row in rows if row.outcome is Outcome.APPLIED]
    if not applied:
        return _conclude(site, plan, wave, nothing_applied(plan, wave, rows), [])
    probes = await _probe_again(site, plan, applied)
    metrics = asked_of(plan, wave)
    checks = [await _judge_metric(site, plan, wave, one, applied, _untouched(site, plan, control)) for one in metrics]
    verify = [*plan.policy.spec.verify, *(one.check for one in metrics if one.service)]
    verdict = judge_wave(checks, probes, verify, [row.target for row in applied])
    if verdict.verdict is VerdictName.PROMOTE and (said := await _not_afforded(site, plan, wave)) is not None:
        verdict = verdict.model_copy(update={"verdict": VerdictName.HOLD, "reason": f"{said}; {verdict.reason}"})
    return _conclude(site, plan, wave, verdict, checks)


async def _not_afforded(site: Site, plan: Plan, wave: int) -> str | None:
    """Say why the service's error budgets allow no promotion, whatever the canary shows; None where they do."""
    found = await record_budgets(site, plan.rollout, wave)
    if found is None or found.level not in (Level.PAGE, Level.NO_DATA):
        return None
    passes = plan.policy.spec.emergency.ignore if plan.emergency else ()
    return None if "error-budget" in passes else f"error budget {found.sentence}"


def nothing_applied(plan: Plan, wave: int, rows: Sequence[TargetRow]) -> WaveVerdict:
    """Judge a wave in which nothing was changed: no evidence is no pass, unless there was nothing to do."""
    outcomes = {row.outcome for row in rows}
    if outcomes <= {Outcome.NOTHING_TO_DO, Outcome.SUPERSEDED}:
        reason = "no target of this wave needed the change: there is nothing to judge"
        return WaveVerdict(verdict=VerdictName.PROMOTE, reason=reason, checks=())
    said = ", ".join(f"{row.target} {row.outcome.value if row.outcome else 'open'}" for row in rows[:8])
    reason = f"no target of this wave was patched ({said}): there is no evidence that the patch is good"
    return WaveVerdict(verdict=VerdictName.HOLD, reason=reason, checks=())


def _untouched(site: Site, plan: Plan, control: Sequence[str]) -> list[str]:
    """Give the controls that nobody has changed since: a superseded or changed target is no control any more."""
    rows = {row.target: row for row in site.ledger.targets(plan.rollout)}
    return [name for name in control if rows[name].state is TargetState.PENDING and rows[name].outcome is None]


async def _probe_again(site: Site, plan: Plan, applied: Sequence[TargetRow]) -> list[ProbeResult]:
    """Run the per-target checks once more after the soak; a target that does not answer now does not pass."""
    checks = [check for check in plan.policy.spec.verify if check.metric is None]
    found = [plan.planned(row.target) for row in applied] if checks else []
    targets = [planned.target for planned in found if planned is not None]
    channel = site.channel(plan.policy.spec.driver.connection)
    return await check_fleet(channel, targets, checks, concurrency=site.concurrency)


async def _judge_metric(
    site: Site, plan: Plan, wave: int, asked: Asked, applied: Sequence[TargetRow], control: Sequence[str]
) -> CheckVerdict:
    try:
        measured = await measure_asked(site, plan, asked, applied, control)
    except MetricSourceUnavailable as error:
        return CheckVerdict.unavailable(asked.check, str(error))
    _keep(site, plan, wave, asked.check.name, measured)
    return judge_asked(plan, asked, measured, looks_for(site.ledger, plan, wave))


def _keep(site: Site, plan: Plan, wave: int, check: str, measured: Measured) -> None:
    again = reopenings(site.ledger, plan.rollout, wave)
    first_written(site.ledger, measured_entry(site, plan.rollout, wave, check, measured.document(), again))


def _again(site: Site, plan: Plan, wave: int) -> str:
    """Give the end of the key of what is judged anew after a retry; empty for the first time."""
    number = reopenings(site.ledger, plan.rollout, wave)
    return f":again:{number}" if number else ""


def _conclude(
    site: Site,
    plan: Plan,
    wave: int,
    verdict: WaveVerdict,
    checks: Sequence[CheckVerdict],
    stop: Stop | None = None,
) -> JudgeAnswer:
    verdict, stays = restrained(site, plan, verdict)
    body: dict[str, JsonValue] = {
        "wave": wave,
        "verdict": verdict.verdict.value,
        "reason": verdict.reason,
        "checks": [check.model_dump(mode="json") for check in (verdict.checks or checks)],
    }
    if stop is not None:
        body["stop"] = stop.model_dump(mode="json")
    if stays:
        body["irreversible"] = dict(stays)
    key = f"verdict:{wave}{_again(site, plan, wave)}"
    written = first_written(site.ledger, NewEntry(chain=plan.rollout, kind=EntryKind.VERDICT, key=key, body=body))
    site.crash("verdict-written")
    say_waiting(site, plan.rollout, "")
    return _follow(site, site.ledger.rollout(plan.rollout), wave, written)


def _follow(site: Site, row: RolloutRow | None, wave: int, written: LedgerEntry) -> JudgeAnswer:
    """Bring a running rollout to the state that follows from a verdict: whoever wrote it may have died before that."""
    name, reason = VerdictName(written.body["verdict"]), str(written.body["reason"])
    following = NEXT_STATE.get(name)
    if following is not None and row is not None and row.state is RolloutState.RUNNING:
        lock_irreversible(site, row, written)
        moved(site, row.id, following, reason=f"wave {wave}: {reason}", only_from=(RolloutState.RUNNING,))
    return JudgeAnswer(wave=wave, verdict=name, sentence=reason)
