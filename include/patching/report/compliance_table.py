"""The compliance rows as a table: CSV for auditors and spreadsheets, and one line a policy for people."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from patching.report.compliance import ComplianceRow, ComplianceState
from patching.value import JsonValue

COLUMNS = list(ComplianceRow.model_fields)
# A spreadsheet takes a cell that begins so for a formula, and package versions come from hosts.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_WORST = {state.value: place for place, state in enumerate(ComplianceState)}


def frame(rows: Sequence[ComplianceRow]) -> pd.DataFrame:
    """Give the rows as a DataFrame, one column a field; empty rows keep the columns."""
    return pd.DataFrame([row.model_dump(mode="json") for row in rows], columns=COLUMNS)


def to_csv(rows: Sequence[ComplianceRow]) -> str:
    """Write RFC 4180 CSV with a header; text that a spreadsheet would run as a formula gets an apostrophe."""
    table = frame(rows)
    texts = [name for name in COLUMNS if name not in ("age_days", "overdue")]
    table[texts] = table[texts].map(lambda cell: f"'{cell}" if str(cell).startswith(_FORMULA) else cell)
    return str(table.to_csv(index=False, lineterminator="\r\n"))


def summary(rows: Sequence[ComplianceRow]) -> list[dict[str, JsonValue]]:
    """Count targets by policy: each stands where its worst finding stands; ``share`` is of those that are known.

    Keys: policy, targets, compliant, open, left_out, not_active, unknown, overdue (findings), oldest_days, share.
    """
    table = frame(rows)
    table["worst"] = table["state"].map(_WORST)
    found: list[dict[str, JsonValue]] = []
    for policy, part in table.groupby("policy"):
        states = part.groupby("target")["worst"].min()
        count = {state: int((states == _WORST[state.value]).sum()) for state in ComplianceState}
        good, unknown = count[ComplianceState.CLOSED] + count[ComplianceState.COMPLIANT], count[ComplianceState.UNKNOWN]
        known = len(states) - unknown
        undone = part[part["state"].isin([ComplianceState.OPEN.value, ComplianceState.NOT_ACTIVE.value])]
        found.append(
            {
                "policy": str(policy),
                "targets": len(states),
                "compliant": good,
                "open": count[ComplianceState.OPEN],
                "left_out": count[ComplianceState.LEFT_OUT],
                "not_active": count[ComplianceState.NOT_ACTIVE],
                "unknown": unknown,
                "overdue": int(part["overdue"].sum()),
                "oldest_days": None if undone.empty else float(undone["age_days"].max()),
                "share": round(good / known, 4) if known else None,
            }
        )
    return found


def text(rows: Sequence[ComplianceRow]) -> str:
    """Write one line a policy, then every finding that is overdue."""
    lines = []
    for item in summary(rows):
        share = "-" if item["share"] is None else f"{item['share']:.1%}"
        oldest = "" if item["oldest_days"] is None else f", the oldest for {item['oldest_days']:g} days"
        lines.append(
            f"{item['policy']}: {item['compliant']} of {item['targets']} targets compliant ({share} of those known); "
            f"{item['open']} open{oldest}, {item['not_active']} not active, {item['left_out']} left out, "
            f"{item['unknown']} unknown; {item['overdue']} findings overdue"
        )
    for row in rows:
        if row.overdue and row.due is not None:
            lines.append(f"  ! {row.target}  {row.advisory} {row.component}: due {row.due:%Y-%m-%d}; {row.reason}")
    return "\n".join(lines)
