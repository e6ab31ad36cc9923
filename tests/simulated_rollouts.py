"""Whole rollouts of a simulated fleet, peeked at every scrape: what the judge's bound promises, put to the test.

A rollout has three waves, canary, half, rest. A wave of two and more hosts is guarded while it is applied, then it
soaks; the last has no control and soaks against its own past. One alpha is shared as the plan shares it, by waves,
guards, the reserve and metrics: counters, gauges, and the gauges' look at ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import lgamma, log

import numpy as np

from guarded_waves import watched
from patching.canary.levels import Levels
from patching.canary.panel import Panel
from simulated_evidence import Judge, Seen, kayenta, naive, sequential
from simulated_fleet import ALPHA, FIRST, Random, Wave, World, fleet, gauges, soak

OURS = "ours"
JUDGES: dict[str, Judge] = {OURS: sequential, "z": naive, "kayenta": kayenta}


@dataclass
class Run:
    """How one rollout went: whether and where it was stopped in vain, and every evidence at its stopping.

    ``by`` is what stopped it: guard, counts, gauge or ranks.
    """

    alarm: bool = False
    wave: int = 0
    look: int = 0
    by: str = ""
    stopped: list[float] = field(default_factory=list)

    def stop(self, wave: int, look: int, by: str) -> None:
        self.alarm, self.wave, self.look, self.by = True, wave, look, by


def rollout(random: Random, world: World) -> Run:
    """Run one rollout by our judge until the first alarm or its end."""
    return rollouts(random, world, {OURS: sequential})[OURS]


def rollouts(random: Random, world: World, judges: Mapping[str, Judge]) -> dict[str, Run]:
    """Run one rollout by several judges on the same data, each until its first alarm or the end; only ours guards."""
    runs = {name: Run() for name in judges}
    checks = world.checks()
    level = ALPHA / (len(checks) * world.looks())
    lasting = random.normal(size=(len(checks), world.hosts)) * world.sigma
    for number, wave in enumerate(world.waves(), 1):
        if all(run.alarm for run in runs.values()):
            break
        drawn = [
            (fleet if index < world.metrics else gauges)(random, world, hosts, wave)
            for index, hosts in enumerate(lasting)
        ]
        if OURS in runs and not runs[OURS].alarm and len(wave.rows) > 1:
            guard(runs[OURS], drawn, wave, number, level)
        found = [soak(one, wave) for one in drawn]
        for name, run in runs.items():
            if not run.alarm:
                _soaked(run, [judges[name](one, level) for one in found], number, world.metrics)
    return runs


def guard(run: Run, drawn: list[Panel | Levels], wave: Wave, number: int, level: float) -> None:
    """Watch a wave while it is applied; each block of a metric is one evidence."""
    for one in drawn:
        for block, seen in watched(one, wave, level):
            run.stopped.append(float(seen.evidence[-1]))
            if seen.stop is not None:
                run.stop(number, block, "guard")
                return


def _soaked(run: Run, seen: list[Seen | None], number: int, counters: int) -> None:
    """Stop at the first look at which any metric alarms; all of them have the evidence of that look."""
    found = [one for one in seen if one is not None]
    stops = [(one.stop, index) for index, one in enumerate(seen) if one is not None and one.stop is not None]
    look, first = min(stops, default=(len(found[0].evidence) - 1, -1))
    run.stopped += [float(one.evidence[look]) for one in found]
    if first >= 0:
        stopping = seen[first]
        by_ranks = stopping is not None and stopping.evidence[look] * stopping.level < 1
        run.stop(number, FIRST + look, "counts" if first < counters else "ranks" if by_ranks else "gauge")


def upper_limit(alarms: int, runs: int, confidence: float = 0.95) -> float:
    """Give the exact one-sided upper limit of a rate (Clopper and Pearson, 1934), by bisection on the binomial."""
    if alarms >= runs:
        return 1.0
    low, high = alarms / runs, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        at_most = sum(
            np.exp(
                lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1) + k * log(middle) + (runs - k) * log(1 - middle)
            )
            for k in range(alarms + 1)
        )
        low, high = (middle, high) if at_most > 1 - confidence else (low, middle)
    return high
