"""Rollout report: what changed where and when, approved by whom, what was measured, and what a person must do; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from patching.change import Outcome, Patch, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.plan.document import Exclusion, Plan
from patching.plan.reversibility import sentence
from patching.report.drill_legs import drill_legs
from patching.report.markdown import report_markdown
from patching.report.sentences import headline, names, next_steps
from patching.report.wave_view import judged_waves
from patching.rollout.incidents import Incident
from patching.rollout.late import left_out
from patching.rollout.states import RolloutState
from patching.value import JsonValue, Value

SCHEMA = 1


class Approver(Value):
    """One person's answer to a plan."""

    person: str
    decision: str
    at: datetime
    comment: str = ""


class Event(Value):
    """One change of the rollout's state."""

    at: datetime
    to: str
    reason: str
    actor: str | None = None


class ReportedTarget(Value):
    """What became of one target; ``changes`` are the planned ones, made only where the outcome is ``applied``."""

    target: str
    wave: int
    state: str
    outcome: str | None
    reason: str
    undo_outcome: str | None
    undo_reason: str
    changes: tuple[str, ...]
    advisories: tuple[str, ...]
    began_at: datetime | None
    ended_at: datetime | None
    waits_for: str = ""


class ReportedWave(Value):
    """What became of one wave: when it started, its verdict, and each check's verdict as it was recorded."""

    wave: int
    canary: bool
    targets: int
    started_at: datetime | None
    verdict: str | None
    verdict_at: datetime | None
    reason: str
    checks: tuple[dict[str, JsonValue], ...] = ()


class ReportedQuarantine(Value):
    """One target in quarantine because of this rollout; ``evidence`` is what the ledger has of its failure."""

    target: str
    reason: str
    until: str | None
    evidence: dict[str, JsonValue] | None = None


class Report(Value):
    """Everything that a rollout's report says; ``markdown`` and ``document`` are its two forms."""

    schema_version: int = SCHEMA
    rollout: str
    policy: str
    headline: str
    state: RolloutState
    reason: str
    emergency: bool
    emergency_reason: str
    requested_by: str | None
    opened_at: datetime
    made_at: datetime
    plan_digest: str | None
    approval_required: int
    approval_reason: str
    approvers: tuple[Approver, ...]
    incident: str | None = None
    next_steps: tuple[str, ...]
    waves: tuple[ReportedWave, ...]
    targets: tuple[ReportedTarget, ...]
    carried_over: tuple[str, ...]
    exclusions: tuple[Exclusion, ...]
    quarantined: tuple[ReportedQuarantine, ...]
    power: tuple[str, ...]
    irreversible: tuple[str, ...] = ()
    drill: tuple[str, ...] = ()
    events: tuple[Event, ...]
    last_entry: int
    last_hash: str

    @property
    def markdown(self) -> str:
        """The report for people."""
        return report_markdown(self.document)

    @property
    def document(self) -> dict[str, JsonValue]:
        """The report for programs: plain JSON with ``schema_version``."""
        return self.model_dump(mode="json")


def make_report(
    entries: Sequence[LedgerEntry],
    plan: Plan | None,
    row: RolloutRow,
    rows: Sequence[TargetRow],
    now: datetime,
    *,
    locked: Incident | None = None,
) -> Report:
    """Make the report of a rollout from its chain of entries, its frozen plan and its projected rows.

    ``last_entry`` and ``last_hash`` name the entry up to which it was made, so that it can be checked against the
    ledger. ``locked`` is the incident that locks the policy now.
    """
    lock = locked.sentence if locked else ""
    quarantined, reasons = _quarantined(entries), _outcomes(entries)
    return Report(
        rollout=row.id,
        policy=row.policy,
        headline=headline(row, rows, locked=lock),
        state=row.state,
        reason=row.reason,
        emergency=row.emergency,
        emergency_reason=_emergency_reason(entries),
        requested_by=_requester(entries, plan),
        opened_at=row.opened_at,
        made_at=now,
        plan_digest=row.plan_digest,
        approval_required=plan.approval_required if plan else 0,
        approval_reason=_approval_reason(entries, plan),
        approvers=_approvers(entries, row.plan_digest),
        incident=locked.id if locked else None,
        next_steps=tuple(
            next_steps(row, rows, [item.target for item in quarantined], incident=locked.id if locked else "")
        ),
        waves=_waves(entries, plan),
        targets=tuple(_target(item, plan, reasons) for item in rows),
        carried_over=tuple(item.target for item in rows if _not_begun(item)),
        exclusions=left_out(plan, entries),
        quarantined=quarantined,
        power=tuple(f"wave {item.wave}, {item.check}: {item.statement}" for item in plan.power) if plan else (),
        irreversible=tuple(_irreversible(plan, entries)),
        drill=tuple(drill_legs(entries)),
        events=_events(entries),
        last_entry=entries[-1].seq if entries else 0,
        last_hash=entries[-1].hash if entries else "",
    )


def _irreversible(plan: Plan | None, entries: Sequence[LedgerEntry]) -> list[str]:
    """Say what was planned for good and on which targets, and who brought which of them back."""
    found: dict[str, list[str]] = {}
    for item in plan.targets if plan else ():
        for one in item.undo.irreversible:
            found.setdefault(sentence(one), []).append(item.target.name)
    said = [f"{text}: {names(targets)}" for text, targets in found.items()]
    back = [entry for entry in entries if entry.kind is EntryKind.RESTORED]
    return said + [f"{entry.target} was {entry.body['reason']}" for entry in back]


def _not_begun(row: TargetRow) -> bool:
    if row.outcome is Outcome.SUPERSEDED:
        return True
    return row.outcome is None and row.state in (TargetState.PENDING, TargetState.WAITING)


def change_text(patch: Patch) -> str:
    """Write one component's change: ``nginx 1.22 -> 1.24``, ``+ libfoo 1``, ``- libbar 2``."""
    if patch.before is None:
        return f"+ {patch.component} {patch.after}"
    if patch.after is None:
        return f"- {patch.component} {patch.before}"
    return f"{patch.component} {patch.before} -> {patch.after}"


_Outcomes = dict[tuple[str, bool], str]


def _outcomes(entries: Sequence[LedgerEntry]) -> _Outcomes:
    """Map (target, is it the undo) to the last reason written."""
    return {
        (entry.target, bool(entry.body.get("undo"))): str(entry.body.get("reason", ""))
        for entry in entries
        if entry.kind is EntryKind.TARGET_OUTCOME and entry.target is not None
    }


def _target(row: TargetRow, plan: Plan | None, reasons: _Outcomes) -> ReportedTarget:
    planned = plan.planned(row.target) if plan else None
    patches = planned.patches if planned else ()
    return ReportedTarget(
        target=row.target,
        wave=row.wave,
        state=row.state.value,
        outcome=row.outcome.value if row.outcome else None,
        reason=reasons.get((row.target, False), row.detail),
        undo_outcome=row.undo_outcome.value if row.undo_outcome else None,
        undo_reason=reasons.get((row.target, True), ""),
        changes=tuple(change_text(patch) for patch in patches),
        advisories=tuple(sorted({name for patch in patches for name in patch.advisories})),
        began_at=row.began_at,
        ended_at=row.ended_at,
        waits_for=row.waits_for,
    )


def _waves(entries: Sequence[LedgerEntry], plan: Plan | None) -> tuple[ReportedWave, ...]:
    started = {entry.body["wave"]: entry.at for entry in entries if entry.kind is EntryKind.WAVE_STARTED}
    judged = judged_waves(entries)
    waves = []
    for wave in plan.waves if plan else ():
        verdict = judged.get(wave.index)
        waves.append(
            ReportedWave(
                wave=wave.index,
                canary=wave.canary,
                targets=len(wave.targets),
                started_at=started.get(wave.index),
                verdict=str(verdict.body["verdict"]) if verdict else None,
                verdict_at=verdict.at if verdict else None,
                reason=str(verdict.body.get("reason", "")) if verdict else "",
                checks=tuple(verdict.body.get("checks", ())) if verdict else (),
            )
        )
    return tuple(waves)


def _approvers(entries: Sequence[LedgerEntry], plan_digest: str | None) -> tuple[Approver, ...]:
    """Give the answers to this plan, not to an earlier one."""
    return tuple(
        Approver(
            person=str(entry.body.get("person") or entry.actor or "?"),
            decision=str(entry.body.get("decision", "")),
            at=entry.at,
            comment=str(entry.body.get("comment") or ""),
        )
        for entry in entries
        if entry.kind is EntryKind.APPROVAL and entry.body.get("plan") == plan_digest
    )


def _approval_reason(entries: Sequence[LedgerEntry], plan: Plan | None) -> str:
    decided = [entry for entry in entries if entry.kind is EntryKind.APPROVAL_DECIDED]
    if decided:
        return str(decided[-1].body.get("reason", ""))
    return plan.approval_reason if plan else ""


def _requester(entries: Sequence[LedgerEntry], plan: Plan | None) -> str | None:
    for entry in entries:
        if entry.kind is EntryKind.ROLLOUT_OPENED:
            found = entry.body.get("requested_by") or entry.actor
            return None if found is None else str(found)
    return plan.requested_by if plan else None


def _emergency_reason(entries: Sequence[LedgerEntry]) -> str:
    return next((str(e.body.get("reason", "")) for e in entries if e.kind is EntryKind.EMERGENCY), "")


def _quarantined(entries: Sequence[LedgerEntry]) -> tuple[ReportedQuarantine, ...]:
    kept: dict[str, ReportedQuarantine] = {}
    for entry in entries:
        if entry.kind is EntryKind.QUARANTINED and entry.target:
            until = entry.body.get("until")
            kept[entry.target] = ReportedQuarantine(
                target=entry.target,
                reason=str(entry.body.get("reason", "")),
                until=None if until is None else str(until),
                evidence=entry.body.get("evidence"),
            )
        elif entry.kind is EntryKind.RELEASED and entry.target and entry.body.get("what") != "place":
            kept.pop(entry.target, None)
    return tuple(kept.values())


def _events(entries: Sequence[LedgerEntry]) -> tuple[Event, ...]:
    return tuple(
        Event(
            at=entry.at,
            to=str(entry.body.get("to", "")),
            reason=str(entry.body.get("reason", "")),
            actor=entry.actor,
        )
        for entry in entries
        if entry.kind is EntryKind.TRANSITION
    )
