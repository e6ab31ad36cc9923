"""Rollout view: the one versioned document from which a page shows a rollout; pure.

It holds words and numbers, no colours and no layout. Everything in it comes from the projected rows, the frozen plan
and the rollout's own entries, so the page, the CLI and an audit replay show the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from patching.canary.dependent import dependent_check, service_of
from patching.canary.plot import Mark, plot_of
from patching.canary.plot_bound import bounded
from patching.change import Outcome, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.plan.document import Plan, PlannedTarget
from patching.policy import Check
from patching.report.acts import TARGET_ACTS, judged_by_checks, rollout_acts, target_acts
from patching.report.incident_view import incident_line
from patching.report.rollout_report import change_text
from patching.report.sentences import headline, next_steps, standing, target_waits, waiting_for
from patching.report.wave_view import wave_views
from patching.rollout.incidents import Incident
from patching.rollout.late import late_view, left_out
from patching.rollout.reversibility import BACK, PROOFS, proof_in, staying
from patching.rollout.states import FINAL, RolloutState
from patching.value import JsonValue

SCHEMA = 1
MOST_MARKS = 40

VIEW_KINDS = (
    EntryKind.APPROVAL,
    EntryKind.APPROVAL_DECIDED,
    EntryKind.EMERGENCY,
    EntryKind.GATE,
    EntryKind.JOINED_LATE,
    EntryKind.MEASURED,
    EntryKind.QUARANTINED,
    EntryKind.RELEASED,
    EntryKind.TRANSITION,
    EntryKind.VERDICT,
    EntryKind.WAVE_REOPENED,
    EntryKind.WAVE_STARTED,
    *PROOFS,
)


def rollout_view(
    row: RolloutRow,
    rows: Sequence[TargetRow],
    plan: Plan | None,
    entries: Sequence[LedgerEntry],
    now: datetime,
    *,
    measured: Mapping[str, JsonValue] | None = None,
    stopped: str | None = None,
    locked: Incident | None = None,
) -> dict[str, JsonValue]:
    """Make the document of one rollout.

    ``entries`` are those of its chain of the kinds in VIEW_KINDS (others are ignored); ``measured`` maps the digests
    that ``measured`` entries name to their documents; ``stopped`` is the reason of the stop switch, if it is on, and
    ``locked`` the incident that locks the policy. ``acts`` are what the state allows, whoever may do it.
    """
    quarantined = _quarantined(entries, now)
    waves = wave_views(row, rows, plan, entries)
    lock, undo_begun = locked.sentence if locked else "", _undo_begun(entries)
    begun, stuck, may_retry = waves_begun(entries), judged_by_checks(waves), not undo_begun and locked is None
    return {
        "schema_version": SCHEMA,
        "as_of": now.isoformat(),
        "rollout": _rollout(row),
        "headline": headline(row, rows, stopped=stopped, locked=lock),
        "sentence": waiting_for(row, rows, stopped=stopped, locked=lock) or _doing(row, rows, waves),
        "standing": standing(rows) if rows else "no target is planned",
        "next_steps": next_steps(row, rows, list(quarantined), incident=locked.id if locked else ""),
        "stop_switch": stopped,
        "incident": incident_line(locked) if locked else None,
        "acts": rollout_acts(row, rows, waves, undo_begun=undo_begun, locked=locked, stays=_stays(plan, rows, entries)),
        "target_acts": TARGET_ACTS,
        "counts": dict(Counter(shown_as(item) for item in rows)),
        "approval": _approval(entries, plan, row.plan_digest),
        "waves": waves,
        "targets": [
            {
                **shown,
                "waits_for": target_waits(row, item, begun, stopped=stopped, locked=lock),
                "acts": target_acts(
                    row, item, quarantined=item.target in quarantined, may_retry=may_retry and item.wave not in stuck
                ),
            }
            for item, shown in zip(rows, _targets(rows, plan, waves, quarantined, now), strict=True)
        ],
        "plots": _plots(entries, measured or {}, plan, waves),
        "exclusions": [item.model_dump(mode="json") for item in left_out(plan, entries)],
        "late": late_view(plan, rows, entries, over=row.state in FINAL),
        "events": _events(entries),
    }


def _stays(plan: Plan | None, rows: Sequence[TargetRow], entries: Sequence[LedgerEntry]) -> dict[str, str]:
    """Give the targets, begun and not back, that cannot be undone; the ledger decides again when it is asked for."""
    if plan is None or not any(item.undo.irreversible for item in plan.targets):
        return {}
    begun = {item.target for item in rows if item.began_at is not None and item.undo_outcome not in BACK}
    return staying(plan, begun, proof_in(entries, plan))


def run_without_rollout(dag_id: str, run_id: str, now: datetime, sentence: str) -> dict[str, JsonValue]:
    """Make the document of a DAG run that works on no rollout (yet), with the sentence that says why."""
    return {
        "schema_version": SCHEMA,
        "as_of": now.isoformat(),
        "rollout": None,
        "run": {"dag_id": dag_id, "run_id": run_id},
        "sentence": sentence,
    }


def waves_begun(entries: Sequence[LedgerEntry]) -> set[int]:
    """Give the waves whose gate has opened."""
    return {int(entry.body["wave"]) for entry in entries if entry.kind is EntryKind.WAVE_STARTED}


def _undo_begun(entries: Sequence[LedgerEntry]) -> bool:
    moves = (entry for entry in entries if entry.kind is EntryKind.TRANSITION)
    return any(entry.body.get("to") == RolloutState.UNDOING for entry in moves)


def overview_line(
    row: RolloutRow, rows: Sequence[TargetRow], *, stopped: str | None = None, locked: str = ""
) -> dict[str, JsonValue]:
    """Make one line of the list of rollouts; ``rows`` may be empty where the targets are not wanted.

    ``stopped`` is the reason of the stop switch, ``locked`` the sentence of the incident that locks the policy.
    """
    return {
        **_rollout(row),
        "sentence": waiting_for(row, rows, stopped=stopped, locked=locked) or row.reason,
        "standing": standing(rows) if rows else "",
        "counts": dict(Counter(shown_as(item) for item in rows)),
    }


def shown_as(row: TargetRow) -> str:
    """Say in one word how a target stands: its undo if there was one, else its outcome, else what it is doing."""
    if row.undo_outcome is Outcome.UNDONE:
        return "undone"
    if row.undo_outcome is Outcome.UNKNOWN:
        return "unknown"
    if row.undo_outcome is Outcome.FAILED:
        return "undo_failed"
    if row.undo_outcome is Outcome.STAYS_CHANGED:
        return "stays_changed"
    if row.state is TargetState.UNDOING:
        return "undoing"
    return row.outcome.value if row.outcome else row.state.value


def _rollout(row: RolloutRow) -> dict[str, JsonValue]:
    plain = row.model_dump(mode="json")
    return {**plain, "dag_id": f"patch__{row.policy}", "final": row.state in FINAL}


def _doing(row: RolloutRow, rows: Sequence[TargetRow], waves: Sequence[Mapping[str, JsonValue]]) -> str:
    """Say what a rollout that waits for nothing is doing, or why it ended."""
    if row.state is RolloutState.RUNNING:
        current = next((wave for wave in waves if wave["state"] in ("running", "soaking")), None)
        if current is not None:
            doing = "soaks" if current["state"] == "soaking" else "is at work"
            return f"wave {current['index']} of {len(waves)} {doing}: {standing([*_of_wave(rows, current['index'])])}"
    if row.state is RolloutState.COMPLETED and not row.reason:
        return "every wave was promoted and verified"
    return row.reason


def _of_wave(rows: Sequence[TargetRow], index: JsonValue) -> list[TargetRow]:
    return [row for row in rows if row.wave == index]


def _targets(
    rows: Sequence[TargetRow],
    plan: Plan | None,
    waves: Sequence[Mapping[str, JsonValue]],
    quarantined: Mapping[str, tuple[str, str | None]],
    now: datetime,
) -> list[dict[str, JsonValue]]:
    planned = {item.target.name: item for item in plan.targets} if plan else {}
    label = plan.policy.spec.rollout.failure_domain if plan else None
    verdicts = {wave["index"]: wave["verdict"] for wave in waves}
    return [
        {
            "name": row.target,
            "wave": row.wave,
            "shown_as": shown_as(row),
            "state": row.state.value,
            "phase": row.phase,
            "outcome": row.outcome.value if row.outcome else None,
            "undo_outcome": row.undo_outcome.value if row.undo_outcome else None,
            "verdict": verdicts.get(row.wave),
            "detail": row.detail,
            "quarantined": quarantined.get(row.target, (None,))[0],
            "quarantined_until": quarantined.get(row.target, (None, None))[1],
            "began_at": row.began_at.isoformat() if row.began_at else None,
            "ended_at": row.ended_at.isoformat() if row.ended_at else None,
            "seconds": _seconds(row, now),
            **_planned(planned.get(row.target), label),
        }
        for row in rows
    ]


def _seconds(row: TargetRow, now: datetime) -> float | None:
    """Give how long the change took, or takes up to now, rounded so that an idle document stays the same."""
    if row.began_at is None:
        return None
    return round(((row.ended_at or now) - row.began_at).total_seconds(), 1)


def _planned(item: PlannedTarget | None, label: str | None) -> dict[str, JsonValue]:
    if item is None:
        return {"zone": "-", "change": "", "reboot": False}
    first = change_text(item.patches[0]) if item.patches else ""
    more = f" (+{len(item.patches) - 1} more)" if len(item.patches) > 1 else ""
    return {"zone": item.target.domain(label), "change": first + more, "reboot": item.reboot}


def _approval(entries: Sequence[LedgerEntry], plan: Plan | None, digest: str | None) -> dict[str, JsonValue]:
    """Give the answers to this plan, not to an earlier one."""
    mine = [entry for entry in entries if entry.body.get("plan") == digest]
    decided = [entry for entry in mine if entry.kind is EntryKind.APPROVAL_DECIDED]
    return {
        "required": plan.approval_required if plan else 0,
        "reason": str(decided[-1].body.get("reason", "")) if decided else (plan.approval_reason if plan else ""),
        "decided": bool(decided[-1].body.get("approved")) if decided else None,
        "answers": [
            {
                "person": str(entry.body.get("person") or entry.actor or "?"),
                "decision": str(entry.body.get("decision", "")),
                "at": str(entry.body.get("answered_at") or entry.at.isoformat()),
                "comment": str(entry.body.get("comment") or ""),
            }
            for entry in mine
            if entry.kind is EntryKind.APPROVAL
        ],
    }


def _quarantined(entries: Sequence[LedgerEntry], now: datetime) -> dict[str, tuple[str, str | None]]:
    """Give why each target is in quarantine and until when; an end that has passed counts before it is written."""
    kept: dict[str, tuple[str, str | None]] = {}
    for entry in entries:
        if entry.kind is EntryKind.QUARANTINED and entry.target:
            until = entry.body.get("until")
            kept[entry.target] = (str(entry.body.get("reason", "")), str(until) if until else None)
        elif entry.kind is EntryKind.RELEASED and entry.target and entry.body.get("what") != "place":
            kept.pop(entry.target, None)
    return {name: (why, end) for name, (why, end) in kept.items() if end is None or datetime.fromisoformat(end) > now}


def _plots(
    entries: Sequence[LedgerEntry],
    measured: Mapping[str, JsonValue],
    plan: Plan | None,
    waves: Sequence[Mapping[str, JsonValue]],
) -> list[dict[str, JsonValue]]:
    """Give one plot for each wave and check, from the last measurement that is known."""
    compared = {(wave["index"], one["name"]): one.get("comparison") for wave in waves for one in wave["checks"]}
    found: dict[tuple[int, str], dict[str, JsonValue]] = {}
    for entry in entries:
        document = measured.get(str(entry.body.get("data"))) if entry.kind is EntryKind.MEASURED else None
        if document is None:
            continue
        wave, check = int(entry.body["wave"]), str(entry.body["check"])
        plot, rules = plot_of(check, document), _rules(plan, check)
        if rules is not None:
            plot = bounded(plot, rules, compared.get((wave, check)))
        what = "error share" if plot.unit == "share" else "level"
        title = f"{check}: {what} of wave {wave}{' against control' if plot.control else ''}"
        few = plot.model_copy(update={"title": title, "changes": _few(plot.changes)})
        plain = few.model_dump(mode="json")
        found[wave, check] = {"wave": wave, "check": check, "changed": len(plot.changes), **plain}
    return [found[key] for key in sorted(found)]


def _rules(plan: Plan | None, metric: str) -> Check | None:
    """Find the check of a metric, which may be that of a service that depends on the patched one."""
    for check in plan.policy.spec.verify if plan is not None else ():
        service = service_of(metric, check)
        if metric == check.name:
            return check
        if service is not None:
            return dependent_check(check, service)
    return None


def _few(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """Merge neighbouring marks, so that a wave of hundreds stays readable; the label says how many."""
    if len(marks) <= MOST_MARKS:
        return tuple(marks)
    first, last = marks[0].at, marks[-1].at
    width = (last - first).total_seconds() / MOST_MARKS or 1.0
    bins: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        bins[int((mark.at - first).total_seconds() / width)].append(mark)
    return tuple(
        Mark(at=group[0].at, label=group[0].label + (f" and {len(group) - 1} more" if group[1:] else ""))
        for _, group in sorted(bins.items())
    )


def _events(entries: Sequence[LedgerEntry]) -> list[dict[str, JsonValue]]:
    return [
        {"at": entry.at.isoformat(), "to": entry.body.get("to"), "reason": entry.body.get("reason"), "by": entry.actor}
        for entry in entries
        if entry.kind is EntryKind.TRANSITION
    ]
