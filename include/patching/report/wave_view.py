"""Wave view: how each wave of a rollout stands, with its verdict and the numbers it rests on; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from patching.change import Outcome, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.plan.document import Plan, PlannedWave
from patching.rollout.states import FINAL, RolloutState
from patching.value import JsonValue

_BY_VERDICT = {"promote": "promoted", "hold": "held", "inconclusive": "held"}
_UNDO_MISSED = (Outcome.FAILED, Outcome.UNKNOWN, Outcome.STAYS_CHANGED)


def wave_views(
    row: RolloutRow, rows: Sequence[TargetRow], plan: Plan | None, entries: Sequence[LedgerEntry]
) -> list[dict[str, JsonValue]]:
    """Make the document of every wave of the plan, in order; empty without a plan."""
    started = {entry.body["wave"]: entry for entry in entries if entry.kind is EntryKind.WAVE_STARTED}
    judged = judged_waves(entries)
    return [
        _wave(row, wave, rows, plan, started.get(wave.index), judged.get(wave.index))
        for wave in (plan.waves if plan else ())
    ]


def judged_waves(entries: Sequence[LedgerEntry]) -> dict[int, LedgerEntry]:
    """Map every judged wave to the verdict that holds; one that a retry reopened after its verdict is not in it."""
    judged: dict[int, LedgerEntry] = {}
    for entry in entries:
        if entry.kind is EntryKind.VERDICT:
            judged[int(entry.body["wave"])] = entry
        elif entry.kind is EntryKind.WAVE_REOPENED:
            judged.pop(int(entry.body["wave"]), None)
    return judged


def _wave(
    row: RolloutRow,
    wave: PlannedWave,
    rows: Sequence[TargetRow],
    plan: Plan | None,
    started: LedgerEntry | None,
    judged: LedgerEntry | None,
) -> dict[str, JsonValue]:
    mine = [item for item in rows if item.wave == wave.index]
    power = [f"{item.check}: {item.statement}" for item in plan.power if item.wave == wave.index] if plan else []
    return {
        "index": wave.index,
        "canary": wave.canary,
        "targets": len(wave.targets),
        "ended": sum(item.state is TargetState.ENDED for item in mine),
        "counts": dict(Counter(item.outcome.value for item in mine if item.outcome)),
        "state": wave_state(row, mine, started=started is not None, verdict=_verdict(judged)),
        "started_at": started.at.isoformat() if started else None,
        "soak_seconds": wave.soak,
        "soak_until": _soak_until(wave, mine) if started and not judged else None,
        "verdict": _verdict(judged),
        "verdict_at": judged.at.isoformat() if judged else None,
        "reason": str(judged.body.get("reason", "")) if judged else "",
        "checks": list(judged.body.get("checks", ())) if judged else [],
        "power": power,
    }


def _verdict(judged: LedgerEntry | None) -> str | None:
    return str(judged.body["verdict"]) if judged else None


def wave_state(row: RolloutRow, mine: Sequence[TargetRow], *, started: bool, verdict: str | None) -> str:
    """Say in one word how a wave stands.

    ahead, not_reached, running, paused, soaking, held, promoted, undoing, undone or undo_failed. ``mine`` are the
    rows of this wave. A state that no rule names is shown as the rollout's own.
    """
    if any(item.undo_outcome in _UNDO_MISSED for item in mine):
        return "undo_failed"
    if verdict in _BY_VERDICT:
        return _BY_VERDICT[verdict]
    if verdict is not None:
        return "undone" if _all_back(mine) else "undoing"
    if not started:
        return "not_reached" if row.state in FINAL else "ahead"
    if row.state is not RolloutState.RUNNING:
        return "paused" if row.state is RolloutState.WAITING else row.state.value
    return "soaking" if all(item.outcome is not None for item in mine) else "running"


def _all_back(mine: Sequence[TargetRow]) -> bool:
    return all(item.undo_outcome is not None for item in mine if item.outcome is Outcome.APPLIED)


def _soak_until(wave: PlannedWave, mine: Sequence[TargetRow]) -> str | None:
    ends = [item.ended_at for item in mine if item.ended_at is not None and item.outcome is Outcome.APPLIED]
    if not ends or any(item.outcome is None for item in mine):
        return None
    return (max(ends) + timedelta(seconds=wave.soak)).isoformat()
