"""The worked example of docs/explanation/verdict.md is what the code says (S5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from patching.canary.comparison import judge_check
from patching.policy import Check, PrometheusCheck
from patching.rollout.answers import VerdictName
from patching.sources.base import Sample

PAGE = (Path(__file__).parents[3] / "docs" / "explanation" / "verdict.md").read_text()
CHECK = Check(name="errors", prometheus=PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}"))
START = datetime(2026, 3, 1, tzinfo=UTC)


def soak(errors: list[int], prefix: str) -> list[Sample]:
    end = START + timedelta(seconds=20)
    return [
        Sample(target=f"{prefix}{index}", start=START, end=end, errors=count, requests=200)
        for index, count in enumerate(errors)
    ]


@pytest.mark.parametrize(("canary", "verdict"), [([5, 4, 6], VerdictName.UNDO), ([0, 1, 0], VerdictName.PROMOTE)])
def test_example_of_the_page_is_what_the_code_says(canary: list[int], verdict: VerdictName) -> None:
    control = soak([1, 0, 0, 1, 0, 0, 1, 0, 0], "c")
    found = judge_check(CHECK, canary=soak(canary, "w"), control=control, share=1 / 3)
    assert found.verdict is verdict
    assert found.reason in PAGE


@pytest.mark.parametrize(("at_controls", "passing", "seen"), [(0, 2, 5), (2, 4, 7)])
def test_page_of_checks_is_right_about_how_many_errors_are_seen(at_controls: int, passing: int, seen: int) -> None:
    """docs/how-to/choose-checks.md: five on one target without an error at the controls, seven with two."""
    control = soak([1] * at_controls + [0] * (9 - at_controls), "c")
    said = [
        judge_check(CHECK, canary=soak([errors, 0, 0], "w"), control=control, share=1 / 3).verdict
        for errors in (passing, passing + 1, seen - 1, seen)
    ]
    unsure = VerdictName.INCONCLUSIVE
    assert said == [VerdictName.PROMOTE, unsure, unsure, VerdictName.UNDO]
