"""The legs of a rollback drill as the ledger has them: changed, undone and verified, changed again; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from patching.change import Outcome
from patching.ledger.entry import EntryKind, LedgerEntry


def drill_legs(entries: Sequence[LedgerEntry]) -> list[str]:
    """Tell each leg that was reached in one sentence, with its moment and the reason; empty without a drill."""
    begun = next((item for item in entries if item.kind is EntryKind.DRILL and item.body["what"] == "begun"), None)
    if begun is None:
        return []
    ends = [item for item in entries if item.kind is EntryKind.TARGET_OUTCOME and item.target == begun.target]
    before = [item for item in ends if item.seq < begun.seq]
    undone = next((item for item in ends if item.seq > begun.seq and item.body.get("undo")), None)
    again = [item for item in ends if undone and item.seq > undone.seq and not item.body.get("undo")]
    legs = [("changed", item) for item in before[-1:]]
    legs += [(_undo(undone), undone)] if undone is not None else []
    legs += [(_again(item), item) for item in again[:1]]
    return [f"{begun.target} {what} at {_when(item.at)}: {item.body.get('reason', '')}" for what, item in legs]


def _undo(ended: LedgerEntry) -> str:
    good = ended.body["outcome"] == Outcome.UNDONE
    return "undone, and verified by what it runs and by the checks," if good else "NOT brought back"


def _again(ended: LedgerEntry) -> str:
    return "changed again" if ended.body["outcome"] == Outcome.APPLIED else "NOT changed again"


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}"
