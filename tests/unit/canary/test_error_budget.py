"""Burn rates (E5): the published table, each level with its numbers, and no data that is never a pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.canary.error_budget import NEARLY_SPENT, RULES, Count, Level, judge_budget, windows, worst
from patching.policy import ErrorBudget

BUDGET = ErrorBudget(name="shop", connection="prom", objective="99.9%", errors="e", requests="r")
MONTH = 30 * 86_400.0


def counts(default: float, **burning: float) -> dict[float, Count]:
    """Counts whose burn rate is ``default``, or another one in a window (``w3600=20``)."""
    rates = {seconds: burning.get(f"w{int(seconds)}", default) for seconds in windows(BUDGET)}
    return {seconds: Count(errors=rate * 0.001 * 1e6, requests=1e6) for seconds, rate in rates.items()}


def test_rates_are_the_published_ones_for_thirty_days() -> None:
    """Google SRE workbook, chapter 5, table 5-8, and Sloth's google-30d windows."""
    assert [round(rule.rate(MONTH), 1) for rule in RULES] == [14.4, 6.0, 3.0, 1.0]
    assert [(rule.short, rule.long) for rule in RULES] == [(300, 3600), (1800, 21600), (7200, 86400), (21600, 259200)]


@pytest.mark.parametrize(
    ("burning", "level"),
    [
        ({}, Level.OK),
        ({"w300": 20, "w3600": 15}, Level.PAGE),
        ({"w300": 20, "w3600": 14}, Level.OK),
        ({"w300": 1, "w3600": 20}, Level.OK),
        ({"w1800": 7, "w21600": 6.5}, Level.PAGE),
        ({"w7200": 4, "w86400": 3.5}, Level.TICKET),
        ({"w21600": 1.2, "w259200": 1.1}, Level.TICKET),
        ({"w2592000": 0.95}, Level.SPENT),
        ({"w2592000": 0.95, "w7200": 4, "w86400": 3.5}, Level.SPENT),
        ({"w2592000": 1.5, "w300": 20, "w3600": 15}, Level.PAGE),
    ],
)
def test_both_windows_must_burn_and_the_worst_level_counts(burning: dict[str, float], level: Level) -> None:
    found = judge_budget(BUDGET, counts(0.3, **burning))
    assert found.level is level, found.sentence


def test_sentence_has_the_numbers() -> None:
    said = judge_budget(BUDGET, counts(0.3, w300=20, w3600=15)).sentence
    assert said == "shop: burns 20.0 × in 5m and 15.0 × in 1h (limit 14.4); 70% of the error budget of 30d is left"


@pytest.mark.parametrize("window", windows(BUDGET))
def test_window_without_request_series_is_no_data_whatever_the_others_say(window: float) -> None:
    """F9: an empty vector is not zero."""
    found = counts(0.0)
    found[window] = Count(errors=None, requests=None)
    assert judge_budget(BUDGET, found).level is Level.NO_DATA
    del found[window]
    assert judge_budget(BUDGET, found).level is Level.NO_DATA


def test_no_error_yet_is_zero_and_an_idle_service_spends_nothing() -> None:
    quiet = {seconds: Count(errors=None, requests=100.0) for seconds in windows(BUDGET)}
    idle = {seconds: Count(errors=None, requests=0.0) for seconds in windows(BUDGET)}
    assert judge_budget(BUDGET, quiet).left == judge_budget(BUDGET, idle).left == 1.0


def test_worst_budget_counts() -> None:
    good, bad = judge_budget(BUDGET, counts(0.1)), judge_budget(BUDGET, counts(0.1, w2592000=2.0))
    assert worst([good, bad, good]) == bad
    assert worst([]) is None


@given(st.lists(st.floats(0, 1e4), min_size=9, max_size=9), st.sampled_from(["99%", "99.9%", "99.99%"]))
def test_more_errors_never_allow_more(rates: list[float], objective: str) -> None:
    budget = BUDGET.model_copy(update={"objective": objective})
    less = {w: Count(errors=rate, requests=1e6) for w, rate in zip(windows(budget), rates, strict=False)}
    more = {w: Count(errors=(count.errors or 0) * 2, requests=1e6) for w, count in less.items()}
    order = list(Level)
    assert order.index(judge_budget(budget, more).level) >= order.index(judge_budget(budget, less).level)


def test_less_than_a_tenth_left_is_nearly_spent() -> None:
    edge = judge_budget(BUDGET, counts(0.0, w2592000=1 - NEARLY_SPENT - 0.001))
    assert edge.level is Level.OK
    assert judge_budget(BUDGET, counts(0.0, w2592000=1 - NEARLY_SPENT + 0.001)).level is Level.SPENT
