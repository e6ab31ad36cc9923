"""Waves of a simulated fleet, changed host by host under the guard: what its bound promises, put to the test.

Hosts as in ``simulated_rollouts``. Within a wave one host after the other leaves (no traffic while it changes) and
comes back; the guard judges block after block, as live. The control of the last wave are its own hosts that have not
begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from patching.canary.blocks import Block, Course, judge_block, next_block
from patching.canary.panel import Panel
from patching.canary.sides import Measurements
from patching.canary.verdicts import CheckVerdict
from patching.canary.weights import looks_of, share_of
from patching.policy import Check, Compare
from patching.rollout.answers import VerdictName
from simulated_rollouts import ALPHA, BEFORE, RULES, Random, World, wandering

LOOKS = 20
"""Looks of a block; a look is a second here."""

CHANGE = 15
"""Looks that a change takes."""

TOGETHER = 2
ZERO = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Guarded:
    """How the guard of one rollout went: whether it alarmed, in which wave and block; the evidence of every block."""

    alarm: bool
    wave: int
    block: int
    evidence: tuple[float, ...]


def at(look: float) -> datetime:
    return ZERO + timedelta(seconds=float(look))


def look_of(moment: datetime) -> int:
    return round((moment - ZERO).total_seconds())


def courses(first: int, last: int, hosts: int) -> tuple[list[Course], list[Course], int]:
    """Change hosts first … last, two at once; gives the wave, the rest, and the look at which the wave has ended."""
    wave = []
    for place in range(last - first):
        began = BEFORE + 1 + place // TOGETHER * CHANGE
        ended = began + CHANGE
        wave.append(Course(f"h{first + place}", began=at(began), ended=at(ended), applied=True))
    rest = [Course(f"h{index}") for index in range(last, hosts)]
    return wave, rest, max(look_of(one.ended) for one in wave if one.ended)


def observed(random: Random, world: World, lasting: np.ndarray, wave: list[Course], until: int) -> Panel:
    """Draw errors and requests of all hosts up to a look; a host that changes serves nothing meanwhile."""
    logs = lasting[:, None] + wandering(random, world.hosts, until, world.rho, world.sigma)
    rate = world.errors * np.exp(logs + wandering(random, 1, until, 0.9, world.shock))
    requests = random.poisson(world.requests, size=rate.shape).astype(float)
    for one in wave:
        row = int(one.target[1:])
        if one.began and one.ended:
            rate[row, look_of(one.ended) :] *= world.factor
            rate[row, look_of(one.began) : look_of(one.ended)] = requests[
                row, look_of(one.began) : look_of(one.ended)
            ] = 0
    ends = ZERO.timestamp() + np.arange(1, until + 1, dtype=float)
    names = tuple(f"h{index}" for index in range(world.hosts))
    return Panel(names, ZERO.timestamp(), ends, random.poisson(rate).astype(float), requests)


def judged(check: Check, panel: Panel, found: Block, share: float) -> CheckVerdict:
    """Judge a block as the guard does, from what all hosts counted."""
    now, then = panel.slice(look_of(found.start), look_of(found.end)), panel.slice(0, BEFORE)
    sides = [part.of(names) for part in (now, then) for names in (found.treated, found.control)]
    return judge_block(check, Measurements(*sides), share, found.number)


def guarded_rollout(random: Random, world: World) -> Guarded:
    """Apply all waves of one rollout with the guard on, until its first alarm."""
    compare = Compare(max_relative_increase="0%", alpha=ALPHA, min_requests=1)
    checks = [Check(name=f"m{index}", prometheus=RULES, compare=compare) for index in range(world.metrics)]
    sizes = [treated.stop - treated.start for treated, _ in world.waves()]
    looks = looks_of(checks, sizes, watched=False)
    lasting = random.normal(size=(world.metrics, world.hosts)) * world.sigma
    evidence: list[float] = []
    for number, (treated, _) in enumerate(world.waves(), 1):
        if sizes[number - 1] < 2:
            continue
        wave, rest, until = courses(treated.start, treated.stop, world.hosts)
        for metric, check in enumerate(checks):
            panel = observed(random, world, lasting[metric], wave, until)
            block, free = 1, at(BEFORE)
            while (found := next_block(block, free, wave, rest, float(LOOKS), at(until))) is not None:
                verdict = judged(check, panel, found, share_of(check, checks, looks))
                evidence.append(verdict.numbers.evidence or 0.0 if verdict.numbers else 0.0)
                if verdict.verdict is VerdictName.UNDO:
                    return Guarded(True, number, block, tuple(evidence))
                block, free = block + 1, found.end
    return Guarded(False, 0, 0, tuple(evidence))


def growing_z(random: Random, world: World) -> bool:
    """Say whether a z-test on everything counted so far, looked at after every block, would have stopped a rollout."""
    lasting = random.normal(size=world.hosts) * world.sigma
    treated, _ = world.waves()[1]
    wave, rest, until = courses(treated.start, treated.stop, world.hosts)
    panel = observed(random, world, lasting, wave, until)
    failed = asked = others = other_asked = 0.0
    block, free = 1, at(BEFORE)
    while (found := next_block(block, free, wave, rest, float(LOOKS), at(until))) is not None:
        now = panel.slice(look_of(found.start), look_of(found.end))
        errors, requests = now.of(found.treated).totals()
        failed, asked = failed + errors, asked + requests
        errors, requests = now.of(found.control).totals()
        others, other_asked = others + errors, other_asked + requests
        pooled = (failed + others) / (asked + other_asked)
        spread = (pooled * (1 - pooled) * (1 / asked + 1 / other_asked)) ** 0.5
        if (failed / asked - others / other_asked) / spread > 1.645:
            return True
        block, free = block + 1, found.end
    return False
