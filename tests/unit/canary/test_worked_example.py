"""The worked examples of docs/explanation/verdict.md are what the code says (S5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from patching.canary.comparison import judge_check, judge_counts
from patching.canary.gauges import judge_levels
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.panel import Panel
from patching.canary.sides import Measurements
from patching.policy import Check, PrometheusCheck
from patching.rollout.answers import VerdictName
from patching.sources.base import Sample

PAGE = (Path(__file__).parents[3] / "docs" / "explanation" / "verdict.md").read_text()
ERRORS = PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}")
CHECK = Check(name="errors", prometheus=ERRORS)
START = datetime(2026, 3, 1, tzinfo=UTC)
BEFORE, SOAK = 240, 60
SHARES = 3


def soak(errors: list[int], prefix: str) -> list[Sample]:
    end = START + timedelta(seconds=20)
    return [
        Sample(target=f"{prefix}{index}", start=START, end=end, errors=count, requests=200)
        for index, count in enumerate(errors)
    ]


def names(prefix: str, number: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{index}" for index in range(number))


def queue(prefix: str, hosts: int, looks: int, factor: float = 1.0) -> Levels:
    """A level of 40 that every host moves about by a tenth, each in its own time."""
    moment, host = np.arange(looks), np.arange(hosts)[:, None] + 10 * (prefix == "c")
    values = 40 * factor * (1 + 0.1 * np.sin(0.7 * moment + 1.9 * host))
    return Levels(names(prefix, hosts), np.arange(1.0, looks + 1) * 30, values)


def counted(hosts: int, looks: int, failed: int, every: int) -> Panel:
    """20 requests a host and look, and ``failed`` errors in every ``every``-th look."""
    errors = np.zeros((hosts, looks))
    errors[:, ::every] = failed
    return Panel(names("w", hosts), 0.0, np.arange(1.0, looks + 1) * 30, errors, np.full((hosts, looks), 20.0))


@pytest.mark.parametrize(("canary", "verdict"), [([5, 4, 6], VerdictName.UNDO), ([0, 1, 0], VerdictName.PROMOTE)])
def test_example_of_the_page_is_what_the_code_says(canary: list[int], verdict: VerdictName) -> None:
    control = soak([1, 0, 0, 1, 0, 0, 1, 0, 0], "c")
    found = judge_check(CHECK, canary=soak(canary, "w"), control=control, share=1 / SHARES)
    assert found.verdict is verdict
    assert found.reason in PAGE


@pytest.mark.parametrize(("canary", "verdict"), [([11, 14, 12], VerdictName.UNDO), ([3, 2, 4], VerdictName.PROMOTE)])
def test_latency_of_the_page_is_what_the_code_says(canary: list[int], verdict: VerdictName) -> None:
    """One of a hundred requests is slow; p99 goes up where it becomes one of sixteen, the median does not move."""
    good = PrometheusCheck(connection="p", good="b{$series}", requests="r{$series}")
    control = soak([2, 1, 3, 2, 2, 1, 3, 2, 2], "c")
    check = Check(name="latency", prometheus=good)
    found = judge_check(check, canary=soak(canary, "w"), control=control, share=1 / SHARES)
    assert found.verdict is verdict
    assert found.reason in PAGE


@pytest.mark.parametrize(("factor", "verdict"), [(1.7, VerdictName.UNDO), (1.0, VerdictName.PROMOTE)])
def test_gauge_of_the_page_is_what_the_code_says(factor: float, verdict: VerdictName) -> None:
    check = Check(name="queue", prometheus=PrometheusCheck(connection="p", query="q{$series}"))
    sides = [queue("w", 3, SOAK, factor), queue("c", 9, SOAK), queue("w", 3, BEFORE), queue("c", 9, BEFORE)]
    found = judge_levels(check, LevelMeasurements(*sides), 1 / SHARES)
    assert found.verdict is verdict
    assert found.reason in PAGE


@pytest.mark.parametrize(("failed", "verdict"), [(4, VerdictName.UNDO), (1, VerdictName.PROMOTE)])
def test_last_wave_of_the_page_is_what_the_code_says(failed: int, verdict: VerdictName) -> None:
    nobody = Panel((), 0.0, np.arange(1.0, SOAK + 1) * 30, np.empty((0, SOAK)), np.empty((0, SOAK)))
    after, before = counted(4, SOAK, failed, 5), counted(4, BEFORE, 1, 5)
    found = judge_counts(CHECK, Measurements(after, nobody, before, nobody), 1 / SHARES)
    assert (found.verdict, found.comparison) == (verdict, "before")
    assert found.passed_over == ("control: the control has no data",)
    assert found.reason in PAGE


@pytest.mark.parametrize(("at_controls", "passing", "seen"), [(0, 2, 5), (2, 4, 7)])
def test_page_of_checks_is_right_about_how_many_errors_are_seen(at_controls: int, passing: int, seen: int) -> None:
    """docs/how-to/choose-checks.md: five on one target without an error at the controls, seven with two."""
    control = soak([1] * at_controls + [0] * (9 - at_controls), "c")
    said = [
        judge_check(CHECK, canary=soak([errors, 0, 0], "w"), control=control, share=1 / SHARES).verdict
        for errors in (passing, passing + 1, seen - 1, seen)
    ]
    unsure = VerdictName.INCONCLUSIVE
    assert said == [VerdictName.PROMOTE, unsure, unsure, VerdictName.UNDO]
