"""The plot of canary against control (V2): its parts, its words, and hostile names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

from patching.canary.plot import Plot, plot_of
from patching.canary.plot_svg import describe, svg

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def stamp(minutes: float) -> str:
    return (T0 + timedelta(minutes=minutes)).isoformat()


def measured(**more: Any) -> dict[str, Any]:
    canary = [[stamp(0), 0, 100], [stamp(1), None, None], [stamp(2), 20, 100], [stamp(3), 30, 100]]
    return {
        "series": [
            {"target": "a", "role": "canary", "points": canary},
            {"target": "c1", "role": "control", "points": [[stamp(minute), 1, 100] for minute in range(4)]},
            {"target": "c2", "role": "control", "points": [[stamp(minute), 3, 300] for minute in range(4)]},
        ],
        "changes": [{"target": "a", "at": stamp(1)}],
    } | more


def test_targets_of_a_role_are_summed_and_gaps_stay_gaps() -> None:
    plot = plot_of("errors", measured())
    assert [point.value for point in plot.canary] == [0.0, None, 0.2, 0.3]
    assert [point.value for point in plot.control] == [0.01] * 4


def test_svg_has_two_lines_one_broken_a_mark_and_words() -> None:
    plot = plot_of("errors", measured())
    root = ET.fromstring(svg(plot))  # noqa: S314
    control, canary = root.findall(f"{SVG}path")
    assert canary.attrib["d"].count("M") == 2
    assert control.attrib["d"].count("M") == 1
    assert "stroke-dasharray" in control.attrib
    assert "stroke-dasharray" not in canary.attrib
    marks = [line for line in root.findall(f"{SVG}line") if line.find(f"{SVG}title") is not None]
    assert [mark.find(f"{SVG}title").text for mark in marks] == ["a changed 12:01:00"]  # type: ignore[union-attr]
    assert root.find(f"{SVG}desc").text == describe(plot)  # type: ignore[union-attr]
    assert "Canary: 0 % at first, 30 % at last" in describe(plot)


def test_labels_at_the_lines_do_not_cover_each_other() -> None:
    same = [[stamp(minute), 1, 100] for minute in range(4)]
    series = [{"target": name, "role": role, "points": same} for name, role in (("a", "canary"), ("c", "control"))]
    root = ET.fromstring(svg(plot_of("errors", measured(series=series))))  # noqa: S314
    places = [float(text.attrib["y"]) for text in root.findall(f"{SVG}text") if text.text in ("canary", "control")]
    assert len(places) == 2
    assert abs(places[0] - places[1]) >= 13


def test_names_cannot_break_out_of_the_drawing() -> None:
    evil = "<script>alert(1)</script>\"'"
    plot = plot_of(evil, measured(changes=[{"target": evil, "at": stamp(1)}]))
    root = ET.fromstring(svg(plot))  # noqa: S314
    assert root.findall(f".//{SVG}script") == []
    assert root.find(f"{SVG}title").text == evil  # type: ignore[union-attr]


def test_nothing_measured_is_said_and_still_drawn() -> None:
    plot = plot_of("errors", {})
    assert "Canary: no data. Control: no data." in describe(plot)
    ET.fromstring(svg(plot))  # noqa: S314


def test_plain_form_is_the_same_plot() -> None:
    plot = plot_of("errors", measured())
    assert Plot.model_validate(plot.model_dump(mode="json")) == plot


def gauge() -> dict[str, Any]:
    """What is kept of a gauge: ten looks of a minute before, ten after; one host's control was not seen at first."""
    before, after = ([T0.timestamp() + 60.0 * look for look in looks] for looks in (range(-9, 1), range(1, 11)))
    quiet = [-2.0] * 10
    return {
        "series": [],
        "changes": [{"target": "a", "at": stamp(0)}],
        "looks": {
            "kind": "gauge",
            "before": {"ends": before, "targets": {"a": {"values": [4.0] * 10}}},
            "canary": {"ends": after, "targets": {"a": {"values": [8.0] * 9 + [None]}}},
            "control_before": {"ends": before, "targets": {"c": {"values": [None] * 10}, "d": {"values": quiet}}},
            "control": {"ends": after, "targets": {"c": {"values": [6.0] * 10}, "d": {"values": quiet}}},
        },
    }


def test_gauge_is_drawn_from_its_looks_before_and_since_the_change() -> None:
    plot = plot_of("queue", gauge())
    assert plot.unit == "level"
    assert [point.value for point in plot.canary if point.value is not None] == [4.0] * 10 + [8.0] * 9
    assert [point.value for point in plot.control] == [-2.0] * 10 + [2.0] * 10
    assert "Level over time, 1 change marked. Canary: 4 at first, 8 at last" in describe(plot)


def test_gauge_below_zero_stays_within_the_frame() -> None:
    root = ET.fromstring(svg(plot_of("queue", gauge())))  # noqa: S314
    heights = [float(dot.attrib["cy"]) for dot in root.findall(f"{SVG}circle")]
    assert min(heights) >= 26
    assert max(heights) <= 186
    assert {"-2", "3", "8"} <= {text.text for text in root.findall(f"{SVG}text")}


def test_gauge_that_nobody_measured_is_said() -> None:
    looks = {side: {"ends": [], "targets": {}} for side in ("canary", "control", "before", "control_before")}
    plot = plot_of("queue", {"looks": {"kind": "gauge", **looks}})
    assert (plot.canary, plot.control) == ((), ())
