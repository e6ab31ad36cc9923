"""How long jobs take (S3): quantiles of what was, a stated default before that, and whether something still fits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.ledger.base import PastJob
from patching.plan.durations import Estimate, Known, estimate, quantile, too_late, wave_takes
from unit.plan.made import policy

MINUTE = 60.0


def jobs(*minutes: float, rebooted: bool = False) -> tuple[PastJob, ...]:
    return tuple(PastJob(seconds=item * MINUTE, rebooted=rebooted) for item in minutes)


def past(*minutes: float) -> Known:
    return Known(own=jobs(*minutes))


def test_p90_is_a_duration_that_occurred() -> None:
    assert quantile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9) == 9
    assert quantile([7], 0.9) == 7


def test_job_that_does_not_fit_is_refused_with_the_numbers() -> None:
    job = estimate(past(*([5] * 35), *([25] * 5)), policy(), reboots=False)
    assert too_late(timedelta(minutes=20), job) == (
        "not started: 20 min left, jobs like it take up to 25 min (p90 of 40)"
    )
    assert too_late(timedelta(minutes=25), job) is None


def test_without_history_the_default_is_said_and_a_reboot_is_given_its_whole_timeout() -> None:
    few = estimate(past(1, 1, 1, 1), policy(), reboots=False)
    assert too_late(timedelta(minutes=9), few) == (
        "not started: 9 min left, jobs like it take up to 10 min (the default until 5 such jobs are known)"
    )
    assert estimate(Known(), policy(reboot={"timeout": "20m"}), reboots=True).long == 30 * MINUTE


def test_jobs_with_and_without_a_reboot_are_different_jobs() -> None:
    known = Known(own=jobs(*[2] * 9) + jobs(*[12] * 9, rebooted=True))
    assert estimate(known, policy(), reboots=False).long == 2 * MINUTE
    assert estimate(known, policy(), reboots=True).long == 12 * MINUTE


def test_driver_s_other_policies_count_while_a_policy_has_too_few_jobs_of_its_own() -> None:
    few = Known(own=jobs(1, 1), alike=jobs(*[20] * 8))
    found = estimate(few, policy(), reboots=False)
    assert (found.long, found.source) == (20 * MINUTE, "p90 of 10 with driver apt")
    enough = Known(own=jobs(*[1] * 5), alike=jobs(*[20] * 8))
    assert estimate(enough, policy(), reboots=False).source == "p90 of 5"


@pytest.mark.parametrize(("places", "at_once", "minutes"), [({"a": 1}, 50, 8), ({"a": 3}, 50, 4), ({"a": 3}, 2, 6)])
def test_wave_takes_as_many_rounds_as_its_narrowest_domain(places: dict[str, int], at_once: int, minutes: int) -> None:
    job = Estimate(usual=2 * MINUTE, long=4 * MINUTE)
    wave = [(job, "a")] * 3 + [(job, "b")]
    takes = wave_takes(wave, places, at_once)
    assert takes == timedelta(minutes=minutes)


@given(st.lists(st.floats(0, 1e5), min_size=5, max_size=60))
def test_at_least_nine_of_ten_known_jobs_took_no_longer(seconds: list[float]) -> None:
    found = estimate(Known(own=tuple(PastJob(seconds=item) for item in seconds)), policy(), reboots=False)
    assert found.usual <= found.long
    assert sum(item <= found.long for item in seconds) * 10 >= len(seconds) * 9
