"""Counter samples → what was counted between two moments, without extrapolation; pure.

Prometheus's ``increase()`` extrapolates to the window's edges and loses a counter's first value, which for a short soak
and a fresh 5xx counter is most of the truth. So the raw samples are read, and counted here by these rules:

* An increase runs from the last sample at or before ``start`` to the last one at or before ``end``: real scrapes only.
* A value that falls is a restart: counting goes on from zero.
* A series that was not there when its process was scraped before began at zero, so its first value counts in full.
* A series that comes back after a gap in which its process restarted began at zero, too, even if its value is higher.
* Errors are cut at the newest scrape of the requests: numerator and denominator always come from the same scrapes.
* A target whose newest scrape is older than ``STALE_SCRAPES`` scrape intervals at ``end`` has no data (None).

Not seen: what a process counted between its last scrape and its end; and a restart after which every counter has
overtaken its old value within one scrape interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil
from statistics import median

from patching.sources.base import Sample

STALE_SCRAPES = 3
MINIMUM_GRACE = 2.0
LOOKBACK = 300.0


@dataclass(frozen=True)
class CounterSeries:
    """Raw samples of one counter, oldest first, as (epoch seconds, value); ``process`` names what is scraped."""

    process: tuple[str, ...]
    samples: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Process:
    """What all counters of one scraped process share: its scrapes, and the gaps in which it restarted."""

    scrapes: tuple[float, ...]
    restarts: tuple[tuple[float, float], ...]

    @property
    def interval(self) -> float | None:
        """Median distance of its scrapes in seconds, None for fewer than two."""
        return median(b - a for a, b in zip(self.scrapes, self.scrapes[1:], strict=False)) if self.scrapes[1:] else None

    def fresh(self, end: float) -> bool:
        """Whether the newest scrape is recent enough at ``end``; an unknown interval is not fresh."""
        if self.interval is None:
            return False
        return end - self.scrapes[-1] <= max(STALE_SCRAPES * self.interval, MINIMUM_GRACE)

    def restarted_between(self, earlier: float, later: float) -> bool:
        """Whether some counter of the process fell within a gap of another one."""
        return any(earlier <= before and after <= later for before, after in self.restarts)


def _process_of(series: Sequence[CounterSeries]) -> _Process:
    scrapes = sorted({at for one in series for at, _ in one.samples})
    restarts = [
        (earlier, later)
        for one in series
        # Without a job or instance label nobody can say that two counters live in one process.
        if any(one.process)
        for (earlier, high), (later, low) in zip(one.samples, one.samples[1:], strict=False)
        if low < high
    ]
    return _Process(tuple(scrapes), tuple(restarts))


def _steps(series: CounterSeries, process: _Process) -> list[tuple[float, float]]:
    """Give (moment, increase seen at that scrape) for one counter, by the rules of this module."""
    steps = []
    previous: tuple[float, float] | None = None
    for at, value in series.samples:
        if previous is None:
            steps.append((at, value if process.scrapes[0] < at else 0.0))
        elif value < previous[1] or process.restarted_between(previous[0], at):
            steps.append((at, value))
        else:
            steps.append((at, value - previous[1]))
        previous = (at, value)
    return steps


def _cut(series: CounterSeries, end: float) -> CounterSeries:
    return CounterSeries(series.process, tuple(sample for sample in series.samples if sample[0] <= end))


def _by_process(series: Iterable[CounterSeries]) -> dict[tuple[str, ...], list[CounterSeries]]:
    groups: dict[tuple[str, ...], list[CounterSeries]] = defaultdict(list)
    for one in series:
        if one.samples:
            groups[one.process].append(one)
    return groups


@dataclass(frozen=True)
class Steps:
    """Increases of one target scrape by scrape: errors and requests as (moment, increase); ``fresh`` at the end."""

    errors: tuple[tuple[float, float], ...]
    requests: tuple[tuple[float, float], ...]
    fresh: bool


def steps_of(errors: Sequence[CounterSeries], requests: Sequence[CounterSeries], end: float) -> Steps:
    """Turn a target's raw series into its increases, scrape by scrape, up to ``end`` (epoch seconds)."""
    asked = _by_process(_cut(one, end) for one in requests)
    failed = _by_process(_cut(one, end) for one in errors)
    error_steps: list[tuple[float, float]] = []
    request_steps: list[tuple[float, float]] = []
    fresh = False
    for name, counters in asked.items():
        newest = max(one.samples[-1][0] for one in counters)
        failing = [kept for kept in (_cut(one, newest) for one in failed.get(name, ())) if kept.samples]
        process = _process_of([*counters, *failing])
        fresh = fresh or process.fresh(end)
        request_steps += [step for one in counters for step in _steps(one, process)]
        error_steps += [step for one in failing for step in _steps(one, process)]
    return Steps(tuple(sorted(error_steps)), tuple(sorted(request_steps)), fresh)


def count(
    target: str, errors: Sequence[CounterSeries], requests: Sequence[CounterSeries], start: float, end: float
) -> Sample:
    """Count a target's errors and requests between two moments (epoch seconds).

    No request series, or only stale ones, is no data (None, None); no error series beside living requests is zero.
    """
    span = {"start": datetime.fromtimestamp(start, UTC), "end": datetime.fromtimestamp(end, UTC)}
    steps = steps_of(errors, requests, end)
    if not steps.fresh:
        return Sample(target=target, errors=None, requests=None, **span)
    return Sample(
        target=target,
        errors=sum(more for at, more in steps.errors if at > start),
        requests=sum(more for at, more in steps.requests if at > start),
        **span,
    )


def points(
    target: str,
    errors: Sequence[CounterSeries],
    requests: Sequence[CounterSeries],
    start: float,
    end: float,
    number: int,
) -> list[Sample]:
    """Split a span into ``number`` equal parts for a picture; a part without a scrape has no data (None)."""
    steps = steps_of(errors, requests, end)
    width = (end - start) / number
    asked: list[float | None] = [None] * number
    failed = [0.0] * number
    for at, more in steps.requests:
        index = _part(at, start, width)
        if 0 <= index < number:
            asked[index] = (asked[index] or 0.0) + more
    for at, more in steps.errors:
        index = _part(at, start, width)
        if 0 <= index < number:
            failed[index] += more
    edges = [datetime.fromtimestamp(start + index * width, UTC) for index in range(number + 1)]
    return [
        Sample(
            target=target,
            start=edges[index],
            end=edges[index + 1],
            errors=None if asked[index] is None else failed[index],
            requests=asked[index],
        )
        for index in range(number)
    ]


def _part(at: float, start: float, width: float) -> int:
    """Give the part that a moment belongs to: those after its start, up to and with its end."""
    return ceil((at - start) / width - 1e-9) - 1


def scrape_interval(series: Iterable[CounterSeries]) -> float | None:
    """Give the seconds between scrapes: the longest of the series' medians; None where no series has two samples."""
    times = [[at for at, _ in one.samples] for one in series]
    gaps = [median(later - earlier for earlier, later in pairwise(at)) for at in times if len(at) > 1]
    return max(gaps, default=None)


def complete_at(end: float, interval: float) -> float:
    """Say from when on the data up to ``end`` are complete: a scrape may take one interval, and is then stored.

    Asking earlier is safe, but may miss the last scrape.
    """
    return end + interval + 1.0
