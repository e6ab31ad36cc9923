"""Replay: recorded series of a rollout → the verdict of every wave, by the same judge as live; pure.

Counters go by the rules of ``canary.series`` (restarts, births, gaps), scrape by scrape; a look is one median scrape
interval. Probes cannot be replayed and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median

import numpy as np

from patching.canary.judge import judge_wave
from patching.canary.kept import judge_metric
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.loggamma import Floats
from patching.canary.panel import Panel
from patching.canary.recorded import Many, Recording
from patching.canary.series import CounterSeries, steps_of
from patching.canary.sides import Measurements
from patching.canary.verdicts import CheckVerdict, WaveVerdict
from patching.canary.weights import replayed_looks, share_of
from patching.policy import Check, Policy
from patching.rollout.answers import VerdictName

MOST_LOOKS = 5_000
BLINK = 1e-6


@dataclass(frozen=True)
class Looks:
    """Looks of one phase: ``start`` and the ``ends`` of each, epoch seconds."""

    start: float
    ends: Floats


def replay(policy: Policy, recording: Recording) -> dict[int, WaveVerdict]:
    """Judge every recorded wave by the policy's metric checks; a check that was not recorded is inconclusive."""
    checks = [check for check in policy.spec.verify if check.metric is not None]
    hosts = {wave: recording.hosts(wave, "canary") for wave in recording.numbers}
    looks = replayed_looks(policy, [len(names) for names in hosts.values()])
    return {
        wave: judge_wave(
            [_judged(check, recording, wave, share_of(check, checks, looks)) for check in checks],
            [],
            checks,
            hosts[wave],
        )
        for wave in recording.numbers
    }


def worst(verdicts: Sequence[VerdictName]) -> VerdictName:
    """Give the verdict that decides: undo, then hold, then promote; nothing judged is inconclusive."""
    for name in (VerdictName.UNDO, VerdictName.HOLD, VerdictName.INCONCLUSIVE, VerdictName.PROMOTE):
        if name in verdicts:
            return name
    return VerdictName.INCONCLUSIVE


def _judged(check: Check, recording: Recording, wave: int, share: float) -> CheckVerdict:
    rules = check.metric
    if rules is None:
        raise ValueError(f'check "{check.name}" has no metrics')
    wanted = [check.name] if rules.gauge else [f"{check.name}_requests"]
    if not any(name in recording.metrics(wave) for name in wanted):
        known = ", ".join(recording.metrics(wave)) or "none"
        return CheckVerdict.unavailable(check, f"{wanted[0]} was not recorded in wave {wave} (there are: {known})")
    phases = _phases(recording, wave, wanted[0])
    if phases is None:
        return CheckVerdict.unavailable(check, f"nothing was recorded after wave {wave} began; no data is never a pass")
    if rules.gauge:
        return judge_metric(check, _levels(recording, wave, check.name, phases), share)
    good = check.prometheus is not None and check.prometheus.errors is None
    return judge_metric(check, _counts(recording, wave, check.name, phases, good=good), share)


def _phases(recording: Recording, wave: int, metric: str) -> tuple[Looks, Looks] | None:
    """Lay looks of one scrape interval over the time before and after; None without any point after."""
    after = recording.span(wave, "after")
    if after is None:
        return None
    before = recording.span(wave, "before")
    start = before[1] if before is not None else after[0]
    step = _interval(recording, wave, metric) or max(after[1] - start, 1.0)
    step = max(step, (after[1] - start) / MOST_LOOKS)
    looks = _grid(start, after[1], step)
    if before is None:
        return Looks(start, np.empty(0)), looks
    # The first point before is a counter's base line, so that looks begin behind it.
    return _grid(before[0], before[1], max(step, (before[1] - before[0]) / MOST_LOOKS)), looks


def _grid(start: float, end: float, step: float) -> Looks:
    """Divide a span into equal looks that end at its end, each a step long or a little more."""
    number = max(1, ceil((end - start) / step - 0.5)) if end > start else 0
    return Looks(start, np.linspace(start, end, number + 1)[1:])


def _interval(recording: Recording, wave: int, metric: str) -> float | None:
    gaps = [
        later - earlier
        for role in ("canary", "control")
        for many in recording.series(wave, metric, role).values()
        for points in many
        for (earlier, _), (later, _) in pairwise(points)
    ]
    return median(gaps) if gaps else None


def _counts(recording: Recording, wave: int, name: str, phases: tuple[Looks, Looks], *, good: bool) -> Measurements:
    part = "good" if good else "errors"
    panels = []
    for looks, role in ((phases[1], "canary"), (phases[1], "control"), (phases[0], "canary"), (phases[0], "control")):
        hosts = recording.hosts(wave, role)
        failed = recording.series(wave, f"{name}_{part}", role)
        asked = recording.series(wave, f"{name}_requests", role)
        panel = _panel(hosts, failed, asked, looks)
        panels.append(_inverted(panel) if good else panel)
    canary, control, before, control_before = panels
    return Measurements(canary, control, before, control_before)


def _panel(hosts: Sequence[str], failed: Mapping[str, Many], asked: Mapping[str, Many], looks: Looks) -> Panel:
    errors = np.full((len(hosts), len(looks.ends)), np.nan)
    requests = np.full((len(hosts), len(looks.ends)), np.nan)
    end = float(looks.ends[-1]) if len(looks.ends) else looks.start
    for row, host in enumerate(hosts):
        series = [
            [CounterSeries((host,), points) for points in many.get(host, ()) if points] for many in (failed, asked)
        ]
        steps = steps_of(series[0], series[1], end + BLINK)
        requests[row] = _binned(steps.requests, looks)
        errors[row] = np.where(np.isfinite(requests[row]), np.nan_to_num(_binned(steps.errors, looks)), np.nan)
    return Panel(tuple(hosts), looks.start, looks.ends, errors, requests)


def _binned(steps: Sequence[tuple[float, float]], looks: Looks) -> Floats:
    """Sum increases by look; a look without a scrape has no data."""
    found = np.full(len(looks.ends), np.nan)
    for at, more in steps:
        look = int(np.searchsorted(looks.ends, at - BLINK))
        if at > looks.start + BLINK and look < len(found):
            found[look] = more + (0.0 if np.isnan(found[look]) else found[look])
    return found


def _inverted(panel: Panel) -> Panel:
    """Turn good requests into errors: what is not good."""
    errors = np.maximum(panel.requests - panel.errors, 0.0)
    return Panel(panel.targets, panel.start, panel.ends, errors, panel.requests)


def _levels(recording: Recording, wave: int, metric: str, phases: tuple[Looks, Looks]) -> LevelMeasurements:
    found = []
    for looks, phase in ((phases[1], "after"), (phases[0], "before")):
        for role in ("canary", "control"):
            hosts = recording.hosts(wave, role)
            series = recording.series(wave, metric, role, (phase,))
            values = np.full((len(hosts), len(looks.ends)), np.nan)
            for row, host in enumerate(hosts):
                for points in series.get(host, ()):
                    for at, value in points:
                        look = int(np.searchsorted(looks.ends, at - BLINK))
                        if look < values.shape[1]:
                            values[row, look] = value
            found.append(Levels(hosts, looks.ends, values))
    canary, control, before, control_before = found
    return LevelMeasurements(canary, control, before, control_before)
