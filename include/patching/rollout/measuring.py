"""Measuring a wave: counter increases of canary, control and before, from the metric source of a check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from pydantic import ConfigDict

from patching.canary.kept import as_json
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.loggamma import Floats
from patching.canary.panel import panel_of
from patching.canary.series import complete_at
from patching.canary.sides import FIRST_LOOK, Measurements
from patching.errors import MetricSourceUnavailable
from patching.ledger.base import TargetRow
from patching.placeholders import fill
from patching.plan.document import Plan
from patching.policy import Check, Metric, PrometheusCheck
from patching.policy_metrics import HttpJsonCheck
from patching.rollout.polling import PolledValues
from patching.rollout.site import Site
from patching.sources.base import GaugeSource, MetricSource, Sample
from patching.sources.sent import SentQuery, noted
from patching.target import Target
from patching.value import JsonValue, Value

SERIES_POINTS = 24

SOAK_LOOKS = 60
"""Looks of a soak: enough to say when it went wrong, few enough to keep in the ledger."""

MOST_LOOKS = 240
SHORTEST_LOOK = 1.0

Matching = dict[str, dict[str, str]]


class Measured(Value):
    """What was read for one check: everything that the judge looks at, and points for the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    evidence: Measurements | LevelMeasurements
    points: tuple[Sample, ...] = ()
    changes: tuple[tuple[str, str], ...] = ()
    queries: tuple[SentQuery, ...] = ()

    def document(self) -> dict[str, JsonValue]:
        """Give the plain JSON that the ledger keeps, the report draws, and ``patching judge --rollout`` reads."""
        canaries = set(self.evidence.canary.targets)
        series: dict[str, list[list[JsonValue]]] = {}
        for point in self.points:
            series.setdefault(point.target, []).append([point.end.isoformat(), point.errors, point.requests])
        return {
            "series": [
                {"target": name, "role": "canary" if name in canaries else "control", "points": points}
                for name, points in sorted(series.items())
            ],
            "changes": [{"target": name, "at": at} for name, at in self.changes],
            "queries": [query.model_dump(mode="json") for query in self.queries],
            "looks": as_json(self.evidence),
        }


def called(target: Target, rules: Metric) -> dict[str, str]:
    """Say how a target is found in a metric; one that is asked itself needs nothing."""
    return {} if isinstance(rules, HttpJsonCheck) else matchers(target, rules.series)


def matchers(target: Target, series: dict[str, str]) -> dict[str, str]:
    """Say how a target is found in the metrics: the policy's ``series`` with its placeholders filled."""
    return {label: fill(pattern, target) for label, pattern in series.items()}


def counters(rules: PrometheusCheck) -> tuple[str, str, bool]:
    """Give the selectors of errors and requests, and whether the first one counts what is good.

    Raises MetricSourceUnavailable for a gauge, which has none.
    """
    failed = rules.errors if rules.errors is not None else rules.good
    if failed is None or rules.requests is None:
        raise MetricSourceUnavailable("the check measures a gauge, which has no counters")
    return failed, rules.requests, rules.errors is None


def inverted(sample: Sample) -> Sample:
    """Turn good requests into errors: what is not good."""
    if sample.requests is None:
        return sample
    return sample.model_copy(update={"errors": max(0.0, sample.requests - (sample.errors or 0.0))})


@dataclass(frozen=True)
class Spans:
    """The time of one wave: changes from ``begun`` to ``settled``, the soak until ``now``, and the time before.

    A look is a sixtieth of the planned ``soak``, a ``scrape``, or a 240th of the ``horizon`` until which a finished
    rollout is watched, whichever is longest. So it is the same whenever it is asked, which one e-process needs, and as
    long before as after: placebo windows are as long as the first evaluation. All in seconds; of 240
    looks at most: what a wave shows long after its soak is not its verdict. Without a soak there is one evaluation.
    """

    begun: datetime
    settled: datetime
    now: datetime
    soak: float
    before: float
    scrape: float = 0.0
    horizon: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the last change."""
        return max((self.now - self.settled).total_seconds(), 1e-3)

    @property
    def look(self) -> float:
        """Length of a look in seconds."""
        once = 0.0 if self.soak or self.horizon else self.elapsed
        return max(SHORTEST_LOOK, self.soak / SOAK_LOOKS, self.scrape, max(self.horizon, once) / MOST_LOOKS)

    @property
    def complete(self) -> bool:
        """Whether the first evaluation is complete: nothing may be judged before, unless it is judged once only."""
        return self.elapsed >= FIRST_LOOK * self.look - 1e-6

    @property
    def after(self) -> tuple[datetime, datetime, int]:
        """Start, end and number of the whole looks since the last change."""
        number = min(int(self.elapsed / self.look + 1e-9), MOST_LOOKS)
        end = self.settled + timedelta(seconds=number * self.look) if number else self.now
        return self.settled, end, max(number, 1)

    @property
    def earlier(self) -> tuple[datetime, datetime, int]:
        """Start, end and number of the looks before the first change."""
        number = min(max(int(self.before / self.look + 1e-9), 1), MOST_LOOKS)
        length = min(self.before, number * self.look)
        return self.begun - timedelta(seconds=length), self.begun, number


async def measure(
    site: Site,
    plan: Plan,
    check: Check,
    applied: Sequence[TargetRow],
    control: Sequence[str],
    of: Sequence[str] | None = None,
) -> Measured:
    """Read one check's metric for patched and control targets in the same span, and for the time before.

    The span runs from the end of the last change to the last moment whose data are complete. ``of`` are the targets
    that are measured, where those are not the patched ones themselves. Raises MetricSourceUnavailable.
    """
    spans = spans_of(plan, check, applied, site.clock())
    return await measure_spans(site, plan, check, applied, control, spans, of)


def lag(scrape: float) -> timedelta:
    """Say how long after a moment its data are complete; nothing where the time between samples is not known."""
    return timedelta(seconds=complete_at(0.0, scrape) if scrape else 0.0)


def spans_of(
    plan: Plan, check: Check, applied: Sequence[TargetRow], now: datetime, horizon: datetime | None = None
) -> Spans:
    """Give the spans of one check of a wave, or of a finished rollout that is watched until ``horizon``."""
    wave, scrape = plan.wave(applied[0].wave), plan.scrape(check.name)
    settled = max(row.ended_at for row in applied if row.ended_at is not None)
    return Spans(
        begun=min(row.began_at for row in applied if row.began_at is not None),
        settled=settled,
        now=max(now - lag(scrape), settled),
        soak=wave.soak if wave is not None else 0.0,
        before=check.metric.before if check.metric is not None else 0.0,
        scrape=scrape,
        horizon=(horizon - settled).total_seconds() if horizon is not None else 0.0,
    )


async def measure_spans(
    site: Site,
    plan: Plan,
    check: Check,
    applied: Sequence[TargetRow],
    control: Sequence[str],
    spans: Spans,
    of: Sequence[str] | None = None,
) -> Measured:
    """Read one check's metric for patched and control targets in given spans; raises MetricSourceUnavailable."""
    with noted() as sent:
        measured = await _measured(site, plan, check, applied, control, spans, of)
    return measured.model_copy(update={"queries": tuple(sent)})


async def _measured(
    site: Site,
    plan: Plan,
    check: Check,
    applied: Sequence[TargetRow],
    control: Sequence[str],
    spans: Spans,
    of: Sequence[str] | None,
) -> Measured:
    rules = check.metric
    if rules is None:
        raise ValueError(f'check "{check.name}" has no metrics')
    found = {item.target.name: called(item.target, rules) for item in plan.targets}
    measured = [row.target for row in applied] if of is None else of
    sides = [{name: found[name] for name in names} for names in (measured, control)]
    # Where a job began: what it did shows in the metrics before it has ended.
    jobs = tuple((row.target, row.began_at.isoformat()) for row in applied if row.began_at is not None)
    if check.prometheus is None or rules.gauge:
        source, query = gauge_of(site, plan, check)
        return Measured(evidence=await _levels(source, query, sides, spans), changes=jobs)
    counted = site.metrics(check.prometheus.connection)
    evidence = await _counts(counted, check.prometheus, sides, spans)
    failed, asked, invert = counters(check.prometheus)
    lead = spans.begun - (spans.now - spans.begun)
    points = await counted.points({**sides[0], **sides[1]}, failed, asked, lead, spans.now, SERIES_POINTS)
    return Measured(evidence=evidence, points=tuple(inverted(one) if invert else one for one in points), changes=jobs)


def gauge_of(site: Site, plan: Plan, check: Check) -> tuple[GaugeSource, str]:
    """Give where the values of a check's gauge are read, and by which query; raises ConnectionMissing."""
    kept = kept_gauge(site, check)
    if kept is not None:
        return kept
    if check.http_json is not None:
        return PolledValues(site.ledger, plan.rollout, check.name), ""
    raise ValueError(f'check "{check.name}" has no gauge')


def kept_gauge(site: Site, check: Check) -> tuple[GaugeSource, str] | None:
    """Give the source that has the past of a check's gauge, and the query; None where there is none.

    Raises ConnectionMissing.
    """
    if check.sql is not None:
        return site.databases(check.sql.connection), check.sql.query
    if check.prometheus is not None and check.prometheus.query is not None:
        return site.metrics(check.prometheus.connection), check.prometheus.query
    return None


async def _counts(
    source: MetricSource, rules: PrometheusCheck, sides: Sequence[Matching], spans: Spans
) -> Measurements:
    """Read increases look by look; a target without fresh data at the end has none at all."""
    failed, asked, invert = counters(rules)
    wanted = {**sides[0], **sides[1]}
    totals = await source.increases(wanted, failed, asked, spans.settled, spans.now)
    gone = {sample.target for sample in totals if sample.requests is None}
    after = await source.points(wanted, failed, asked, *spans.after)
    before = await source.points(wanted, failed, asked, *spans.earlier)
    after = [one.model_copy(update={"errors": None, "requests": None}) if one.target in gone else one for one in after]
    if invert:
        after, before = [inverted(one) for one in after], [inverted(one) for one in before]
    now, then = panel_of(after), panel_of(before)
    return Measurements(now.of(sides[0]), now.of(sides[1]), then.of(sides[0]), then.of(sides[1]))


async def _levels(source: GaugeSource, query: str, sides: Sequence[Matching], spans: Spans) -> LevelMeasurements:
    """Read a gauge's values look by look."""
    wanted = {**sides[0], **sides[1]}
    found = []
    for start, end, looks in (spans.after, spans.earlier):
        values = await source.values(wanted, query, start, end, looks)
        ends = np.linspace(start.timestamp(), end.timestamp(), looks + 1)[1:]
        found.append(Levels(tuple(values), ends, _table(list(values.values()), looks)))
    now, then = found
    return LevelMeasurements(
        now.of(tuple(sides[0])), now.of(tuple(sides[1])), then.of(tuple(sides[0])), then.of(tuple(sides[1]))
    )


def _table(rows: Sequence[Sequence[float | None]], looks: int) -> Floats:
    """Arrange rows of values as an array, NaN where there is none."""
    plain = [[math.nan if value is None else value for value in row] for row in rows]
    return np.array(plain, dtype=np.float64).reshape(len(rows), looks)
