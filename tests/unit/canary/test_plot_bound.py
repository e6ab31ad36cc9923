"""The bound of a picture: what is tolerated of the canary, against each comparison (S5, item 10)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from patching.canary.plot import Mark, Plot, Point
from patching.canary.plot_bound import bounded
from patching.canary.plot_svg import describe, svg
from patching.policy import Check, PrometheusCheck

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RULES = PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}")
SVG = "{http://www.w3.org/2000/svg}"


def check(**compare: Any) -> Check:
    return Check.model_validate(
        {"name": "errors", "prometheus": RULES.model_dump(), "compare": {"maxRelativeIncrease": "50%"} | compare}
    )


def shares(*errors: float, requests: float = 100) -> tuple[Point, ...]:
    return tuple(
        Point(at=T0 + timedelta(minutes=minute), value=more / requests, errors=more, requests=requests)
        for minute, more in enumerate(errors, start=-1)
    )


def levels(*values: float | None) -> tuple[Point, ...]:
    return tuple(Point(at=T0 + timedelta(minutes=minute), value=value) for minute, value in enumerate(values, start=-1))


def plot(canary: tuple[Point, ...], control: tuple[Point, ...] = (), unit: Any = "share") -> Plot:
    return Plot(title="x", unit=unit, canary=canary, control=control, changes=(Mark(at=T0, label="web-1"),))


def bound(made: Plot, comparison: str | None = None, **compare: Any) -> list[float | None]:
    return [None if point.value is None else round(point.value, 6) for point in
            bounded(made, check(**compare), comparison).tolerated]  # fmt: skip


def test_control_s_mean_since_the_change_times_what_is_tolerated() -> None:
    made = plot(shares(1, 1, 9, 9), shares(1, 1, 1, 3))
    assert bound(made, "control") == [0.015, 0.03]


def test_canary_that_was_twice_as_high_before_may_be_twice_as_high_now() -> None:
    made = plot(shares(2, 2, 9, 9), shares(1, 1, 1, 1))
    assert bound(made, "control") == [0.03, 0.03]


def test_own_time_before_is_a_flat_line_and_threshold_is_what_is_written() -> None:
    made = plot(shares(2, 2, 9, 9))
    assert bound(made, "before") == [0.03, 0.03]
    assert bound(made, "threshold", threshold="4%") == [0.04, 0.04]


def test_before_the_verdict_it_is_the_first_comparison_that_has_data() -> None:
    assert bound(plot(shares(2, 2, 9, 9), shares(1, 1, 1, 1))) == [0.03, 0.03]
    assert bound(plot(shares(2, 2, 9, 9))) == [0.03, 0.03]
    assert bound(plot(shares()[:0])) == []


def test_share_is_never_above_all_requests() -> None:
    assert bound(plot(shares(90, 90, 90)), "before") == [1.0]


@pytest.mark.parametrize(("direction", "wanted"), [("increase", 15.0), ("either", 15.0), ("decrease", 5.0)])
def test_gauge_whose_fall_is_bad_is_bounded_below(direction: str, wanted: float) -> None:
    made = plot(levels(10, 10, 10), unit="level")
    assert bound(made, "before", direction=direction) == [wanted]


def test_levels_below_zero_are_put_side_by_side_by_their_difference() -> None:
    made = plot(levels(-10, -10, 0), levels(-20, None, -20), "level")
    assert bound(made, "control") == [-5.0]


def test_bound_is_drawn_dotted_named_and_said() -> None:
    made = bounded(plot(shares(1, 1, 9, 9), shares(1, 1, 1, 1)), check(), "control")
    root = ET.fromstring(svg(made))  # noqa: S314
    assert [path.attrib.get("stroke-dasharray") for path in root.findall(f"{SVG}path")] == ["0 5", "6 3", None]
    assert "Tolerated of the canary: 1.5 % at last." in describe(made)
    places = sorted(
        float(text.attrib["y"])
        for text in root.findall(f"{SVG}text")
        if text.text in ("canary", "control", "tolerated")
    )
    assert len(places) == 3
    assert min(later - earlier for earlier, later in pairwise(places)) >= 13
