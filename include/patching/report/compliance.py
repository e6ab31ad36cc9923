"""Compliance from the record: targets × findings, each with its state, since when it is known, when it is due; pure.

What a target's newest plan says of it, together with what became of that plan. A target that could not be looked at is
``unknown``, never compliant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from patching.advisory import Finding
from patching.change import Outcome, Patch
from patching.ledger.base import RolloutRow, TargetRow
from patching.plan.document import Plan, PlannedTarget
from patching.value import Value

Matter: TypeAlias = tuple[str, str, str]

NOTHING_MISSING = ("up_to_date", "not_affected")
NOT_SEEN = ("offline", "login_refused", "host_key_unknown", "host_key_changed", "sudo_refused", "unreadable")
NOT_ASKED = ("limited", "joined_late")
DONE = (Outcome.APPLIED, Outcome.NOTHING_TO_DO)


class ComplianceState(StrEnum):
    """Where one target stands with one finding, the worst first."""

    UNKNOWN = "unknown"
    OPEN = "open"
    LEFT_OUT = "left_out"
    NOT_ACTIVE = "not_active"
    CLOSED = "closed"
    COMPLIANT = "compliant"


class Recorded(Value):
    """One rollout as the ledger has it: its plan, its targets' ends, and those whose change is not active yet.

    ``plan`` is None where it cannot be read.
    """

    row: RolloutRow
    plan: Plan | None
    targets: tuple[TargetRow, ...]
    not_active: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether its plan is known and tells of the whole fleet."""
        return self.plan is not None and not self.plan.limit_to and not self.plan.emergency


class ComplianceRow(Value):
    """One target with one finding, or (``advisory`` empty) with one patch, or with nothing that could be said of it.

    ``known_since`` is when a plan of this policy first had it; ``age_days`` and ``overdue`` are as of ``as_of``.
    """

    policy: str
    target: str
    state: ComplianceState
    advisory: str = ""
    component: str = ""
    installed: str = ""
    fixed: str = ""
    priority: str = ""
    due: datetime | None = None
    overdue: bool = False
    known_since: datetime | None = None
    age_days: float | None = None
    reason: str
    rollout: str
    as_of: datetime


def compliance(history: Iterable[Recorded], now: datetime) -> list[ComplianceRow]:
    """Say where every target of one policy stands; ``history`` is its rollouts with a plan, newest first.

    A run for some targets or an emergency tells only of the targets that it was for; the others are as the plan before
    it left them. Older plans only tell since when a finding is known: one at a time is held in memory. What stood
    before a plan that cannot be read is unknown: that plan may have said, and done, anything.
    """
    rows: list[ComplianceRow] = []
    since: dict[Matter, datetime] = {}
    told: set[str] = set()
    lost: list[Recorded] = []
    whole = False
    for item in history:
        if item.plan is None:
            lost += [] if whole else [item]
            continue
        for planned in item.plan.targets:
            for advisory, component in _matters(planned):
                since[planned.target.name, advisory, component] = item.plan.created_at
        if not whole:
            found = [row for row in _rows(item, item.plan, now) if row.target not in told]
            rows += [_since_lost(row, lost[0]) for row in found] if lost else found
            told |= {row.target for row in rows}
            whole = item.whole
    rows += [_not_told(lost[0], name, now) for name in _only_in(lost, told)]
    dated = [_dated(row, since.get((row.target, row.advisory, row.component))) for row in rows]
    return sorted(dated, key=lambda row: (row.target, row.component, row.advisory))


def _since_lost(row: ComplianceRow, lost: Recorded) -> ComplianceRow:
    """Give what an older plan said of a target as unknown: a newer one that cannot be read came after it."""
    reason = f"the newer plan of {lost.row.id} cannot be read; before it: {row.state.value} ({row.reason})"
    return row.model_copy(update={"state": ComplianceState.UNKNOWN, "reason": reason})


def _only_in(lost: Iterable[Recorded], told: Collection[str]) -> list[str]:
    return sorted({row.target for item in lost for row in item.targets} - set(told))


def _not_told(lost: Recorded, target: str, now: datetime) -> ComplianceRow:
    return ComplianceRow(
        policy=lost.row.policy,
        target=target,
        state=ComplianceState.UNKNOWN,
        reason=f"the plan of {lost.row.id} cannot be read, and no older one tells of it",
        rollout=lost.row.id,
        as_of=now,
    )


def _dated(row: ComplianceRow, known: datetime | None) -> ComplianceRow:
    if known is None:
        return row
    age = round((row.as_of - known).total_seconds() / 86400, 2)
    return row.model_copy(update={"known_since": known, "age_days": age})


def _matters(planned: PlannedTarget) -> list[tuple[str, str]]:
    """Give what a planned target is about: its findings, and patches that no finding is behind."""
    found = [(item.advisory, item.component) for item in planned.findings]
    behind = {item.component for item in planned.findings}
    return found + [("", patch.component) for patch in planned.patches if patch.component not in behind]


def _rows(item: Recorded, plan: Plan, now: datetime) -> Iterable[ComplianceRow]:
    ends = {row.target: row for row in item.targets}
    for planned in plan.targets:
        yield from _planned_rows(item, planned, ends.get(planned.target.name), now)
    for left in plan.exclusions:
        if plan.emergency or left.code in NOT_ASKED:
            continue
        yield ComplianceRow(
            policy=item.row.policy,
            target=left.target,
            state=_state_of(left.code),
            reason=f"{left.code}: {left.reason}",
            rollout=item.row.id,
            as_of=now,
        )


def _state_of(code: str) -> ComplianceState:
    if code in NOTHING_MISSING:
        return ComplianceState.COMPLIANT
    return ComplianceState.UNKNOWN if code in NOT_SEEN else ComplianceState.LEFT_OUT


def _planned_rows(
    item: Recorded,
    planned: PlannedTarget,
    end: TargetRow | None,
    now: datetime,
) -> Iterable[ComplianceRow]:
    patches = {patch.component: patch for patch in planned.patches}
    findings = {(found.advisory, found.component): found for found in planned.findings}
    for advisory, component in _matters(planned):
        finding, patch = findings.get((advisory, component)), patches.get(component)
        state, reason = _stands(planned.target.name in item.not_active, end, finding, patch)
        due = planned.priority.due if finding is not None else None
        open_still = state not in (ComplianceState.CLOSED, ComplianceState.COMPLIANT)
        yield ComplianceRow(
            policy=item.row.policy,
            target=planned.target.name,
            state=state,
            advisory=advisory,
            component=component,
            installed=(finding.installed if finding else patch and patch.before) or "",
            fixed=(finding.fixed if finding else patch and patch.after) or "",
            priority=planned.priority.name if finding is not None else "",
            due=due,
            overdue=bool(open_still and due is not None and due < now),
            reason=reason,
            rollout=item.row.id,
            as_of=now,
        )


def _stands(
    inactive: bool, end: TargetRow | None, finding: Finding | None, patch: Patch | None
) -> tuple[ComplianceState, str]:
    """Decide one finding's state from how its target ended; only a change that is proven and stands closes it."""
    if end is None or end.outcome is None:
        return ComplianceState.OPEN, f"planned for wave {end.wave}" if end else "planned"
    if end.undo_outcome not in (None, Outcome.STAYS_CHANGED):
        return ComplianceState.OPEN, f"changed and taken back: {end.detail or end.undo_outcome}"
    if end.outcome is Outcome.UNKNOWN:
        return ComplianceState.UNKNOWN, end.detail or "how its change ended is not known"
    if end.outcome not in DONE:
        return ComplianceState.OPEN, f"{end.outcome.value}: {end.detail}".rstrip(": ")
    if inactive:
        return ComplianceState.NOT_ACTIVE, end.detail or "applied, not active"
    if finding is not None and (patch is None or finding.advisory not in patch.advisories):
        return ComplianceState.OPEN, "the change is not shown to close it; the next plan will tell"
    return ComplianceState.CLOSED, end.outcome.value
