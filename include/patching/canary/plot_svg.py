"""A plot as one small, self-contained SVG; pure.

Blue, solid and filled dots against orange, dashed and hollow ones (Okabe and Ito's palette): the two differ without
colour, in print and for colour-blind readers, and are labelled at the line. What is tolerated is dotted, without dots.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from math import inf

from patching.canary.plot import Mark, Plot, Point

CANARY_COLOUR, CONTROL_COLOUR, MARK_COLOUR = "#0072B2", "#D55E00", "#595959"
LEFT, RIGHT, TOP, BOTTOM = 52.0, 76.0, 26.0, 34.0
LEAST_TOP = 0.01
MOST_MARKS = 40


def svg(plot: Plot, width: float = 640.0, height: float = 220.0) -> str:
    """Draw a plot as a self-contained SVG with a title and a description for readers who cannot see it."""
    frame = _Frame(plot, width, height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        'aria-labelledby="plot-title plot-desc" font-family="system-ui, sans-serif" font-size="11">',
        f'<title id="plot-title">{escape(plot.title)}</title>',
        f'<desc id="plot-desc">{escape(describe(plot))}</desc>',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        f'<text x="{LEFT:g}" y="15" font-weight="600" fill="#111111">{escape(plot.title)}</text>',
        *_axes(frame),
        *_marks(frame, plot.changes),
        *_bound(frame, plot.tolerated),
        *_line(frame, "control", plot.control, CONTROL_COLOUR, dashed=True),
        *_line(frame, "canary", plot.canary, CANARY_COLOUR, dashed=False),
        *_labels(frame, plot),
        "</svg>",
    ]
    return "\n".join(parts)


def describe(plot: Plot) -> str:
    """Say in words what the plot shows."""
    names = f"{len(plot.changes)} change{'s' if len(plot.changes) != 1 else ''}"
    said = [f"{'Error share' if plot.unit == 'share' else 'Level'} over time, {names} marked."]
    for name, points in (("Canary", plot.canary), ("Control", plot.control)):
        known = [point for point in points if point.value is not None]
        if not known:
            said.append(f"{name}: no data.")
            continue
        highest = max(known, key=lambda point: -inf if point.value is None else point.value)
        said.append(
            f"{name}: {_said(plot, known[0].value)} at first, {_said(plot, known[-1].value)} at last, "
            f"highest {_said(plot, highest.value)} at {highest.at:%H:%M:%S}."
        )
    if plot.tolerated:
        said.append(f"Tolerated of the canary: {_said(plot, plot.tolerated[-1].value)} at last.")
    return " ".join(said)


class _Frame:
    """Maps moments and shares to the drawing's coordinates."""

    def __init__(self, plot: Plot, width: float, height: float) -> None:
        points = [*plot.canary, *plot.control, *plot.tolerated]
        moments = [point.at.timestamp() for point in points] + [mark.at.timestamp() for mark in plot.changes]
        self.start, self.end = (min(moments), max(moments)) if moments else (0.0, 1.0)
        self.end = max(self.end, self.start + 1.0)
        self.moments = [point.at for point in points]
        values = [point.value for point in points if point.value is not None]
        self.plot = plot
        self.bottom = min([0.0, *values])
        self.top = max([LEAST_TOP if plot.unit == "share" else 0.0, *values])
        self.top = self.top if self.top > self.bottom else self.bottom + 1.0
        self.width, self.height = width, height

    def x(self, at: datetime) -> float:
        return LEFT + (at.timestamp() - self.start) / (self.end - self.start) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        part = (value - self.bottom) / (self.top - self.bottom)
        return self.height - BOTTOM - part * (self.height - TOP - BOTTOM)


def _axes(frame: _Frame) -> list[str]:
    right, base = frame.width - RIGHT, frame.height - BOTTOM
    parts = []
    for value in (frame.bottom, (frame.bottom + frame.top) / 2, frame.top):
        y = frame.y(value)
        parts.append(f'<line x1="{LEFT:g}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end" fill="#333333">{_said(frame.plot, value)}</text>'
        )
    if frame.moments:
        for at, anchor in ((min(frame.moments), "start"), (max(frame.moments), "end")):
            x = frame.x(at)
            text = f'<text x="{x:.1f}" y="{base + 16:.1f}" text-anchor="{anchor}" fill="#333333">{at:%H:%M:%S}</text>'
            parts.append(text)
    return parts


def _marks(frame: _Frame, marks: Sequence[Mark]) -> list[str]:
    parts = []
    for mark in marks[:MOST_MARKS]:
        x, base = frame.x(mark.at), frame.height - BOTTOM
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP:g}" y2="{base:.1f}" stroke="{MARK_COLOUR}" '
            f'stroke-dasharray="2 3"><title>{escape(mark.label)} changed {mark.at:%H:%M:%S}</title></line>'
        )
    if marks:
        hidden = f", first {MOST_MARKS} drawn" if len(marks) > MOST_MARKS else ""
        text = f"{len(marks)} changed{hidden}"
        parts.append(
            f'<text x="{frame.x(marks[0].at):.1f}" y="{frame.height - 4:.1f}" text-anchor="middle" '
            f'fill="{MARK_COLOUR}">▲ {text}</text>'
        )
    return parts


def _line(frame: _Frame, name: str, points: Sequence[Point], colour: str, *, dashed: bool) -> list[str]:
    """Draw a group: one path, broken where there are no data, and a dot a point."""
    path, dots, pen = [], [], "M"
    for point in points:
        if point.value is None:
            pen = "M"
            continue
        x, y = frame.x(point.at), frame.y(point.value)
        path.append(f"{pen}{x:.1f} {y:.1f}")
        tip = f"{name} {point.at:%H:%M:%S}: {_said(frame.plot, point.value)}"
        if point.errors is not None and point.requests is not None:
            tip += f", {point.errors:.0f} of {point.requests:.0f}"
        fill = "#ffffff" if dashed else colour
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{fill}" stroke="{colour}">'
        dots.append(f"{dot}<title>{tip}</title></circle>")
        pen = "L"
    if not path:
        return []
    dash = ' stroke-dasharray="6 3"' if dashed else ""
    return [f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>', *dots]


def _bound(frame: _Frame, points: Sequence[Point]) -> list[str]:
    places = [f"{frame.x(point.at):.1f} {frame.y(point.value):.1f}" for point in points if point.value is not None]
    if not places:
        return []
    tip = f"tolerated of the canary's mean: {_said(frame.plot, points[-1].value)} at last"
    return [
        f'<path d="M{"L".join(places)}" fill="none" stroke="{MARK_COLOUR}" stroke-width="2" stroke-linecap="round" '
        f'stroke-dasharray="0 5"><title>{tip}</title></path>'
    ]


def _labels(frame: _Frame, plot: Plot) -> list[str]:
    """Name each line at its end, far enough apart to be read."""
    found = []
    lines = (
        ("canary", plot.canary, CANARY_COLOUR),
        ("control", plot.control, CONTROL_COLOUR),
        ("tolerated", plot.tolerated, MARK_COLOUR),
    )
    for name, points, colour in lines:
        known = [point for point in points if point.value is not None]
        if known:
            found.append((frame.y(known[-1].value or 0.0), name, colour))
        elif points:
            found.append((frame.y(frame.bottom), f"{name}: no data", colour))
    found.sort(reverse=True)
    for lower, upper in pairwise(range(len(found))):
        found[upper] = (min(found[upper][0], found[lower][0] - 13), *found[upper][1:])
    x = frame.width - RIGHT + 8
    return [f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}</text>' for y, name, colour in found]


def _said(plot: Plot, value: float | None) -> str:
    if plot.unit == "share":
        return _percent(value)
    return "?" if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.2g} %" if share < 0.995 else "100 %"
