"""Measuring a wave: counter increases of canary, control and before, from the metric source of a check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from patching.errors import MetricSourceUnavailable
from patching.ledger.base import TargetRow
from patching.plan.document import Plan
from patching.policy import Check, PrometheusCheck
from patching.rollout.site import Site
from patching.sources.base import Sample
from patching.target import Target
from patching.value import JsonValue, Value

SERIES_POINTS = 24


class Measured(Value):
    """What was read for one check: totals per target over the soak, and before it, and points for the picture."""

    canary: tuple[Sample, ...]
    control: tuple[Sample, ...]
    before: tuple[Sample, ...]
    control_before: tuple[Sample, ...] = ()
    points: tuple[Sample, ...] = ()
    changes: tuple[tuple[str, str], ...] = ()

    def document(self) -> dict[str, JsonValue]:
        """Give the plain JSON that the ledger keeps, the report draws and the page shows."""
        roles = {sample.target: "canary" for sample in self.canary}
        series: dict[str, list[list[JsonValue]]] = {}
        for point in self.points:
            series.setdefault(point.target, []).append([point.end.isoformat(), point.errors, point.requests])
        return {
            "series": [
                {"target": name, "role": roles.get(name, "control"), "points": points}
                for name, points in sorted(series.items())
            ],
            "changes": [{"target": name, "at": at} for name, at in self.changes],
            "totals": {
                "canary": [sample.model_dump(mode="json") for sample in self.canary],
                "control": [sample.model_dump(mode="json") for sample in self.control],
                "before": [sample.model_dump(mode="json") for sample in self.before],
                "control_before": [sample.model_dump(mode="json") for sample in self.control_before],
            },
        }


def matchers(target: Target, series: dict[str, str]) -> dict[str, str]:
    """Say how a target is found in the metrics: the policy's ``series`` with its placeholders filled."""
    names = {"name": target.name, "address": target.address}
    names |= {f"label:{key}": value for key, value in target.labels.items()}
    filled = {}
    for label, pattern in series.items():
        text = pattern
        for name, value in names.items():
            text = text.replace("{" + name + "}", value)
        filled[label] = text
    return filled


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


async def measure(
    site: Site, plan: Plan, check: Check, applied: Sequence[TargetRow], control: Sequence[str]
) -> Measured:
    """Read one check's counters for patched and control targets in the same span, and for the time before.

    The span runs from the end of the last change to now. Raises MetricSourceUnavailable.
    """
    rules = check.prometheus
    if rules is None:
        raise ValueError(f'check "{check.name}" has no metrics')
    source = site.metrics(rules.connection)
    patched = [row.target for row in applied]
    found = {item.target.name: matchers(item.target, rules.series) for item in plan.targets}
    failed, asked, invert = counters(rules)
    started = max(row.ended_at for row in applied if row.ended_at is not None)
    begun = min(row.began_at for row in applied if row.began_at is not None)
    now = site.clock()
    names = [*patched, *control]
    wanted = {name: found[name] for name in names}
    during = await source.increases(wanted, failed, asked, started, now)
    earlier = begun - timedelta(seconds=rules.before)
    before = await source.increases(wanted, failed, asked, earlier, begun)
    lead = begun - (now - begun)
    points = await source.points(wanted, failed, asked, lead, now, SERIES_POINTS)
    if invert:
        during, before, points = ([inverted(sample) for sample in one] for one in (during, before, points))
    ended = tuple((row.target, row.ended_at.isoformat()) for row in applied if row.ended_at is not None)
    return Measured(
        canary=tuple(sample for sample in during if sample.target in set(patched)),
        control=tuple(sample for sample in during if sample.target in set(control)),
        before=tuple(sample for sample in before if sample.target in set(patched)),
        control_before=tuple(sample for sample in before if sample.target in set(control)),
        points=tuple(points),
        changes=ended,
    )
