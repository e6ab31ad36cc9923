"""Kept evidence: what a check looked at, as plain JSON for the ledger and back, and the judge of either kind; pure.

The JSON has ``kind`` (counters or gauge), ``first``, and for each of canary, control, before and control_before
``start``, ``ends`` (epoch seconds) and ``targets``: name → errors and requests, or values, by look; null = no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from patching.canary.comparison import judge_counts
from patching.canary.gauges import judge_levels
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.loggamma import Floats
from patching.canary.panel import Panel
from patching.canary.sides import Measurements
from patching.canary.verdicts import CheckVerdict
from patching.policy import Check
from patching.value import JsonValue

SIDES = ("canary", "control", "before", "control_before")


def judge_metric(
    check: Check, measured: Measurements | LevelMeasurements, share: float, *, last: bool = True
) -> CheckVerdict:
    """Judge a check of counters or of a gauge; ``share`` is its part w of the bound, ``last`` the end of the soak."""
    if isinstance(measured, Measurements):
        return judge_counts(check, measured, share)
    return judge_levels(check, measured, share, last=last)


def as_json(measured: Measurements | LevelMeasurements) -> dict[str, JsonValue]:
    """Give the plain JSON of everything a check looked at."""
    if isinstance(measured, Measurements):
        panels = {side: _panel_json(getattr(measured, side)) for side in SIDES}
        return {"kind": "counters", "first": measured.first, **panels}
    levels = {side: _levels_json(getattr(measured, side)) for side in SIDES}
    return {"kind": "gauge", "first": measured.first, **levels}


def from_json(kept: Mapping[str, JsonValue]) -> Measurements | LevelMeasurements:
    """Read it back; raises KeyError, TypeError or ValueError for anything else."""
    first = int(kept["first"])
    if kept["kind"] == "counters":
        canary, control, before, control_before = (_panel(kept[side]) for side in SIDES)
        return Measurements(canary, control, before, control_before, first)
    one, two, three, four = (_levels(kept[side]) for side in SIDES)
    return LevelMeasurements(one, two, three, four, first)


def _panel_json(panel: Panel) -> dict[str, JsonValue]:
    targets = {
        name: {"errors": _plain(panel.errors[row]), "requests": _plain(panel.requests[row])}
        for row, name in enumerate(panel.targets)
    }
    return {"start": panel.start, "ends": panel.ends.tolist(), "targets": targets}


def _panel(kept: Mapping[str, Any]) -> Panel:
    ends, targets = np.array(kept["ends"], dtype=np.float64), kept["targets"]
    errors = _rows([item["errors"] for item in targets.values()], len(ends))
    requests = _rows([item["requests"] for item in targets.values()], len(ends))
    return Panel(tuple(targets), float(kept["start"]), ends, errors, requests)


def _levels_json(levels: Levels) -> dict[str, JsonValue]:
    targets = {name: {"values": _plain(levels.values[row])} for row, name in enumerate(levels.targets)}
    return {"ends": levels.ends.tolist(), "targets": targets}


def _levels(kept: Mapping[str, Any]) -> Levels:
    ends, targets = np.array(kept["ends"], dtype=np.float64), kept["targets"]
    return Levels(tuple(targets), ends, _rows([item["values"] for item in targets.values()], len(ends)))


def _plain(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _rows(rows: list[list[float | None]], looks: int) -> Floats:
    found = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)
    return found.reshape(len(rows), looks)
