"""Change metrics: which change did this, as Prometheus can be asked; pure.

The rollout's id is the change id. Only rollouts that are open or were at work within KEPT are shown, and of each target
only its latest change, so that a query that joins on ``target`` has one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from patching.ledger.base import RolloutRow, TargetRow
from patching.report.rollout_view import shown_as
from patching.rollout.states import FINAL

KEPT = timedelta(hours=24)
MOST_TARGETS = 5000
"""The most targets with series of their own; the number of those left out is a metric."""

Shown = tuple[RolloutRow, Sequence[TargetRow]]


def shown_in_metrics(row: RolloutRow, now: datetime) -> bool:
    """Say whether a rollout is open, or was written to within KEPT."""
    return row.state not in FINAL or now - row.updated_at <= KEPT


def change_metrics(rollouts: Sequence[Shown], *, stopped: bool) -> bytes:
    """Write rollouts, waves and the latest change of each target in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families([_rollouts(rollouts), _waves(rollouts), *_targets(rollouts), _stopped(stopped)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _rollouts(rollouts: Sequence[Shown]) -> Metric:
    labels = ["change_id", "policy", "state", "emergency"]
    family = GaugeMetricFamily("patching_rollout_info", "A rollout and its state; always 1.", labels=labels)
    for row, _ in rollouts:
        family.add_metric([row.id, row.policy, row.state.value, str(row.emergency).lower()], 1)
    return family


def _waves(rollouts: Sequence[Shown]) -> Metric:
    labels = ["change_id", "policy", "wave", "outcome"]
    family = GaugeMetricFamily("patching_wave_targets", "Targets of a wave by how they stand.", labels=labels)
    for row, targets in rollouts:
        counts = Counter((item.wave, shown_as(item)) for item in targets)
        for (wave, outcome), number in sorted(counts.items()):
            family.add_metric([row.id, row.policy, str(wave), outcome], number)
    return family


def _targets(rollouts: Sequence[Shown]) -> list[Metric]:
    latest: dict[str, tuple[datetime, RolloutRow, TargetRow]] = {}
    for row, targets in rollouts:
        for item in targets:
            if item.began_at is None:
                continue
            if item.target not in latest or item.began_at > latest[item.target][0]:
                latest[item.target] = (item.began_at, row, item)
    newest = sorted(latest.values(), key=lambda one: one[0], reverse=True)
    labels = ["target", "change_id", "policy", "wave", "outcome"]
    info = GaugeMetricFamily("patching_target_change_info", "The latest change of a target; always 1.", labels=labels)
    began = GaugeMetricFamily(
        "patching_target_change_timestamp_seconds",
        "When the latest change of a target began, by the ledger's clock.",
        labels=["target", "change_id"],
    )
    for at, row, item in newest[:MOST_TARGETS]:
        info.add_metric([item.target, row.id, row.policy, str(item.wave), shown_as(item)], 1)
        began.add_metric([item.target, row.id], at.timestamp())
    left_out = GaugeMetricFamily(
        "patching_targets_left_out",
        f"Changed targets without series: only the latest {MOST_TARGETS} have.",
        value=max(len(newest) - MOST_TARGETS, 0),
    )
    return [info, began, left_out]


def _stopped(stopped: bool) -> Metric:
    return GaugeMetricFamily("patching_stopped", "1 while the stop switch is on.", value=int(stopped))
