"""Published cases that another judge passes (S5): ours promotes none of them, and undoes what the numbers can prove."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patching.canary.comparison import judge_counts
from patching.canary.gauges import judge_levels
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.panel import Panel
from patching.canary.sides import Measurements
from patching.canary.verdicts import CheckVerdict
from patching.policy import Check, Compare, PrometheusCheck
from simulated_evidence import kayenta_high

CASES = sorted((Path(__file__).parents[2] / "cases" / "published").glob("*.json"))


def judged(case: dict[str, Any]) -> CheckVerdict:
    canary, control = (np.array(case[side], dtype=float) for side in ("canary", "control"))
    ends = np.arange(1.0, canary.shape[1] + 1) * 60
    names = [tuple(f"{side}{index}" for index in range(len(rows))) for side, rows in (("w", canary), ("c", control))]
    compare = Compare.model_validate(case["compare"])
    if case["kind"] == "gauge":
        rules = PrometheusCheck(connection="p", query="g{$series}")
        none = Levels((), np.empty(0), np.empty((0, 0)))
        sides = [Levels(name, ends, rows) for name, rows in zip(names, (canary, control), strict=True)]
        return judge_levels(Check(name="m", prometheus=rules, compare=compare), LevelMeasurements(*sides, none, none))
    rules = PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}")
    nothing = Panel((), 0.0, np.empty(0), np.empty((0, 0)), np.empty((0, 0)))
    asked = float(case["requests_per_look"])
    # No error series while requests move is zero errors, as canary.series reads it.
    panels = [
        Panel(name, 0.0, ends, np.nan_to_num(rows), np.full_like(rows, asked))
        for name, rows in zip(names, (canary, control), strict=True)
    ]
    return judge_counts(Check(name="m", prometheus=rules, compare=compare), Measurements(*panels, nothing, nothing))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    verdict = judged(case)
    assert verdict.verdict.value in case["expected"], verdict.reason
    assert "promote" not in case["expected"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_other_judge_passes_it(path: Path) -> None:
    """So that the cases stay the ones they are named after: Kayenta's rule on the groups' points, NaN replaced by 0."""
    case = json.loads(path.read_text())
    canary, control = (np.nan_to_num(np.array(case[side], dtype=float)).mean(axis=0) for side in ("canary", "control"))
    assert kayenta_high(canary, control) is not case["kayenta_passes"]
