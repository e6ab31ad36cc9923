"""Plot: canary and control of one metric over time, with the moments of the changes; drawn by ``plot_svg``; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from patching.value import JsonValue, Value

PARTS = 24


class Point(Value):
    """Error share, or level of a gauge, of one group in one part of the time; ``value`` None where there is none.

    ``errors`` and ``requests`` are what was counted; a gauge counts nothing.
    """

    at: datetime
    value: float | None
    errors: float | None = None
    requests: float | None = None


class Mark(Value):
    """One moment of a change."""

    at: datetime
    label: str


class Plot(Value):
    """What is drawn; its plain form (``model_dump``) is also what a page gets. ``unit`` is that of the values.

    ``tolerated`` is the most that is tolerated of the canary's mean (``plot_bound``).
    """

    schema_version: int = 2
    title: str
    unit: Literal["share", "level"] = "share"
    canary: tuple[Point, ...]
    control: tuple[Point, ...]
    tolerated: tuple[Point, ...] = ()
    changes: tuple[Mark, ...]


def plot_of(title: str, measured: Mapping[str, JsonValue]) -> Plot:
    """Make a plot from a ``measured`` document.

    It has ``changes`` [{target, at}, …] and ``series`` [{target, role, points [[at, errors, requests], …]}, …]; a gauge
    has its ``looks`` instead (``canary.kept``). Targets of one role are summed part by part, or averaged; one without
    data in a part is left out of it.
    """
    changes = [
        Mark(at=datetime.fromisoformat(str(item["at"])), label=str(item["target"]))
        for item in measured.get("changes", ())
    ]
    looks = measured.get("looks") or {}
    gauge = looks.get("kind") == "gauge"
    canary, control = _levels(looks) if gauge else _shares(measured.get("series", ()))
    return Plot(
        title=title,
        unit="level" if gauge else "share",
        canary=canary,
        control=control,
        changes=tuple(sorted(changes, key=lambda mark: mark.at)),
    )


def _shares(series: Sequence[Mapping[str, JsonValue]]) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    sums: dict[str, dict[datetime, list[float]]] = {
        role: defaultdict(lambda: [0.0, 0.0]) for role in ("canary", "control")
    }
    for one in series:
        for at, errors, requests in one["points"]:
            total = sums[str(one["role"])][datetime.fromisoformat(str(at))]
            if requests is not None:
                total[0] += errors or 0.0
                total[1] += requests
    return _points(sums["canary"]), _points(sums["control"])


def _levels(looks: Mapping[str, JsonValue]) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Give the mean level of each role in ``PARTS`` parts of the time: since the change, and as long before."""
    end = max((float(at) for at in looks["canary"]["ends"]), default=0.0)
    begun = max((float(at) for at in looks["before"]["ends"]), default=end)
    seen = {
        role: [
            (float(at), float(value))
            for side in sides
            for target in looks[side]["targets"].values()
            for at, value in zip(looks[side]["ends"], target["values"], strict=True)
            if value is not None and at > 2 * begun - end
        ]
        for role, sides in (("canary", ("before", "canary")), ("control", ("control_before", "control")))
    }
    moments = sorted({at for values in seen.values() for at, _ in values})
    if not moments:
        return (), ()
    parts = min(PARTS, len(moments))
    step = (moments[-1] - moments[0]) / parts or 1.0
    ends = [datetime.fromtimestamp(moments[0] + (part + 1) * step, UTC) for part in range(parts)]
    return _means(seen["canary"], moments[0], step, ends), _means(seen["control"], moments[0], step, ends)


def _means(
    values: Sequence[tuple[float, float]], start: float, step: float, ends: Sequence[datetime]
) -> tuple[Point, ...]:
    if not values:
        return ()
    found: list[list[float]] = [[] for _ in ends]
    for at, value in values:
        found[min(int((at - start) / step), len(ends) - 1)].append(value)
    return tuple(
        Point(at=at, value=sum(part) / len(part) if part else None) for at, part in zip(ends, found, strict=True)
    )


def _points(sums: Mapping[datetime, Sequence[float]]) -> tuple[Point, ...]:
    return tuple(
        Point(at=at, value=min(1.0, errors / requests) if requests > 0 else None, errors=errors, requests=requests)
        for at, (errors, requests) in sorted(sums.items())
    )
