"""When runs begin (S3): moments of planning and opening, over zones, clock changes and downtimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.plan.moments import moment_under_way, next_moment, next_run
from patching.plan.windows import spans
from patching.policy import Schedule

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def schedule(*windows: tuple[str, str, str], zone: str = BERLIN, ahead: str = "0s", **more: Any) -> Schedule:
    made = [{"rrule": rule, "start": start, "duration": length} for rule, start, length in windows]
    return Schedule.model_validate({"timezone": zone, "windows": made, "plan_ahead": ahead, **more})


def moments(plan: Schedule, after: datetime, count: int) -> list[str]:
    found = []
    for _ in range(count):
        moment = next_moment(plan, after)
        if moment is None:
            break
        found.append(f"{moment:%a %m-%d %H:%MZ}")
        after = moment
    return found


NIGHTS = schedule(("FREQ=WEEKLY;BYDAY=TU,WE", "22:00", "4h"), ahead="24h")


def test_planning_and_opening_alternate_and_a_moment_that_is_both_comes_once() -> None:
    assert moments(NIGHTS, at("2026-10-12T00:00Z"), 5) == [
        "Mon 10-12 20:00Z",  # plan for Tuesday
        "Tue 10-13 20:00Z",  # Tuesday opens, and Wednesday is planned
        "Wed 10-14 20:00Z",
        "Mon 10-19 20:00Z",
        "Tue 10-20 20:00Z",
    ]


@pytest.mark.parametrize(
    ("zone", "start", "day", "expected"),
    [
        (BERLIN, "02:30", "2026-03-29T00:00Z", "Sun 03-29 01:00Z"),  # skipped: the first moment after the gap
        (BERLIN, "02:30", "2026-10-25T00:00Z", "Sun 10-25 00:30Z"),  # occurs twice: the first
        (NEW_YORK, "02:30", "2026-03-08T05:00Z", "Sun 03-08 07:00Z"),
        (NEW_YORK, "01:30", "2026-11-01T04:00Z", "Sun 11-01 05:30Z"),
        (BERLIN, "22:00", "2026-10-24T21:00Z", "Sun 10-25 21:00Z"),  # the wall clock counts: 22:00 on both sides
    ],
)
def test_opening_on_the_night_of_a_clock_change(zone: str, start: str, day: str, expected: str) -> None:
    daily = schedule(("FREQ=DAILY", start, "1h"), zone=zone)
    assert moments(daily, at(day) - timedelta(seconds=1), 1) == [expected]


def test_planning_ahead_is_elapsed_time_across_a_clock_change() -> None:
    sunday = schedule(("FREQ=WEEKLY;BYDAY=SU", "22:00", "1h"), ahead="24h")
    assert moments(sunday, at("2026-10-24T00:00Z"), 2) == ["Sat 10-24 21:00Z", "Sun 10-25 21:00Z"]


def test_long_planning_ahead_over_many_windows_a_day_loses_no_moment() -> None:
    hours = [("FREQ=DAILY", f"{hour:02}:00", "10m") for hour in range(24)]
    plan = schedule(*hours, zone="UTC", ahead="30d30m")
    assert moments(plan, at("2026-05-01T00:00Z"), 4) == [
        "Fri 05-01 00:30Z",
        "Fri 05-01 01:00Z",
        "Fri 05-01 01:30Z",
        "Fri 05-01 02:00Z",
    ]


def test_policy_without_windows_and_rule_that_has_ended_give_no_moment() -> None:
    over = schedule(("FREQ=DAILY;UNTIL=20200101", "22:00", "1h"), ahead="1h")
    for plan in (schedule(), schedule(ahead="2h"), over):
        assert next_moment(plan, at("2026-05-01T00:00Z")) is None
        assert next_run(plan, at("2026-05-01T00:00Z")) is None


@pytest.mark.parametrize(
    ("now", "last", "expected"),
    [
        # The scheduler was down when the window opened: it is open still, so the run begins at once.
        ("2026-10-13T23:00Z", "2026-10-12T20:00Z", "2026-10-13T20:00Z"),
        # Down over the whole window and longer: the missed ones are not made up for.
        ("2026-10-16T12:00Z", "2026-10-05T20:00Z", "2026-10-19T20:00Z"),
        # Down when planning was due, and the window has not opened yet: it is planned late rather than never.
        ("2026-10-13T12:00Z", "2026-10-07T20:00Z", "2026-10-12T20:00Z"),
        # Nothing was missed.
        ("2026-10-13T23:00Z", "2026-10-13T20:00Z", "2026-10-14T20:00Z"),
    ],
)
def test_after_a_downtime_only_the_moment_under_way_is_made_up_for(now: str, last: str, expected: str) -> None:
    assert next_run(NIGHTS, at(now), last=at(last)) == at(expected)


def test_window_made_of_overlapping_ones_is_made_up_for_whichever_part_is_left() -> None:
    """S3: the first part is over, so only the second one is known as open; the run is still due."""
    plan = schedule(
        ("FREQ=WEEKLY;BYDAY=TU", "22:00", "4h"),
        ("FREQ=WEEKLY;BYDAY=WE", "01:00", "4h"),
        ("FREQ=WEEKLY;BYDAY=WE", "04:30", "4h"),
        zone="UTC",
    )
    now = at("2026-10-14T07:00Z")
    assert moment_under_way(plan, now) == at("2026-10-13T22:00Z")
    assert next_run(plan, now, last=at("2026-10-06T22:00Z")) == at("2026-10-13T22:00Z")
    assert next_run(plan, now, last=at("2026-10-13T22:00Z")) == at("2026-10-20T22:00Z")


@pytest.mark.parametrize("now", ["2026-10-13T20:00Z", "2026-10-13T20:00:05Z", "2026-10-13T23:59Z"])
def test_due_run_is_not_lost_when_the_file_is_parsed_again_before_the_scheduler_made_it(now: str) -> None:
    """Airflow asks again at every parse; a moment that has just passed must stay the answer until its run exists."""
    assert next_run(NIGHTS, at(now)) == at("2026-10-13T20:00Z")


def test_start_and_end_of_a_dag_are_kept() -> None:
    now = at("2026-10-12T00:00Z")
    assert next_run(NIGHTS, now, earliest=at("2026-10-20T20:00Z")) == at("2026-10-20T20:00Z")
    assert next_run(NIGHTS, now, latest=at("2026-10-12T20:00Z")) == at("2026-10-12T20:00Z")
    assert next_run(NIGHTS, now, latest=at("2026-10-12T19:59Z")) is None


def test_with_catchup_every_moment_follows_from_the_last() -> None:
    assert next_run(NIGHTS, at("2026-10-30T00:00Z"), last=at("2026-10-12T20:00Z"), catchup=True) == at(
        "2026-10-13T20:00Z"
    )
    assert next_run(NIGHTS, at("2026-10-30T00:00Z"), earliest=at("2026-10-12T20:00Z"), catchup=True) == at(
        "2026-10-12T20:00Z"
    )


def test_freeze_moves_no_moment() -> None:
    frozen = schedule(
        ("FREQ=DAILY", "22:00", "1h"), freezes=[{"from": "2026-12-18", "to": "2027-01-04", "reason": "year-end"}]
    )
    assert moments(frozen, at("2026-12-24T00:00Z"), 1) == ["Thu 12-24 21:00Z"]


SCHEDULES = st.builds(
    schedule,
    st.tuples(
        st.sampled_from(("FREQ=DAILY", "FREQ=WEEKLY;BYDAY=TU,SU", "FREQ=MONTHLY;BYDAY=-1SU")),
        st.sampled_from(("00:00", "01:30", "02:30", "22:00", "23:45")),
        st.sampled_from(("15m", "4h", "23h")),
    ),
    st.tuples(
        st.sampled_from(("FREQ=WEEKLY;BYDAY=MO,SU", "FREQ=MONTHLY;BYMONTHDAY=28")),
        st.sampled_from(("00:30", "02:00", "20:00")),
        st.sampled_from(("1h", "9h")),
    ),
    zone=st.sampled_from((BERLIN, NEW_YORK, "UTC", "Australia/Lord_Howe")),
    ahead=st.sampled_from(("0s", "90m", "24h", "6d")),
)
NOWS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=60, deadline=None)
@given(SCHEDULES, NOWS)
def test_moments_increase_and_each_is_an_opening_or_the_planning_of_one(plan: Schedule, now: datetime) -> None:
    ahead = timedelta(seconds=plan.plan_ahead)
    long_enough = list(islice(spans(plan, now - timedelta(days=1)), 60))
    openings = {span.opens for span in long_enough}
    expected = sorted(
        moment
        for moment in openings | {opens - ahead for opens in openings}
        if now < moment <= long_enough[-1].opens - ahead
    )
    found: list[datetime] = []
    for _ in range(min(12, len(expected))):
        moment = next_moment(plan, found[-1] if found else now)
        assert moment is not None
        found.append(moment)
    assert found == expected[:12]


@settings(max_examples=60, deadline=None)
@given(SCHEDULES, NOWS, st.integers(0, 14 * 24 * 60))
def test_a_run_made_up_for_has_a_purpose_and_none_comes_twice(plan: Schedule, now: datetime, minutes: int) -> None:
    last = now - timedelta(minutes=minutes)
    due = next_run(plan, now, last=last)
    assert due is not None
    assert due > last
    following = next_run(plan, now, last=due)
    assert following is not None
    assert following > due
    # After one run that was made up for, the next one lies ahead: a downtime never ends in a burst of runs.
    assert following > now
