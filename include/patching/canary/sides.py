"""Sides of a comparison: what was counted on changed and unchanged targets, and who of them has no traffic; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patching.sources.base import Sample

STARVED = 0.1
"""A target with less than this share of the requests that the reference's change predicts does not answer properly."""


@dataclass(frozen=True)
class Measurements:
    """Everything one check looks at: one Sample a target, of canary and control, now and before the change."""

    canary: Sequence[Sample]
    control: Sequence[Sample] = ()
    before: Sequence[Sample] = ()
    control_before: Sequence[Sample] = ()


@dataclass(frozen=True)
class Counts:
    """Errors and requests of one side, summed over its targets that have data."""

    errors: float
    requests: float
    hosts: int

    @property
    def share(self) -> float | None:
        """Error share, None without requests; at most 1."""
        return min(1.0, self.errors / self.requests) if self.requests > 0 else None


def counts(samples: Sequence[Sample]) -> Counts:
    """Sum the samples that have data."""
    known = [sample for sample in samples if sample.requests is not None and sample.requests > 0]
    return Counts(sum(s.errors or 0.0 for s in known), sum(s.requests or 0.0 for s in known), len(known))


def without_traffic(measured: Measurements) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the changed targets that fell silent or starve, and those that got no request before nor after.

    A target is expected to get the requests of its own before, scaled by what became of the control's.
    """
    before = {sample.target: sample.requests for sample in measured.before}
    expected = _expected_change(measured)
    silent, idle = [], []
    for sample in measured.canary:
        earlier = before.get(sample.target)
        if sample.requests == 0 and earlier == 0:
            idle.append(sample.target)
        elif not sample.requests or (earlier and sample.requests < STARVED * expected(sample, earlier)):
            silent.append(sample.target)
    return tuple(sorted(silent)), tuple(sorted(idle))


def _expected_change(measured: Measurements) -> Callable[[Sample, float], float]:
    """Predict a target's requests from its own before, the windows' lengths, and what became of the control's."""
    length = _seconds(measured.before)
    control = {sample.target for sample in measured.control if sample.requests is not None}
    now = sum(s.requests or 0.0 for s in measured.control if s.target in control)
    then = sum(s.requests or 0.0 for s in measured.control_before if s.target in control)
    now_rate = now / _seconds(measured.control)
    then_rate = then / _seconds(measured.control_before)
    change = min(1.0, now_rate / then_rate) if then_rate > 0 else 1.0

    def expected(sample: Sample, earlier: float) -> float:
        span = max((sample.end - sample.start).total_seconds(), 1e-9)
        return earlier * span / length * change

    return expected


def _seconds(samples: Sequence[Sample]) -> float:
    return max([(sample.end - sample.start).total_seconds() for sample in samples] + [1e-9])
