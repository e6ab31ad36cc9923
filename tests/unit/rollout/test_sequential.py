"""Wald's sequential test: the published stopping points, and its error rates, exactly and simulated (S4)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.policy import SequentialTest
from patching.rollout.sequential import Decision, look, rates, sentence, walk

LONG = 600


def rules(good: str, bad: str, alpha: float = 0.05, beta: float = 0.10) -> SequentialTest:
    return SequentialTest(acceptable=good, unacceptable=bad, alpha=alpha, beta=beta)


@pytest.mark.parametrize(
    ("test", "stops"),
    [
        (rules("1%", "5%"), {2: 9, 3: 49, 4: 90}),
        (rules("2%", "10%"), {2: 5, 3: 25, 4: 45}),
    ],
)
def test_stops_at_so_many_failures_within_so_many_targets_and_no_later(
    test: SequentialTest, stops: dict[int, int]
) -> None:
    for failed, within in stops.items():
        assert look(test, within, failed).decision is Decision.STOP
        assert look(test, within + 2, failed).decision is not Decision.STOP


@pytest.mark.parametrize(("test", "clean"), [(rules("1%", "5%"), 55), (rules("2%", "10%"), 27)])
def test_accepts_after_so_many_clean_targets(test: SequentialTest, clean: int) -> None:
    assert look(test, clean - 1, 0).decision is Decision.GO_ON
    assert look(test, clean, 0).decision is Decision.ACCEPT


def test_trace_ends_at_the_first_target_that_stops_it() -> None:
    points = walk(SequentialTest(), [False, True, False, True, True, True])
    assert [(point.ended, point.failed) for point in points] == [(1, 0), (2, 1), (3, 1), (4, 2)]
    assert [point.decision for point in points][-2:] == [Decision.GO_ON, Decision.STOP]
    assert "2 of 4 ended have failed" in sentence(SequentialTest(), points[-1])
    assert "alpha 0.05, beta 0.1" in sentence(SequentialTest(), points[-1])


def stopped(test: SequentialTest, rate: float, *, ends_at_acceptance: bool, length: int = LONG) -> tuple[float, float]:
    """Compute exactly the probabilities that it stops, and that it has accepted, within so many targets."""
    alive, stop, accept = {0: 1.0}, 0.0, 0.0
    for ended in range(1, length + 1):
        following: dict[int, float] = {}
        for failed, chance in alive.items():
            for bad, weight in ((1, rate), (0, 1 - rate)):
                decision = look(test, ended, failed + bad).decision
                if decision is Decision.STOP:
                    stop += chance * weight
                elif decision is Decision.ACCEPT and ends_at_acceptance:
                    accept += chance * weight
                else:
                    following[failed + bad] = following.get(failed + bad, 0.0) + chance * weight
        alive = following
    return stop, accept


SHARES = st.sampled_from([("1%", "5%"), ("2%", "10%"), ("1%", "10%"), ("5%", "20%"), ("3%", "8%")])
ERRORS = st.sampled_from([0.01, 0.05, 0.1, 0.2])


@settings(max_examples=25, deadline=None)
@given(SHARES, ERRORS, ERRORS)
def test_error_rates_respect_walds_bounds_for_any_rates(shares: tuple[str, str], alpha: float, beta: float) -> None:
    test = rules(*shares, alpha=alpha, beta=beta)
    good, bad = rates(test)
    false_alarm, _ = stopped(test, good, ends_at_acceptance=True)
    _, missed = stopped(test, bad, ends_at_acceptance=True)
    assert false_alarm <= alpha / (1 - beta) + 1e-9
    assert missed <= beta / (1 - alpha) + 1e-9
    assert false_alarm + missed <= alpha + beta + 1e-9


def test_watching_on_after_an_acceptance_keeps_the_bound_in_a_wave_of_any_length() -> None:
    test = SequentialTest()
    good, bad = rates(test)
    watching, _ = stopped(test, good, ends_at_acceptance=False, length=2000)
    ending, _ = stopped(test, good, ends_at_acceptance=True, length=2000)
    assert ending < watching <= test.alpha / (1 - test.beta)
    found, _ = stopped(test, bad, ends_at_acceptance=False, length=2000)
    assert found >= 1 - test.beta / (1 - test.alpha)


def test_simulated_waves_agree_with_the_exact_rate() -> None:
    test, chance, waves = SequentialTest(), random.Random(7), 800  # noqa: S311 - no secret
    good, _ = rates(test)
    alarms = sum(
        walk(test, (chance.random() < good for _ in range(150)))[-1].decision is Decision.STOP for _ in range(waves)
    )
    exact, _ = stopped(test, good, ends_at_acceptance=False, length=150)
    assert abs(alarms / waves - exact) < 4 * (exact * (1 - exact) / waves) ** 0.5
    assert alarms / waves < test.alpha / (1 - test.beta)


@given(st.integers(0, 400), st.integers(0, 400))
def test_one_more_failure_never_speaks_for_the_patch(ended: int, failed: int) -> None:
    failed = min(failed, ended)
    assert look(SequentialTest(), ended + 1, failed + 1).log_ratio > look(SequentialTest(), ended, failed).log_ratio
    assert look(SequentialTest(), ended + 1, failed).log_ratio < look(SequentialTest(), ended, failed).log_ratio
