"""Arrays of hosts and looks: the same counting as sample by sample, gaps, to the ledger and back (S5, F9)."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.canary.kept import as_json, from_json
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.panel import Panel, counted, panel_from_counters
from patching.canary.saved_answer import matches
from patching.canary.series import CounterSeries, count
from patching.canary.sides import Measurements, without_traffic

values = st.lists(st.one_of(st.integers(0, 50), st.none()), min_size=3, max_size=12)


def by_samples(points: list[int | None]) -> float:
    """Count the same one sample after the other, a restart whenever the value falls."""
    known = [float(value) for value in points if value is not None]
    return sum(later if later < earlier else later - earlier for earlier, later in pairwise(known))


@settings(deadline=None)
@given(values)
def test_arrays_count_what_samples_count(points: list[int | None]) -> None:
    row = np.array([[np.nan if value is None else float(value) for value in points]])
    assert float(np.nansum(counted(row))) == by_samples(points)


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=4, max_size=12))
def test_arrays_agree_with_the_counting_of_raw_samples(increases: list[int]) -> None:
    total = np.cumsum(np.array(increases, dtype=float))
    panel = panel_from_counters(["a"], np.arange(len(total)), np.zeros((1, len(total))), total[None, :])
    raw = CounterSeries(("a",), tuple(zip(range(len(total)), total.tolist(), strict=True)))
    assert panel.totals()[1] == count("a", [], [raw], 0, len(total) - 1).requests


def test_gap_is_no_data_and_what_happened_in_it_counts_at_its_end() -> None:
    found = counted(np.array([[10.0, 20.0, np.nan, np.nan, 50.0, 5.0]]))
    assert found.tolist()[0][:2] == pytest.approx([10.0, float("nan")], nan_ok=True)
    assert found.tolist()[0][3:] == [30.0, 5.0]


def test_error_counter_born_late_counts_from_zero_and_one_never_born_is_zero_errors() -> None:
    requests = np.arange(5.0)[None, :] * np.ones((2, 1)) * 10
    errors = np.array([[np.nan, np.nan, 3.0, 4.0, 4.0], [np.nan] * 5])
    panel = panel_from_counters(["a", "b"], np.arange(5), errors, requests)
    assert panel.by_target()[0].tolist() == [4.0, 0.0]
    assert panel.by_target()[1].tolist() == [40.0, 40.0]


def test_windows_join_looks_from_the_newest_backwards() -> None:
    row = np.arange(7.0)[None, :]
    found = Panel(("a",), 0.0, np.arange(1.0, 8.0), row, np.where(row == 1, np.nan, 10.0)).windows(3)
    assert found.start == 1.0
    assert found.ends.tolist() == [4.0, 7.0]
    assert found.errors.tolist() == [[2.0 + 3.0, 4.0 + 5.0 + 6.0]]
    assert found.requests.tolist() == [[20.0, 30.0]]


def panel(requests: list[list[float]], prefix: str = "w", start: float = 0.0) -> Panel:
    rows = np.array(requests)
    ends = start + np.arange(1.0, rows.shape[1] + 1)
    names = tuple(f"{prefix}{index}" for index in range(len(rows)))
    return Panel(names, start, ends, np.where(np.isfinite(rows), 0.0, np.nan), rows)


def test_target_whose_scrapes_stop_before_the_end_is_silent() -> None:
    """F9: what it counted until then does not make it alive."""
    canary = panel([[10.0] * 12, [10.0] * 5 + [np.nan] * 7])
    none = Panel((), 0.0, np.empty(0), np.empty((0, 0)), np.empty((0, 0)))
    assert without_traffic(Measurements(canary, none, none, none)) == (("w1",), ())


def test_evidence_comes_back_from_the_ledger_as_it_was() -> None:
    counters = Measurements(
        panel([[10.0, np.nan], [1.0, 2.0]]), panel([[5.0, 5.0]], "c"), panel([[7.0]]), panel([[8.0]], "c"), first=7
    )
    kept = json.loads(json.dumps(as_json(counters)))
    assert as_json(from_json(kept)) == kept
    again = from_json(kept)
    assert isinstance(again, Measurements)
    assert again.first == 7
    assert np.isnan(again.canary.requests[0, 1])


def test_gauge_comes_back_from_the_ledger_as_it_was() -> None:
    def levels(prefix: str) -> Levels:
        return Levels((f"{prefix}0",), np.array([1.0, 2.0]), np.array([[3.0, np.nan]]))

    empty = Levels((), np.empty(0), np.empty((0, 0)))
    kept = json.loads(json.dumps(as_json(LevelMeasurements(levels("w"), levels("c"), levels("w"), empty))))
    assert as_json(from_json(kept)) == kept


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ('http_requests_total{code=~"5..",$series}', True),
        ("http_requests_total{$series}", True),
        ('http_requests_total{code!~"5..",$series}', False),
        ('http_requests_total{code="503",$series}', True),
        ('http_requests_total{code!="503",$series}', False),
        ("other_total{$series}", False),
        ('{__name__="http_requests_total",$series}', True),
        ("sum(http_requests_total{$series})", False),
        ('http_requests_total{code=~"5(",$series}', False),
    ],
)
def test_selectors_of_a_policy_find_their_series_in_a_saved_answer(selector: str, expected: bool) -> None:
    labels = {"__name__": "http_requests_total", "code": "503", "instance": "a:80"}
    assert matches(selector, labels) is expected
