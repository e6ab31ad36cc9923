"""Where an undo stops (pure): no older wave is begun after one in which an undo failed."""

from __future__ import annotations

from collections.abc import Sequence

from patching.change import Outcome
from patching.ledger.base import TargetRow

STOPS = (Outcome.FAILED, Outcome.UNKNOWN)
"""Ends of an undo that stop it; a target that stays changed was not tried, so nothing failed there."""

CHANGED = frozenset({Outcome.APPLIED, Outcome.FAILED, Outcome.UNKNOWN, None})
"""Outcomes of targets that may run something new; None is one in mid-change, whose job was stopped or died."""


def may_begin(rows: Sequence[TargetRow], wave: int) -> bool:
    """Say whether every newer wave has been undone, as far as it is to be, without a failure.

    One that is still open here is in the hands of another worker, who goes on with the older ones too.
    """
    newer = [row for row in rows if row.wave > wave]
    return not any(row.undo_outcome in STOPS or _open(row) for row in newer)


def left_by_stop(rows: Sequence[TargetRow]) -> list[TargetRow]:
    """Give the targets that stay changed because the undo of a newer wave failed."""
    newest = max((row.wave for row in rows if row.undo_outcome in STOPS), default=0)
    return [row for row in rows if row.outcome is Outcome.APPLIED and _open(row) and row.wave < newest]


def _open(row: TargetRow) -> bool:
    return row.began_at is not None and row.outcome in CHANGED and row.undo_outcome is None


def told_left(rows: Sequence[TargetRow]) -> list[str]:
    """Say which waves were not begun, and that a person decides; nothing where there are none."""
    if not rows:
        return []
    waves = sorted({row.wave for row in rows}, reverse=True)
    which = f"wave {waves[0]}" if len(waves) == 1 else f"waves {', '.join(map(str, waves))}"
    stay = "1 target stays changed" if len(rows) == 1 else f"{len(rows)} targets stay changed"
    return [f"{which} not begun ({stay}), because an undo of a newer wave failed"]
