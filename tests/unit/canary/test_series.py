"""Counting raw samples: no extrapolation, restarts, births and silence (S5, F9)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.canary.series import CounterSeries, complete_at, count, points, scrape_interval

HOST = ("web", "a:80")


def counter(samples: Iterable[tuple[float, float]], process: tuple[str, ...] = HOST) -> CounterSeries:
    return CounterSeries(process, tuple(samples))


def steady(start: int, end: int, rate: float = 10, step: int = 1) -> CounterSeries:
    return counter((at, rate * at) for at in range(start, end + 1, step))


def counted(
    errors: list[CounterSeries], requests: list[CounterSeries], start: float, end: float
) -> tuple[object, object]:
    sample = count("a", errors, requests, start, end)
    return sample.errors, sample.requests


def test_no_request_series_is_no_data() -> None:
    assert counted([], [], 0, 20) == (None, None)


def test_errors_without_requests_are_no_data() -> None:
    assert counted([steady(0, 20)], [], 0, 20) == (None, None)


def test_no_error_series_is_zero_while_requests_move() -> None:
    assert counted([], [steady(0, 20)], 0, 20) == (0, 200)


def test_series_born_after_its_process_counts_from_zero() -> None:
    assert counted([counter([(12, 7), (13, 8)])], [steady(0, 20)], 10, 20) == (8, 100)


def test_first_scrape_of_a_whole_process_is_only_a_baseline() -> None:
    """A host that Prometheus just learns of has counted for years; that is not this window's."""
    requests = counter((at, 1e6 + at) for at in range(12, 21))
    assert counted([counter((at, 5000.0) for at in range(12, 21))], [requests], 10, 20) == (0, 8)


def test_falling_value_is_a_restart() -> None:
    requests = counter([(0, 100), (1, 110), (2, 4), (3, 9)])
    assert counted([], [requests], 0, 3) == (0, 10 + 4 + 5)


def test_one_series_falling_restarts_the_others_of_its_process() -> None:
    requests = counter([(0, 100), (1, 110), (2, 4), (3, 9)])
    errors = counter([(0, 2), (1, 2), (2, 3), (3, 3)])
    assert counted([errors], [requests], 0, 3) == (3, 19)


def test_another_processs_restart_restarts_nothing() -> None:
    requests = [counter([(0, 100), (1, 110), (2, 4), (3, 9)], ("web", "b:80")), counter([(0, 5), (3, 8)])]
    errors = counter([(0, 2), (3, 3)])
    assert counted([errors], requests, 0, 3) == (1, 19 + 3)


def test_counters_without_job_and_instance_do_not_restart_each_other() -> None:
    nameless = ("", "")
    requests = counter([(0, 100), (1, 4), (2, 9)], nameless)
    errors = counter([(0, 2), (1, 3), (2, 3)], nameless)
    assert counted([errors], [requests], 0, 2) == (1, 9)


def test_errors_newer_than_the_newest_requests_are_left_for_the_next_time() -> None:
    """A scrape stored between the two queries must not give errors without their requests."""
    errors = counter([(0, 0), (1, 0), (2, 0), (3, 50)])
    assert counted([errors], [steady(0, 2)], 0, 3) == (0, 20)


@pytest.mark.parametrize(("last", "expected"), [(17, (0, 70)), (16, (None, None))])
def test_target_is_stale_after_three_scrapes(last: int, expected: tuple[object, object]) -> None:
    assert counted([], [steady(0, last)], 10, 20) == expected


def test_single_scrape_is_no_data() -> None:
    assert counted([], [counter([(20, 5)])], 10, 20) == (None, None)


def test_window_between_two_scrapes_has_no_requests_but_is_data() -> None:
    assert counted([], [steady(0, 60, step=15)], 46, 59) == (0, 0)


def test_part_without_a_scrape_has_no_point() -> None:
    requests = counter([(0, 0), (1, 10), (2, 20), (8, 80), (9, 90)])
    found = points("a", [], [requests], 0, 9, 3)
    assert [sample.requests for sample in found] == [20, None, 70]


def test_data_are_complete_one_scrape_after_the_end() -> None:
    assert complete_at(100, 15) == 116


@pytest.mark.parametrize(
    ("times", "interval"), [([(0, 15, 30, 45)], 15), ([(0, 15, 30), (2, 62, 122)], 60), ([(3,)], None)]
)
def test_scrape_interval_is_that_of_the_slowest_target(times: list[tuple[float, ...]], interval: float | None) -> None:
    """A scrape that was missed does not make a target slow."""
    series = [CounterSeries(("web", "a"), tuple((at, 1.0) for at in one)) for one in times]
    assert scrape_interval(series) == interval
    missed = CounterSeries(("web", "a"), tuple((at, 1.0) for at in (0, 15, 30, 60, 75, 90)))
    assert scrape_interval([missed]) == 15


increments = st.lists(st.integers(0, 50), min_size=6, max_size=40)


@settings(deadline=None, max_examples=100)
@given(increments, st.integers(1, 4), st.data())
def test_parts_of_a_window_sum_to_the_whole(steps: list[int], parts: int, data: st.DataObject) -> None:
    """However a span is cut, nothing is counted twice and nothing is lost: that is why nothing is extrapolated."""
    values, total = [], 0
    for step in steps:
        total += step
        values.append(total)
    series = counter((float(at), float(value)) for at, value in enumerate(values))
    end = len(values) - 1
    start = data.draw(st.integers(0, end - 1))
    whole = count("a", [], [series], start, end)
    assert whole.requests == values[end] - values[start]
    cut = points("a", [], [series], start, end, parts)
    assert sum(part.requests or 0 for part in cut) == whole.requests


@settings(deadline=None, max_examples=100)
@given(increments, st.integers(2, 39))
def test_restart_never_gives_a_negative_count_nor_more_than_happened(steps: list[int], restart: int) -> None:
    values, total = [], 0
    for index, step in enumerate(steps):
        total = step if index == restart else total + step
        values.append((float(index), float(total)))
    found = count("a", [], [counter(values)], 0, len(steps) - 1)
    assert found.requests is not None
    assert 0 <= found.requests <= sum(steps[1:])
