"""Waves of a simulated fleet, changed host by host under the guard: what its bound promises, put to the test.

Within a wave one host after the other leaves and comes back; the guard judges block after block, as live. The control
of the last wave are its own hosts that have not begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from patching.canary.blocks import Block, in_one_look, next_block
from patching.canary.levels import Levels
from patching.canary.panel import Panel
from patching.canary.weights import block_share, share_of
from simulated_evidence import Seen, sequential
from simulated_fleet import ALPHA, BEFORE, Found, Random, Wave, World, at, cut, fleet, gauges, look_of

LOOKS = 20
"""Looks of a block."""


@dataclass(frozen=True)
class Guarded:
    """How the guard of one rollout went: whether it alarmed, in which wave and block; the evidence of every block."""

    alarm: bool
    wave: int
    block: int
    evidence: tuple[float, ...]


def blocks(drawn: Panel | Levels, wave: Wave) -> Iterator[tuple[Block, Found]]:
    """Cut the time in which a wave is applied into its blocks, each with what was seen in it."""
    mine, rest = wave.courses()
    number, free = 1, at(BEFORE)
    while (block := next_block(number, free, mine, rest, float(LOOKS), at(wave.until))) is not None:
        sides = ([int(name[1:]) for name in names] for names in (block.treated, block.control))
        yield block, cut(drawn, look_of(block.start), look_of(block.end), *sides)
        number, free = number + 1, block.end


def watched(drawn: Panel | Levels, wave: Wave, level: float) -> Iterator[tuple[int, Seen]]:
    """Judge the blocks of a wave one after the other at the guard's ``level``."""
    for block, found in blocks(drawn, wave):
        seen = sequential(in_one_look(found), level * block_share(block.number), last=False, past=False)
        if seen is not None:
            yield block.number, seen


def guarded_rollout(random: Random, world: World) -> Guarded:
    """Apply all waves of one rollout with the guard on, until its first alarm."""
    checks, evidence = world.checks(), []
    lasting = random.normal(size=(len(checks), world.hosts)) * world.sigma
    for number, wave in enumerate(world.waves(), 1):
        if len(wave.rows) < 2:
            continue
        for check, hosts in zip(checks, lasting, strict=True):
            drawn = (fleet if check.name.startswith("m") else gauges)(random, world, hosts, wave)
            for block, seen in watched(drawn, wave, ALPHA * share_of(check, checks, world.looks())):
                evidence.append(float(seen.evidence[-1]))
                if seen.stop is not None:
                    return Guarded(True, number, block, tuple(evidence))
    return Guarded(False, 0, 0, tuple(evidence))


def growing_z(random: Random, world: World) -> bool:
    """Say whether a z-test on everything counted so far, looked at after every block, would have stopped a wave."""
    lasting = random.normal(size=world.hosts) * world.sigma
    wave = world.waves()[1]
    total = np.zeros(4)
    for _, found in blocks(fleet(random, world, lasting, wave), wave):
        total += [*found.canary.totals(), *found.control.totals()]  # type: ignore[union-attr]
        failed, asked, others, rest = total
        pooled = (failed + others) / (asked + rest)
        spread = (pooled * (1 - pooled) * (1 / asked + 1 / rest)) ** 0.5
        if (failed / asked - others / rest) / spread > 1.645:
            return True
    return False
