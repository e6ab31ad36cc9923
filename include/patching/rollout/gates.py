"""Gates: every wave waits behind one; the first refusal wins and is said in one sentence."""

from __future__ import annotations

from datetime import datetime, timedelta

from patching.canary.error_budget import Level
from patching.change import Outcome
from patching.ledger.base import Ledger
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Plan
from patching.plan.fit import Fit
from patching.plan.windows import freeze_at, next_opening, next_window, open_window, sentence
from patching.rollout.answers import GateAnswer, GateState, Request, VerdictName
from patching.rollout.error_budget import budget_now, hold_for
from patching.rollout.incidents import lock_of
from patching.rollout.past import known_jobs
from patching.rollout.record import frozen_plan, moved, request_of_run, say_waiting
from patching.rollout.site import Site
from patching.rollout.states import AT_WORK, RolloutState

LONGEST_NAP = timedelta(minutes=5)
BUDGET_NAP = timedelta(minutes=1)


def _answer(state: GateState, wave: int, text: str, again_at: datetime | None = None, **more: str) -> GateAnswer:
    return GateAnswer(state=state, wave=wave, sentence=text, again_at=again_at, **more)


def approved(site: Site, rollout: str, plan: Plan) -> bool:
    """Say whether the ledger has a decision that approves exactly this plan."""
    entry = site.ledger.find(rollout, f"approved:{plan.digest}")
    return entry is not None and bool(entry.body.get("approved"))


def gate(site: Site, rollout: str, wave: int, run_id: str) -> GateAnswer:
    """Ask whether a wave may start now; an open gate is written down with the wave's targets and controls.

    Nothing but the ledger and the clock is asked. Raises LedgerUnavailable: then nothing is launched.
    """
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    request = request_of_run(site, rollout, run_id)
    if row is None or plan is None or request is None:
        return _answer(GateState.REFUSED, wave, "this run has no plan", shown_as="skipped")
    if request.mode == "plan":
        return _answer(GateState.REFUSED, wave, "mode is plan: nothing is changed", shown_as="skipped")
    refused = _refused_by_ledger(site, plan, row.state, wave)
    if refused is not None:
        return refused
    answer = _time(plan, request, wave, site.clock(), begun=_worked_in(site, rollout, run_id))
    if answer.state is GateState.OPEN:
        answer = _budget(site, plan, answer)
    if answer.state is GateState.OPEN:
        answer = _fitting(site, plan, request, answer)
    if answer.state is GateState.OPEN:
        return _open(site, plan, answer, run_id)
    if answer.state is GateState.WAITS:
        say_waiting(site, rollout, answer.sentence)
    elif answer.shown_as == "skipped":
        _pause(site, rollout, row.state, answer, run_id)
    return answer


def _refused_by_ledger(site: Site, plan: Plan, state: RolloutState, wave: int) -> GateAnswer | None:
    if plan.wave(wave) is None:
        return _answer(GateState.REFUSED, wave, f"the plan has no wave {wave}", shown_as="skipped")
    stopped = site.ledger.stopped()
    if stopped is not None:
        return _answer(GateState.REFUSED, wave, f"everything is stopped: {stopped}", shown_as="failed")
    locked = lock_of(site.ledger, plan.policy.name)
    if locked is not None:
        return _answer(GateState.REFUSED, wave, locked.sentence, shown_as="failed")
    if not approved(site, plan.rollout, plan):
        return _answer(GateState.REFUSED, wave, "the plan is not approved", shown_as="skipped")
    if state not in AT_WORK:
        return _answer(GateState.REFUSED, wave, f'the rollout is "{state.value}"', shown_as="skipped")
    if verdict_of(site.ledger, plan.rollout, wave) is not None:
        return _answer(GateState.REFUSED, wave, f"wave {wave} has its verdict already", shown_as="skipped")
    if wave > 1 and not promoted(site, plan.rollout, wave - 1):
        return _answer(GateState.REFUSED, wave, f"wave {wave - 1} is not promoted", shown_as="skipped")
    return None


def promoted(site: Site, rollout: str, wave: int) -> bool:
    """Say whether the ledger has a promoting verdict for a wave, the judge's own or a person's after it."""
    entry = verdict_of(site.ledger, rollout, wave)
    return entry is not None and entry.body.get("verdict") == "promote"


def verdict_of(ledger: Ledger, rollout: str, wave: int) -> LedgerEntry | None:
    """Find the verdict that holds for a wave: the judge's, or a person's after it; None once it was reopened.

    The judge's (``verdict:N``) is never overwritten; a person's (``verdict:N:by:M``) names who and why.
    """
    kinds = [EntryKind.VERDICT, EntryKind.WAVE_REOPENED]
    found = [item for item in ledger.entries(rollout, kinds=kinds) if item.body.get("wave") == wave]
    return found[-1] if found and found[-1].kind is EntryKind.VERDICT else None


def verdicts(ledger: Ledger, rollout: str) -> list[tuple[int, VerdictName]]:
    """Give the verdict that holds for every judged wave, in order."""
    waves = {int(entry.body["wave"]) for entry in ledger.entries(rollout, kinds=[EntryKind.VERDICT])}
    found = [(wave, verdict_of(ledger, rollout, wave)) for wave in sorted(waves)]
    return [(wave, VerdictName(entry.body["verdict"])) for wave, entry in found if entry is not None]


def reopenings(ledger: Ledger, rollout: str, wave: int) -> int:
    """Count how often a wave was reopened after a verdict: by retries, each by a person."""
    entries = ledger.entries(rollout, kinds=[EntryKind.WAVE_REOPENED])
    return sum(entry.body.get("wave") == wave for entry in entries)


def _worked_in(site: Site, rollout: str, run_id: str) -> bool:
    started = site.ledger.entries(rollout, kinds=[EntryKind.WAVE_STARTED])
    return any(entry.body.get("run") == run_id for entry in started)


def _time(plan: Plan, request: Request, wave: int, now: datetime, *, begun: bool) -> GateAnswer:
    """Check freeze and window; an emergency passes those that the policy lets it pass."""
    schedule, passes = plan.policy.spec.schedule, _passes(plan)
    freeze = None if "freeze" in passes else freeze_at(schedule, now)
    in_window = "window" in passes or not schedule.windows or open_window(schedule, now) is not None
    if freeze is None and in_window:
        return _answer(GateState.OPEN, wave, "open")
    opening = next_opening(schedule, now)
    text = f"waits for the end of the freeze ({freeze.reason})" if freeze else sentence(schedule, now)
    if begun or request.scheduled or opening is None:
        return _answer(GateState.REFUSED, wave, text, shown_as="skipped")
    return _answer(GateState.WAITS, wave, text, again_at=min(opening, now + LONGEST_NAP))


def _budget(site: Site, plan: Plan, answer: GateAnswer) -> GateAnswer:
    """Check the error budgets: burning at page level holds what has begun, and lets what has not wait (E5).

    A nearly spent budget lets only emergencies pass; one that nobody can read lets nothing pass.
    """
    if not plan.policy.spec.error_budgets or "error-budget" in _passes(plan):
        return answer
    found = budget_now(site, plan.rollout, answer.wave)
    if found is None or found.level in (Level.OK, Level.TICKET) or (plan.emergency and found.level is Level.SPENT):
        return answer
    if found.level is Level.PAGE and answer.wave > 1:
        text = hold_for(site, plan.rollout, found)
        if text is None:
            return _answer(GateState.REFUSED, answer.wave, "somebody else moved the rollout", shown_as="skipped")
        return _answer(GateState.REFUSED, answer.wave, text, shown_as="failed")
    text = f"waits for the error budget {found.sentence}"
    return _answer(GateState.WAITS, answer.wave, text, again_at=site.clock() + BUDGET_NAP)


def _fitting(site: Site, plan: Plan, request: Request, answer: GateAnswer) -> GateAnswer:
    """Keep a wave from beginning that would not end before its window closes."""
    if not plan.policy.spec.schedule.windows:
        return answer
    wave, now = answer.wave, site.clock()
    left = {row.target for row in site.ledger.targets(plan.rollout) if row.wave == wave and row.outcome is None}
    fit = Fit(plan, known_jobs(site.ledger, plan.policy), site.concurrency)
    said = fit.wave_too_late(wave, left, now)
    if said is None:
        return answer
    following = next_window(plan.policy.spec.schedule, now)
    if request.scheduled or following is None or _worked_in(site, plan.rollout, request.run_id):
        return _answer(GateState.REFUSED, wave, said, shown_as="skipped")
    return _answer(GateState.WAITS, wave, said, again_at=min(following.opens, now + LONGEST_NAP))


def leave_for_next_window(site: Site, plan: Plan, wave: int, run_id: str, reason: str) -> None:
    """Write down that a window ended this run's work on a wave, with what was not begun any more."""
    rows = site.ledger.targets(plan.rollout)
    applied = sum(row.outcome is Outcome.APPLIED for row in rows)
    left = sum(row.outcome is None for row in rows)
    text = f"{applied} applied, {left} carried over: {reason}"
    body = {"wave": wave, "gate": "time", "open": False, "reason": text, "run": run_id}
    key = f"gate-closed:{wave}:{run_id}"
    if site.ledger.find(plan.rollout, key) is None:
        site.ledger.append(NewEntry(chain=plan.rollout, kind=EntryKind.GATE, key=key, body=body))


def closed_by_time(site: Site, rollout: str, wave: int, run_id: str) -> str | None:
    """Give the sentence with which a window ended this run's work on a wave, None where none did."""
    entry = site.ledger.find(rollout, f"gate-closed:{wave}:{run_id}")
    return None if entry is None else str(entry.body["reason"])


def _passes(plan: Plan) -> tuple[str, ...]:
    return tuple(plan.policy.spec.emergency.ignore) if plan.emergency else ()


def _open(site: Site, plan: Plan, answer: GateAnswer, run_id: str) -> GateAnswer:
    wave = answer.wave
    state = moved(site, plan.rollout, RolloutState.RUNNING, reason=f"wave {wave} may start", only_from=AT_WORK)
    if state is not RolloutState.RUNNING:
        return _answer(GateState.REFUSED, wave, f'the rollout is "{state.value}"', shown_as="skipped")
    rows = {row.target: row for row in site.ledger.targets(plan.rollout)}
    found = plan.wave(wave)
    targets = list(found.targets) if found else []
    gone = (Outcome.SUPERSEDED, Outcome.QUARANTINED)
    control = [name for name in plan.control(wave) if rows[name].began_at is None and rows[name].outcome not in gone]
    passed = ", ".join(_passes(plan))
    reason = f"open (emergency: passes {passed})" if passed else "open"
    body = {"wave": wave, "targets": targets, "control": control, "run": run_id}
    gate_body = {"wave": wave, "gate": "all", "open": True, "reason": reason}
    if site.ledger.find(plan.rollout, f"wave-started:{wave}") is None:
        site.ledger.append_all(
            [
                NewEntry(chain=plan.rollout, kind=EntryKind.GATE, key=f"gate:{wave}:{run_id}", body=gate_body),
                NewEntry(chain=plan.rollout, kind=EntryKind.WAVE_STARTED, key=f"wave-started:{wave}", body=body),
            ]
        )
    say_waiting(site, plan.rollout, "")
    return answer


def _pause(site: Site, rollout: str, state: RolloutState, answer: GateAnswer, run_id: str) -> None:
    """Leave the rest to the run of the next window: that is written down, and makes this run a carried-over one."""
    body = {"wave": answer.wave, "gate": "time", "open": False, "reason": answer.sentence, "run": run_id}
    key = f"gate-closed:{answer.wave}:{run_id}"
    if site.ledger.find(rollout, key) is None:
        site.ledger.append(NewEntry(chain=rollout, kind=EntryKind.GATE, key=key, body=body))
    if state is RolloutState.RUNNING:
        moved(site, rollout, RolloutState.WAITING, reason=answer.sentence, only_from=(RolloutState.RUNNING,))
    say_waiting(site, rollout, answer.sentence)


def carried_over(site: Site, rollout: str, run_id: str) -> bool:
    """Say whether a window or freeze ended this run's work, so that a later run goes on with the rest."""
    gates = site.ledger.entries(rollout, kinds=[EntryKind.GATE])
    return any(entry.body.get("run") == run_id and not entry.body.get("open") for entry in gates)
