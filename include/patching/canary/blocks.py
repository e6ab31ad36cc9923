"""Blocks: the evidence while the targets of a wave are changed one after the other; pure.

An e-process needs two fixed sides. While a wave is applied the changed side grows and the unchanged one shrinks, so
nothing is accumulated over that time. It is cut into complete blocks instead: in each the changed are those whose
change had settled when it began, the unchanged those that had not begun when it ended, and whoever changed within it
is in neither. Its evidence is one bet on the block's totals. Blocks do not overlap, so every increment is used once;
r and the spread come from placebo windows as long as a block. Each block has its own part of alpha
(``weights.block_share``) and nothing is multiplied, so by Markov's and Boole's inequalities the bound holds under any
dependence of blocks: also where hosts wander for longer than a block. It needs that when a target begins does not
depend on its own errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from patching.canary.kept import judge_metric
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.sides import FIRST_LOOK, Measurements
from patching.canary.verdicts import CheckVerdict
from patching.canary.weights import block_share
from patching.policy import Check

LONGEST_BLOCK = 300.0
"""Length of a block in seconds where a third of the soak is not shorter; twenty scrapes of fifteen seconds."""

SHORTEST_SOAK = 60.0
"""Soaks that are shorter say nothing about how fast the metrics of a service are."""

SETTLING = 0.2
"""Part of a block that a changed target is left alone before it counts."""

GATHERING = 0.2
"""Part of a block that the first one waits for the targets that are changed together with the first."""

LAG = 0.05
"""Part of a block that is waited for after its end, at least, for the last scrape."""


@dataclass(frozen=True)
class Course:
    """How far one target is: when its change began and ended, None where it has not; ``applied`` if it ended well.

    ``pristine`` is False where something else was done to it: an earlier try, an undo, another rollout. Only targets of
    one ``service`` are alike.
    """

    target: str
    began: datetime | None = None
    ended: datetime | None = None
    applied: bool = False
    pristine: bool = True
    service: str = ""


@dataclass(frozen=True)
class Block:
    """One block of a wave and its two sides; ``number`` counts from 1."""

    number: int
    start: datetime
    end: datetime
    treated: tuple[str, ...]
    control: tuple[str, ...]


def block_length(soak: float, scrape: float = 0.0) -> float:
    """Give the length of a wave's blocks in seconds, at least twenty scrapes; it follows from the plan alone."""
    length = min(LONGEST_BLOCK, soak / 3) if soak >= SHORTEST_SOAK else LONGEST_BLOCK
    return max(length, FIRST_LOOK * scrape)


def next_block(
    number: int,
    free: datetime,
    wave: Sequence[Course],
    rest: Sequence[Course],
    length: float,
    now: datetime,
    lag: float = 0.0,
) -> Block | None:
    """Give the next complete block from ``free`` on, the end of the last one; None while there is none.

    ``wave`` are the targets of the wave, ``rest`` those of later waves. The first block begins when the first change
    has settled, and those that ended soon after it. The control is of the changed targets' services; where none of them
    is left unchanged, it is what there is. ``lag`` is how many seconds after its end a block's data are complete.
    """
    settling = timedelta(seconds=SETTLING * length)
    settled = {one.target: one.ended + settling for one in wave if one.applied and one.pristine and one.ended}
    if not settled:
        return None
    start = max(free, min(settled.values()) + timedelta(seconds=GATHERING * length))
    end = start + timedelta(seconds=length)
    if now < end + timedelta(seconds=max(LAG * length, lag)):
        return None
    treated = tuple(name for name, at in settled.items() if at <= start)
    services = {one.service for one in wave if one.target in treated}
    untouched = [one for one in (*wave, *rest) if one.pristine and (one.began is None or one.began > end)]
    alike = [one for one in untouched if one.service in services] or untouched
    return Block(number, start, end, treated, tuple(one.target for one in alike)) if alike else None


def judge_block(check: Check, measured: Measurements | LevelMeasurements, share: float, number: int) -> CheckVerdict:
    """Judge one check in one block, beside the control only; ``share`` is what the guard has of the rollout's bound."""
    compare = check.compare.model_copy(update={"against": ("control",)})
    alone = check.model_copy(update={"compare": compare})
    return judge_metric(alone, in_one_look(measured), share * block_share(number), last=False)


def in_one_look(measured: Measurements | LevelMeasurements) -> Measurements | LevelMeasurements:
    """Join the looks of a block into one, and the time before into placebo windows of the same length."""
    if isinstance(measured, Measurements):
        length = max(measured.canary.looks, 1)
        return Measurements(
            canary=measured.canary.windows(length),
            control=measured.control.windows(length),
            before=measured.before.windows(length),
            control_before=measured.control_before.windows(length),
            first=1,
        )
    length = max(len(measured.canary.ends), 1)
    return LevelMeasurements(
        canary=_joined(measured.canary, length),
        control=_joined(measured.control, length),
        before=_joined(measured.before, length),
        control_before=_joined(measured.control_before, length),
        first=1,
    )


def _joined(levels: Levels, length: int) -> Levels:
    ends = levels.ends[len(levels.ends) % length + length - 1 :: length]
    return Levels(levels.targets, np.asarray(ends, dtype=np.float64), levels.windows(length))
