"""Blocks of a wave that is being applied (S5): fixed sides, every increment once, and the bound with the guard on."""

from __future__ import annotations

import itertools
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guarded_waves import Guarded, growing_z, guarded_rollout
from patching.canary.blocks import LAG, SETTLING, Course, block_length, in_one_look, judge_block, next_block
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.panel import Panel
from patching.canary.sides import Measurements
from patching.canary.weights import block_share, guarded, looks_of, reopened_looks, share_of, watches
from patching.policy import Check, Compare, PrometheusCheck
from patching.rollout.answers import VerdictName
from simulated_fleet import ALPHA, World, at
from simulated_rollouts import upper_limit

CHECK = Check(name="errors", prometheus=PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}"))
LENGTH = 100.0

moments = st.floats(0, 2000).map(at)


@st.composite
def a_course(draw: st.DrawFn) -> Course:
    """One target, not begun, on its way, ended, failed, or touched by something else."""
    began = draw(st.none() | moments)
    ended = None if began is None else draw(st.none() | st.floats(0, 500).map(lambda s: began + timedelta(seconds=s)))
    applied = ended is not None and draw(st.booleans())
    return Course("", began, ended, applied, draw(st.booleans() | st.just(True)))


def named(courses: list[Course], prefix: str) -> list[Course]:
    return [
        Course(f"{prefix}{index}", one.began, one.ended, one.applied, one.pristine) for index, one in enumerate(courses)
    ]


@given(st.lists(a_course(), max_size=8), st.lists(a_course(), max_size=4), moments, st.floats(0, 4000).map(at))
def test_sides_are_who_was_settled_before_and_who_had_not_begun_after(wave, rest, free, now):  # type: ignore[no-untyped-def]
    wave, rest = named(wave, "w"), named(rest, "r")
    of = {one.target: one for one in (*wave, *rest)}
    number = 1
    while (block := next_block(number, free, wave, rest, LENGTH, now)) is not None:
        assert block.start >= free
        assert block.end - block.start == timedelta(seconds=LENGTH)
        assert block.end + timedelta(seconds=LAG * LENGTH) <= now
        assert block.treated
        assert block.control
        assert not set(block.treated) & set(block.control)
        for name in block.treated:
            ended = of[name].ended
            assert ended is not None
            assert of[name].applied
            assert ended + timedelta(seconds=SETTLING * LENGTH) <= block.start
        assert all(of[name].began is None or of[name].began > block.end for name in block.control)
        assert all(of[name].pristine for name in (*block.treated, *block.control))
        number, free = number + 1, block.end


def test_unchanged_of_another_service_are_the_control_only_where_nobody_else_is_left() -> None:
    changed = Course("w0", at(0), at(10), applied=True, service="web")
    db, web = Course("d0", service="db"), Course("w1", service="web")
    beside = next_block(1, at(0), [changed, db], [web], LENGTH, at(900))
    alone = next_block(1, at(0), [changed, db], [], LENGTH, at(900))
    assert beside is not None
    assert alone is not None
    assert (beside.control, alone.control) == (("w1",), ("d0",))


def test_block_is_the_same_whenever_it_is_asked_for() -> None:
    """Late looks catch up: who began after the block's end is its control, though changed by now."""
    wave = [Course("w0", at(0), at(10), applied=True), Course("w1", at(200), at(210), applied=True)]
    early = next_block(1, at(0), [wave[0], Course("w1")], [], LENGTH, at(155))
    assert early == next_block(1, at(0), wave, [], LENGTH, at(900))
    assert early is not None
    assert (early.treated, early.control, early.start) == (("w0",), ("w1",), at(50))
    assert next_block(1, at(0), [wave[0], Course("w1")], [], LENGTH, at(154)) is None
    assert next_block(2, early.end, wave, [], LENGTH, at(900)) is None


def test_first_block_has_those_that_ended_soon_after_the_first() -> None:
    wave = [Course(f"w{end}", at(0), at(end), applied=True) for end in (10, 29, 31)]
    block = next_block(1, at(0), wave, [Course("r")], LENGTH, at(900))
    assert block is not None
    assert block.treated == ("w10", "w29")


def test_shares_of_blocks_waves_and_metrics_sum_to_at_most_one() -> None:
    assert sum(block_share(number) for number in range(1, 10_000)) < 1
    checks = [CHECK, CHECK.model_copy(update={"name": "slow", "compare": Compare(weight=3)})]
    looks = looks_of(checks, [1, 5, 20], watched=True)
    assert looks == 3 + 2 + 1 + 1, "soaks, guards, the end, and the reserve for retries"
    assert looks * sum(share_of(check, checks, looks) for check in checks) == pytest.approx(1)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_all_retries_together_spend_no_more_than_the_reserve(parts: int) -> None:
    looks = looks_of([CHECK], [1, 5, 20], watched=True)
    spent = sum(parts / reopened_looks(looks, number, parts) for number in range(1, 10_000))
    assert spent < 1 / looks
    assert (looks - 1) / looks + spent < 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"critical": False}, False),
        ({"dry_run": True}, False),
        ({"compare": Compare(against=("before",))}, False),
    ],
)
def test_only_what_may_stop_a_wave_beside_a_control_is_watched(change, expected):  # type: ignore[no-untyped-def]
    check = CHECK.model_copy(update=change)
    assert watches(check) is expected
    assert guarded([check], 2) is expected
    assert not guarded([check], 1)


@given(st.floats(0, 1e6))
def test_blocks_are_a_third_of_the_soak_and_at_most_five_minutes(soak: float) -> None:
    assert block_length(soak) == (300.0 if soak < 60 or soak >= 900 else pytest.approx(soak / 3))


def panel(names: str, looks: int, errors: float, requests: float) -> Panel:
    shape = (len(names), looks)
    return Panel(tuple(names), 0.0, np.arange(1.0, looks + 1), np.full(shape, errors), np.full(shape, requests))


def measured(errors: float, requests: float = 50.0) -> Measurements:
    before = panel("ab", 100, 0.1, 50.0), panel("cdefg", 100, 0.1, 50.0)
    return Measurements(panel("ab", 20, errors, requests), panel("cdefg", 20, 0.1, 50.0), *before)


def test_block_is_one_look_with_placebo_windows_of_its_length() -> None:
    joined = in_one_look(measured(3.0))
    assert isinstance(joined, Measurements)
    assert (joined.canary.looks, joined.before.looks, joined.first_look) == (1, 5, 1)
    assert joined.canary.totals() == pytest.approx((120.0, 2000.0))


def test_gauge_is_joined_in_the_same_way() -> None:
    rng = np.random.default_rng(3)

    def levels(names: str, looks: int) -> Levels:
        return Levels(tuple(names), np.arange(1.0, looks + 1), rng.normal(100, 1, size=(len(names), looks)))

    whole = LevelMeasurements(levels("ab", 20), levels("cde", 20), levels("ab", 110), levels("cde", 110))
    joined = in_one_look(whole)
    assert isinstance(joined, LevelMeasurements)
    assert joined.canary.values[:, 0] == pytest.approx(whole.canary.values.mean(axis=1))
    assert joined.before.ends.tolist() == [30.0, 50.0, 70.0, 90.0, 110.0]
    gauge = Check(name="queue", prometheus=PrometheusCheck(connection="p", query="q{$series}"))
    assert judge_block(gauge, whole, 1.0, 1).verdict is not VerdictName.UNDO
    raised = Levels(whole.canary.targets, whole.canary.ends, whole.canary.values * 4)
    worse = LevelMeasurements(raised, whole.control, whole.before, whole.control_before)
    assert judge_block(gauge, worse, 1.0, 1).verdict is VerdictName.UNDO


def test_alarm_needs_more_in_later_blocks_and_never_comes_from_missing_data() -> None:
    first, tenth = judge_block(CHECK, measured(3.0), 1.0, 1), judge_block(CHECK, measured(3.0), 1.0, 10)
    assert first.verdict is VerdictName.UNDO
    assert first.numbers is not None
    assert tenth.numbers is not None
    assert (first.numbers.evidence_needed, tenth.numbers.evidence_needed) == pytest.approx((40.0, 2200.0))
    assert first.numbers.evidence == tenth.numbers.evidence
    assert judge_block(CHECK, measured(np.nan, np.nan), 1.0, 1).verdict is VerdictName.INCONCLUSIVE


def test_time_before_is_no_control_of_a_block() -> None:
    """What drains and reboots do to everybody's load would look like the patch."""
    nobody = panel("", 20, 0.0, 0.0)
    alone = Measurements(panel("ab", 20, 30.0, 50.0), nobody, panel("ab", 100, 0.1, 50.0), panel("", 100, 0.0, 0.0))
    assert judge_block(CHECK, alone, 1.0, 1).verdict is VerdictName.INCONCLUSIVE


GRID = [
    World(rho=rho, sigma=sigma, canaries=canaries, metrics=metrics, errors=errors, hosts=24)
    for rho, sigma, canaries, metrics, errors in itertools.product(
        (0.0, 0.8, 0.97), (0.2, 0.4), (1, 3), (1, 2), (2, 0.1)
    )
]


def rollouts(number: int, worlds: list[World]) -> list[Guarded]:
    random = np.random.default_rng(20260302)
    return [guarded_rollout(random, worlds[index % len(worlds)]) for index in range(number)]


@pytest.mark.slow
def test_false_alarms_of_the_guard_stay_below_its_part_of_alpha() -> None:
    """Also with hosts that wander for longer than a block (rho 0.97). The guard has 2 of 5 shares here, or 3 of 6."""
    found = rollouts(240, GRID)
    alarms = sum(run.alarm for run in found)
    assert upper_limit(alarms, len(found)) <= ALPHA / 2, f"{alarms} rollouts were stopped in vain"


@pytest.mark.slow
def test_naive_test_of_the_growing_sides_fails_the_same_test() -> None:
    random = np.random.default_rng(20260303)
    assert sum(growing_z(random, GRID[index % len(GRID)]) for index in range(100)) / 100 > 2 * ALPHA


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "least"), [(2.0, 0.9), (3.0, 0.95)])
def test_regression_is_caught_in_the_first_two_blocks(factor: float, least: float) -> None:
    found = rollouts(30, [World(hosts=24, factor=factor)])
    assert sum(run.alarm and run.block <= 2 for run in found) / 30 >= least


@pytest.mark.parametrize(("scrape", "length"), [(0.0, 40.0), (1.0, 40.0), (15.0, 300.0), (60.0, 1200.0)])
def test_block_has_twenty_scrapes_at_least(scrape: float, length: float) -> None:
    assert block_length(120.0, scrape) == length


@pytest.mark.parametrize("late", [16.0, 61.0])
def test_block_is_judged_when_its_last_scrape_is_there(late: float) -> None:
    wave, rest = [Course("a", at(0), at(0), applied=True)], [Course("b")]
    found = next_block(1, at(0), wave, rest, 100.0, at(1000), late)
    assert found is not None
    ready = found.end + timedelta(seconds=late)
    assert next_block(1, at(0), wave, rest, 100.0, ready - timedelta(seconds=0.1), late) is None
    assert next_block(1, at(0), wave, rest, 100.0, ready, late) == found
