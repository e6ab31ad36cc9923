"""Quarantine view: every target that is left out, of any policy, as a document and as text for a terminal; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from patching.plan.windows import waiting_time
from patching.report.printing import printable
from patching.value import JsonValue

if TYPE_CHECKING:
    from patching.rollout.quarantine import Kept

SCHEMA = 1
NOBODY = "no target is in quarantine"
HOW_IT_ENDS = 'to let one be patched again once it is repaired: patching release TARGET --reason "…"'


def quarantine_view(kept: Sequence[Kept], now: datetime, *, readable: Callable[[str], bool]) -> dict[str, JsonValue]:
    """Make the document; what is of rollouts that are not ``readable`` is left out.

    The output of a failed step is a target's log, which has a right of its own: it stays with its rollout's target.
    """
    shown = [item for item in kept if readable(item.rollout)]
    document = [item.model_dump(mode="json", exclude={"evidence": {"output"}}) for item in shown]
    return {"schema_version": SCHEMA, "as_of": now.isoformat(), "quarantined": document}


def until_when(end: JsonValue) -> str:
    """Write the end of a quarantine, which may have none."""
    return f"{datetime.fromisoformat(str(end)):%Y-%m-%d %H:%MZ}" if end else "it is released"


def quarantine_text(view: Mapping[str, JsonValue]) -> str:
    """Write the document for a terminal: target, since when and until when, why, and how it ends."""
    if not view["quarantined"]:
        return NOBODY
    now = datetime.fromisoformat(str(view["as_of"]))
    lines = ["In quarantine: no rollout touches them"]
    for item in view["quarantined"]:
        since = datetime.fromisoformat(str(item["since"]))
        began = f"since {since:%Y-%m-%d %H:%MZ} ({waiting_time(now - since)})"
        ends = f"until {until_when(item['until'])}"
        lines.append(f"  {printable(item['target'])}  {began}, {ends}  rollout {printable(item['rollout'])}")
        lines.append(f"    {printable(item['reason'])}")
        evidence = item["evidence"]
        if evidence:
            step = f", step {printable(evidence['step'])}" if evidence["step"] else ""
            code = "" if evidence["exit_code"] is None else f", exit {evidence['exit_code']}"
            lines.append(f"    cause: {printable(evidence['cause'])}{step}{code}; tries: {evidence['tries']}")
    return "\n".join([*lines, "", HOW_IT_ENDS])
