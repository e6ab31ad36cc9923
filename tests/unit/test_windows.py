"""Windows and freezes: the questions that gates and timetables ask, over zones and clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.plan.recurrence import RuleError, days, moment, parts
from patching.plan.windows import (
    close_of_nth_window,
    freeze_at,
    next_opening,
    next_window,
    open_window,
    sentence,
    spans,
    waiting_time,
)
from patching.policy import Freeze, Schedule, Window

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia")
RULES = ("FREQ=DAILY", "FREQ=WEEKLY;BYDAY=TU,WE", "FREQ=MONTHLY;BYDAY=2SU", "FREQ=WEEKLY;INTERVAL=2;BYDAY=SA")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def schedule(*windows: tuple[str, str, str], zone: str = "Europe/Berlin", **rest: object) -> Schedule:
    made = [{"rrule": rule, "start": start, "duration": length} for rule, start, length in windows]
    return Schedule.model_validate({"timezone": zone, "windows": made, **rest})


NIGHTS = schedule(("FREQ=WEEKLY;BYDAY=TU,WE", "22:00", "4h"))
YEAR_END = {"freezes": [{"from": date(2026, 12, 18), "to": date(2027, 1, 4), "reason": "year-end"}]}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-10-20T17:00Z", "waits for the window Tue 22:00 Europe/Berlin, opens in 3 h"),
        ("2026-10-20T20:30Z", "may work: the window is open until Wed 02:00 Europe/Berlin, 3 h 30 min left"),
        ("2026-10-22T00:00Z", "waits for the window Tue 22:00 Europe/Berlin, opens in 5 d 21 h"),
        ("2026-10-20T19:59:30Z", "waits for the window Tue 22:00 Europe/Berlin, opens in 30 s"),
    ],
)
def test_sentence_says_what_is_waited_for_and_how_long(now: str, expected: str) -> None:
    """S3: a manual trigger at 14:00 must not look hung until 22:00."""
    assert sentence(NIGHTS, at(now)) == expected


def test_sentence_in_a_freeze_names_it_and_the_first_opening_after_it() -> None:
    frozen = NIGHTS.model_copy(update={"freezes": Schedule.model_validate(YEAR_END).freezes})
    said = sentence(frozen, at("2026-12-22T12:00Z"), "7f3a")
    assert said.startswith('rollout 7f3a waits for the end of the freeze "year-end" (last day 2027-01-04)')
    assert said.endswith("may start Tue 5 Jan 2027 22:00 Europe/Berlin, in 14 d 9 h")


def test_without_windows_it_is_always_open_but_a_freeze_still_closes() -> None:
    free = Schedule.model_validate(YEAR_END)
    now = at("2026-10-20T17:00Z")
    assert open_window(free, now) is not None
    assert next_opening(free, now) == now
    assert next_window(free, now) is None
    assert next_opening(free, at("2026-12-20T00:00Z")) == at("2027-01-05T00:00Z")


def test_freeze_days_are_days_of_the_policys_zone() -> None:
    frozen = Schedule.model_validate({"timezone": "Europe/Berlin", **YEAR_END})
    assert freeze_at(frozen, at("2026-12-17T22:59:59Z")) is None
    assert freeze_at(frozen, at("2026-12-17T23:00Z")) is not None
    assert freeze_at(frozen, at("2027-01-04T22:59:59Z")) is not None
    assert freeze_at(frozen, at("2027-01-04T23:00Z")) is None


def test_freeze_that_ends_within_a_window_opens_it_at_midnight() -> None:
    late = schedule(("FREQ=WEEKLY;BYDAY=MO", "22:00", "4h"), **YEAR_END)
    assert next_opening(late, at("2026-12-20T00:00Z")) == at("2027-01-04T23:00Z")


def test_windows_that_touch_are_one_window() -> None:
    two = schedule(("FREQ=WEEKLY;BYDAY=TU", "22:00", "2h"), ("FREQ=WEEKLY;BYDAY=WE", "00:00", "3h"))
    span = open_window(two, at("2026-10-20T21:00Z"))
    assert span is not None
    assert (span.opens, span.closes) == (at("2026-10-20T20:00Z"), at("2026-10-21T01:00Z"))


def test_second_close_counts_the_open_window_and_leaves_out_frozen_ones() -> None:
    assert close_of_nth_window(NIGHTS, at("2026-10-20T20:30Z"), 2) == at("2026-10-22T00:00Z")
    frozen = NIGHTS.model_copy(update={"freezes": Schedule.model_validate(YEAR_END).freezes})
    assert close_of_nth_window(frozen, at("2026-12-17T01:30Z"), 2) == at("2027-01-07T01:00Z")


def test_window_that_never_opens_gives_none_and_says_so() -> None:
    never = schedule(("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "22:00", "4h"))
    now = at("2026-10-20T12:00Z")
    assert next_opening(never, now) is None
    assert next_window(never, now) is None
    assert "none opens in the next 5 years" in sentence(never, now)


@pytest.mark.parametrize(
    ("day", "clock", "zone", "expected"),
    [
        ("2026-03-29", "02:30", "Europe/Berlin", "2026-03-29T01:00Z"),
        ("2026-10-25", "02:30", "Europe/Berlin", "2026-10-25T00:30Z"),
        ("2026-03-08", "02:15", "America/New_York", "2026-03-08T07:00Z"),
        ("2026-11-01", "01:30", "America/New_York", "2026-11-01T05:30Z"),
        ("2026-10-04", "02:10", "Australia/Lord_Howe", "2026-10-03T15:30Z"),
        ("2011-12-30", "12:00", "Pacific/Apia", "2011-12-30T10:00Z"),
    ],
)
def test_skipped_time_becomes_the_first_moment_after_and_double_time_the_first(
    day: str, clock: str, zone: str, expected: str
) -> None:
    assert moment(date.fromisoformat(day), clock, zone) == at(expected)


def test_window_length_is_elapsed_time_on_the_night_of_a_clock_change() -> None:
    night = schedule(("FREQ=WEEKLY;BYDAY=SA", "22:00", "6h"))
    span = next_window(night, at("2026-10-24T12:00Z"))
    assert span is not None
    assert span.closes is not None
    assert span.closes - span.opens == timedelta(hours=6)
    assert span.closes.astimezone(ZoneInfo("Europe/Berlin")).time() == time(3, 0)


def test_every_other_week_means_the_same_weeks_in_every_year() -> None:
    found = list(islice(days("FREQ=WEEKLY;INTERVAL=2;BYDAY=SA", date(2024, 1, 1)), 200))
    assert found[0] == date(2024, 1, 6)
    assert {(after - before).days for before, after in pairwise(found)} == {14}


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ("FREQ=HOURLY", "FREQ=HOURLY"),
        ("BYDAY=TU", "FREQ is missing"),
        ("FREQ=WEEKLY;BYHOUR=3", "BYHOUR"),
        ("FREQ=WEEKLY;INTERVAL=0", "INTERVAL"),
        ("FREQ=WEEKLY;FREQ=DAILY", "twice"),
        ("FREQ=WEEKLY;BYDAY=2TU", "numbered weekday"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "BYMONTHDAY"),
        ("FREQ=WEEKLY;UNTIL=20260230", "UNTIL"),
        ("every tuesday", "NAME=VALUE"),
        ("FREQ=WEEKLY\nRDATE:20260101", "FREQ"),
        ("", "NAME=VALUE"),
    ],
)
def test_unusable_rule_names_the_part(rule: str, part: str) -> None:
    with pytest.raises(RuleError, match=part):
        parts(rule)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.4, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "1 h"), (5400.5, "1 h 31 min"), (172801, "2 d 1 h")],
)
def test_waiting_time_is_never_shorter_than_the_wait(seconds: float, words: str) -> None:
    assert waiting_time(timedelta(seconds=seconds)) == words


schedules = st.builds(
    lambda zone, rules, freezes: Schedule(timezone=zone, windows=tuple(rules), freezes=tuple(freezes)),
    st.sampled_from(ZONES),
    st.lists(
        st.builds(
            lambda rule, hour, minute, length: Window(rrule=rule, start=f"{hour:02}:{minute:02}", duration=length),
            st.sampled_from(RULES),
            st.integers(0, 23),
            st.sampled_from((0, 15, 30, 59)),
            st.sampled_from((60.0, 3600.0, 4 * 3600.0, 23 * 3600.0)),
        ),
        min_size=1,
        max_size=3,
    ),
    st.lists(
        st.builds(
            lambda first, length: Freeze.model_validate(
                {"from": first, "to": first + timedelta(length), "reason": "x"}
            ),
            st.dates(date(2025, 12, 1), date(2027, 6, 1)),
            st.integers(0, 40),
        ),
        max_size=2,
    ),
)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=150, deadline=None)
@given(schedules, moments)
def test_answers_agree_with_each_other(made: Schedule, now: datetime) -> None:
    opening = next_opening(made, now)
    current = open_window(made, now)
    may = current is not None and freeze_at(made, now) is None
    assert (opening == now) == may
    assert sentence(made, now).startswith("may work") == may
    if opening is not None:
        assert opening >= now
        inside = open_window(made, opening)
        assert inside is not None
        assert freeze_at(made, opening) is None
    following = next_window(made, now)
    assert following is None or (following.opens > now and open_window(made, following.opens) is not None)


@settings(max_examples=150, deadline=None)
@given(schedules, moments)
def test_windows_come_in_order_and_never_overlap(made: Schedule, now: datetime) -> None:
    found = list(islice(spans(made, now), 12))
    for before, after in pairwise(found):
        assert before.closes is not None
        assert before.closes < after.opens
    assert all(span.closes is not None and span.closes > now for span in found)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ZONES), st.dates(date(2024, 1, 1), date(2030, 1, 1)), st.times())
def test_moment_shows_the_wall_clock_or_is_the_first_moment_after_a_gap(zone: str, day: date, clock: time) -> None:
    tz, text = ZoneInfo(zone), f"{clock:%H:%M}"
    found = moment(day, text, zone)
    local, wall = found.astimezone(tz).replace(tzinfo=None), datetime.combine(day, time.fromisoformat(text))
    assert local >= wall
    if local != wall:
        earlier = (found - timedelta(seconds=1)).astimezone(tz).replace(tzinfo=None)
        assert earlier < wall
    else:
        assert found.astimezone(tz).fold == 0
