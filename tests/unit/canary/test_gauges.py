"""Gauges: means at every look, ranks once; false alarms, power, and no data (S5, F9)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from patching.canary.gauges import judge_levels
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.verdicts import CheckVerdict
from patching.policy import Check, Compare, PrometheusCheck
from patching.rollout.answers import VerdictName

RULES = PrometheusCheck(connection="p", query="queue{$series}")
BEFORE, AFTER = 120, 60


def check(**compare: Any) -> Check:
    return Check(
        name="queue", prometheus=RULES, compare=Compare.model_validate({"maxRelativeIncrease": "0%"} | compare)
    )


def levels(values: Any, prefix: str, start: float = 0.0) -> Levels:
    rows = np.asarray(values, dtype=float)
    ends = start + np.arange(1.0, rows.shape[1] + 1)
    return Levels(tuple(f"{prefix}{index}" for index in range(len(rows))), ends, rows)


def series(random: np.random.Generator, hosts: int, looks: int, rho: float, sigma: float) -> np.ndarray:
    found = np.empty((hosts, looks))
    found[:, 0] = random.normal(size=hosts) * sigma
    for look in range(1, looks):
        found[:, look] = rho * found[:, look - 1] + random.normal(size=hosts) * sigma * (1 - rho**2) ** 0.5
    return found


def fleet(seed: int, canaries: int = 1, factor: float = 1.0, rho: float = 0.8, sigma: float = 0.2) -> LevelMeasurements:
    random = np.random.default_rng(seed)
    logs = series(random, 12, BEFORE + AFTER, rho, sigma) + random.normal(size=(12, 1)) * 0.5
    values = 40 * np.exp(logs + series(random, 1, BEFORE + AFTER, 0.9, 0.2))
    values[:canaries, BEFORE:] *= factor
    now, then = values[:, BEFORE:], values[:, :BEFORE]
    return LevelMeasurements(
        levels(now[:canaries], "w", BEFORE),
        levels(now[canaries:], "c", BEFORE),
        levels(then[:canaries], "w"),
        levels(then[canaries:], "c"),
    )


def judged(measured: LevelMeasurements, **compare: Any) -> CheckVerdict:
    return judge_levels(check(**compare), measured)


@pytest.mark.parametrize("canaries", [1, 3])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_false_alarms_of_a_gauge_are_rare(canaries: int, rho: float) -> None:
    """Hosts that differ lastingly by half and wander by a fifth, with shocks that all share; nothing is tolerated."""
    found = [judged(fleet(seed, canaries, rho=rho)).verdict for seed in range(60)]
    assert found.count(VerdictName.UNDO) <= 2


def test_gauge_that_doubles_is_undone_at_once() -> None:
    found = [judged(fleet(seed, factor=2.0)) for seed in range(20)]
    assert all(verdict.verdict is VerdictName.UNDO for verdict in found)
    assert found[0].numbers is not None
    assert found[0].numbers.alarm_at is not None
    assert found[0].numbers.alarm_at.timestamp() == BEFORE + 20


def test_gauge_as_before_is_promoted_with_the_factor_that_could_have_stayed_unseen() -> None:
    verdict = judged(fleet(5), maxRelativeIncrease="50%")
    assert verdict.verdict is VerdictName.PROMOTE
    assert "the true factor may be up to" in verdict.reason


@pytest.mark.parametrize(("direction", "verdict"), [("decrease", "undo"), ("either", "undo"), ("increase", "promote")])
def test_direction_says_which_change_is_bad(direction: str, verdict: str) -> None:
    assert judged(fleet(1, factor=0.4), direction=direction).verdict.value == verdict


def test_last_wave_is_compared_with_its_own_past() -> None:
    measured = fleet(2, canaries=12, factor=5.0)
    verdict = judged(measured)
    assert (verdict.verdict, verdict.comparison) == (VerdictName.UNDO, "before")
    assert verdict.passed_over == ("control: the control has no data",)


def test_ranks_are_asked_only_at_the_end_and_only_with_enough_hosts() -> None:
    measured = fleet(3, canaries=6, factor=1.18, sigma=0.05)
    assert measured.first == 20
    verdict = judge_levels(check(), measured)
    assert verdict.test is not None
    assert "Mann-Whitney" in verdict.test
    numbers = verdict.numbers
    assert numbers is not None
    assert numbers.rank_alpha == pytest.approx(0.05 / 5)
    assert 0 < (numbers.rank_p or 0) < 1
    during = judge_levels(check(), measured, last=False)
    assert during.numbers is not None
    assert (during.numbers.rank_p, during.numbers.rank_alpha) == (None, None)
    assert during.test is not None
    assert "Mann-Whitney" not in during.test


def test_alarm_by_ranks_shows_its_p_value_and_level() -> None:
    """An alarm whose evidence is below what is needed must say what it rests on (S5)."""
    found = [judge_levels(check(), fleet(seed, canaries=6, factor=1.03, sigma=0.01)) for seed in range(3)]
    by_ranks = [one for one in found if one.verdict is VerdictName.UNDO and one.numbers and not one.numbers.alarm_at]
    assert len(by_ranks) == 3
    for one in by_ranks:
        assert one.numbers is not None
        assert (one.numbers.rank_p or 1) <= (one.numbers.rank_alpha or 0)
        assert f"ranks of the hosts: p {one.numbers.rank_p:.2g}, alarm at 0.01" in one.reason


def test_gauge_says_which_factor_its_soak_would_have_shown() -> None:
    for verdict in (judged(fleet(5), maxRelativeIncrease="50%"), judged(fleet(5), maxRelativeIncrease="0%")):
        assert verdict.numbers is not None
        assert (verdict.numbers.seen_ratio or 0) > 1
        assert f"in 4 of 5 rollouts it would have shown {verdict.numbers.seen_ratio:.2g} ×" in verdict.reason


def test_host_without_values_is_never_promoted() -> None:
    """F9: no data is never a pass, and no value is not zero."""
    measured = fleet(5)
    gone = Levels(measured.canary.targets, measured.canary.ends, np.full_like(measured.canary.values, np.nan))
    verdict = judged(LevelMeasurements(gone, measured.control, measured.before, measured.control_before))
    assert (verdict.verdict, verdict.silent, verdict.no_data) == (VerdictName.INCONCLUSIVE, ("w0",), True)


def test_host_that_falls_silent_is_named() -> None:
    measured = fleet(5)
    values = measured.canary.values.copy()
    values[:, 30:] = np.nan
    stale = Levels(measured.canary.targets, measured.canary.ends, values)
    verdict = judged(
        LevelMeasurements(stale, measured.control, measured.before, measured.control_before), maxRelativeIncrease="50%"
    )
    assert (verdict.verdict, verdict.silent, verdict.no_data) == (VerdictName.INCONCLUSIVE, ("w0",), True)


def test_level_of_zero_has_no_relative_change() -> None:
    zero = levels(np.zeros((2, 30)), "c")
    verdict = judged(LevelMeasurements(levels(np.ones((1, 30)), "w"), zero, levels(np.zeros((1, 30)), "w"), zero))
    assert verdict.verdict is VerdictName.INCONCLUSIVE
    assert "no relative change can be told" in verdict.reason


@pytest.mark.parametrize(("values", "wanted"), [(4, VerdictName.INCONCLUSIVE), (5, VerdictName.PROMOTE)])
def test_looks_without_a_value_do_not_count_towards_the_fewest(values: int, wanted: VerdictName) -> None:
    """F9: sixty looks with four values are four values."""
    measured = fleet(seed=3, sigma=0.02)
    kept = np.arange(AFTER) % (AFTER // values) == 0
    canary = Levels(measured.canary.targets, measured.canary.ends, np.where(kept, measured.canary.values, np.nan))
    verdict = judged(LevelMeasurements(canary, measured.control, measured.before, measured.control_before))
    assert verdict.verdict is wanted, verdict.reason


def sparse(seed: int, before: bool) -> LevelMeasurements:
    """Give a fleet that is asked at every third look: canaries without a past, or a last wave that has only its own."""
    full = fleet(seed)
    asked = np.arange(BEFORE) % 3 == 0
    holes = asked & ~((np.arange(BEFORE) > 30) & (np.arange(BEFORE) < 55)) if before else np.zeros(BEFORE, dtype=bool)
    canary, control = (
        Levels(side.targets, side.ends, np.where(asked[:AFTER], side.values, np.nan))
        for side in (full.canary, full.control)
    )
    then, control_then = (
        Levels(side.targets, side.ends, np.where(holes, side.values, np.nan))
        for side in (full.before, full.control_before)
    )
    if before:
        nobody = control.of(())
        return LevelMeasurements(canary, nobody, then, nobody)
    return LevelMeasurements(canary, control, then, control_then)


@pytest.mark.parametrize(("before", "comparison"), [(False, "control"), (True, "before")])
@pytest.mark.filterwarnings("error")
def test_false_alarms_are_rare_where_values_are_sparse_and_windows_are_empty(before: bool, comparison: str) -> None:
    """A source without a past is asked every half minute, and by nobody between two waves."""
    found = [judged(sparse(seed, before)) for seed in range(100)]
    alarms = [one.verdict for one in found].count(VerdictName.UNDO)
    assert {one.comparison for one in found} == {comparison}
    assert alarms <= 5
