"""Target view: everything about one target of a rollout: what was planned, its steps in order, and its log; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from patching.ledger.base import TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.plan.document import Plan, PlannedTarget
from patching.report.rollout_report import change_text
from patching.report.rollout_view import shown_as
from patching.value import JsonValue

SCHEMA = 1


def target_view(
    row: TargetRow, plan: Plan | None, entries: Sequence[LedgerEntry], now: datetime, *, waits_for: str | None = None
) -> dict[str, JsonValue]:
    """Make the document of one target (V3) from the entries of its rollout that name it.

    ``waits_for`` is the one sentence of what it waits for, with what its rollout waits for (``target_waits``).
    """
    mine = [entry for entry in entries if entry.target == row.target]
    planned = plan.planned(row.target) if plan else None
    return {
        "schema_version": SCHEMA,
        "as_of": now.isoformat(),
        "target": {**row.model_dump(mode="json"), **_waits(waits_for), "shown_as": shown_as(row)},
        "planned": _planned(planned) if planned else None,
        "steps": _steps(mine),
        "log": [line for line in (_line(entry) for entry in mine) if line],
    }


def _waits(sentence: str | None) -> dict[str, JsonValue]:
    return {} if sentence is None else {"waits_for": sentence}


def _planned(item: PlannedTarget) -> dict[str, JsonValue]:
    undo = item.undo
    return {
        "labels": item.target.labels,
        "address": item.target.address,
        "reason": item.reason,
        "priority": f"{item.priority.name}: {item.priority.reason}",
        "reboot": item.reboot,
        "changes": [change_text(patch) for patch in item.patches],
        "advisories": sorted({name for patch in item.patches for name in patch.advisories}),
        "undo": f"{undo.covered} of {undo.total} packages" + (f"; {undo.reason}" if undo.reason else ""),
        "undo_possible": undo.possible,
        "warnings": [warning.message for warning in item.warnings],
    }


def _steps(mine: Sequence[LedgerEntry]) -> list[dict[str, JsonValue]]:
    """Pair every intent with its outcome by step id; an intent without one is open: nobody knows how it ended."""
    outcomes = {entry.step: entry for entry in mine if entry.kind is EntryKind.STEP_OUTCOME}
    steps = []
    for entry in mine:
        if entry.kind is not EntryKind.INTENT:
            continue
        step, ended = entry.body["step"], outcomes.get(entry.step)
        body = ended.body if ended else {}
        steps.append(
            {
                "id": entry.step,
                "name": step["name"],
                "phase": step["phase"],
                "kind": step["kind"],
                "generation": entry.body.get("generation", 0),
                "began_at": entry.at.isoformat(),
                "ended_at": ended.at.isoformat() if ended else None,
                "ok": body.get("ok") if ended else None,
                "exit_code": body.get("exit_code"),
                "detail": str(body.get("detail") or ""),
                "stdout": str(body.get("stdout") or ""),
                "stderr": str(body.get("stderr") or ""),
            }
        )
    return steps


def _line(entry: LedgerEntry) -> dict[str, JsonValue] | None:
    text = _text(entry)
    return {"at": entry.at.isoformat(), "seq": entry.seq, "kind": entry.kind.value, "text": text} if text else None


def _text(entry: LedgerEntry) -> str:
    """Say one entry in words; empty for those that the steps show already."""
    body = entry.body
    match entry.kind:
        case EntryKind.WAITS:
            return str(body.get("sentence") or "")
        case EntryKind.TARGET_BEGAN:
            return f"change job began (wave {body.get('wave')})"
        case EntryKind.STEPS_RESOLVED:
            names = ", ".join(str(step["name"]) for step in body.get("steps", ()))
            return f"steps of phase {body.get('phase')}: {names}"
        case EntryKind.TARGET_PROGRESS:
            detail = body.get("detail")
            return f"phase {body.get('phase')}" + (f": {detail}" if detail else "")
        case EntryKind.TARGET_OUTCOME:
            what = "undo" if body.get("undo") else "outcome"
            return f"{what}: {body.get('outcome')}: {body.get('reason')}"
        case EntryKind.GENERATION_RAISED:
            return f"generation {body.get('generation')}: {body.get('reason')}"
        case EntryKind.QUARANTINED:
            return f"quarantined until {body.get('until')}: {body.get('reason')}"
        case EntryKind.RELEASED:
            what = "its place is free" if body.get("what") == "place" else "released from quarantine"
            return f"{what}: {body.get('reason')}"
        case EntryKind.LEASE_TAKEN_OVER:
            return f"lease taken over by {body.get('owner')} from {body.get('from')}"
        case _:
            return ""
