"""The guard of a soaking wave (S5, F3, F9): an alarm ends the soak at once, everything else waits for its end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.ledger.entry import EntryKind
from patching.rollout.answers import VerdictName
from patching.rollout.guard import next_look
from patching.rollout.measuring import Spans
from unit.rollout.fleet import START, Fleet

WAVES = [{"canary": {"count": 1}, "soak": "10m"}, {"size": "100%"}]


async def soaking(tmp_path: Path, share: float, **spec: Any) -> Fleet:
    fleet = Fleet(tmp_path, rollout={"waves": WAVES}, **spec)
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = share
    return fleet


async def test_alarm_ends_the_soak_long_before_its_time(tmp_path: Path) -> None:
    fleet = await soaking(tmp_path, 0.3)
    fleet.clock.advance(minutes=4)
    answer = await fleet.judge(1)
    assert answer.verdict is VerdictName.UNDO
    assert answer.sentence.endswith("found while the wave soaked")
    assert fleet.state == "undoing"
    assert len(fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.MEASURED])) == 1
    await fleet.undo(1)
    assert set(fleet.versions().values()) == {"1.0"}


async def test_nothing_is_looked_at_before_the_first_look_is_complete(tmp_path: Path) -> None:
    """Placebo windows are a third of the soak: an earlier look would be outside of the bound."""
    fleet = await soaking(tmp_path, 0.3)
    fleet.clock.advance(minutes=3)
    answer = await fleet.judge(1)
    assert answer.verdict is None
    assert answer.again_at is not None


@pytest.mark.parametrize("fault", ["none", "silent", "down"])
async def test_early_look_neither_promotes_nor_holds(tmp_path: Path, fault: str) -> None:
    fleet = await soaking(tmp_path, 0.0)
    fleet.metrics.down = fault == "down"
    fleet.metrics.silent = set(fleet.names) if fault == "silent" else set()
    fleet.clock.advance(minutes=5)
    answer = await fleet.judge(1)
    assert (answer.verdict, fleet.state) == (None, "running")
    assert answer.again_at is not None
    assert timedelta(0) < answer.again_at - fleet.clock.now <= timedelta(seconds=100)
    fleet.clock.advance(minutes=6)
    verdict = (await fleet.judge(1)).verdict
    assert verdict is (VerdictName.PROMOTE if fault == "none" else VerdictName.HOLD)


async def test_undo_that_the_policy_forbids_is_a_hold(tmp_path: Path) -> None:
    fleet = await soaking(tmp_path, 0.3, onFailure={"undo": "never"})
    fleet.clock.advance(minutes=4)
    assert (await fleet.judge(1)).verdict is VerdictName.HOLD
    assert fleet.state == "held"


def test_short_soaks_are_judged_at_their_end_only() -> None:
    assert next_look(20, START, START + timedelta(seconds=20)) == START + timedelta(seconds=20)
    assert next_look(600, START, START + timedelta(seconds=600)) == START + timedelta(seconds=100)
    assert next_look(600, START, START + timedelta(seconds=40)) == START + timedelta(seconds=40)


def test_looks_are_the_same_whenever_they_are_asked() -> None:
    def spans(elapsed: float) -> Spans:
        return Spans(START, START, START + timedelta(seconds=elapsed), soak=600.0, before=3600.0)

    assert spans(250).after == (START, START + timedelta(seconds=250), 25)
    assert spans(600).look == spans(205).look == 10.0
    assert spans(205).after[2] == 20
    assert spans(205).earlier == (START - timedelta(seconds=2400), START, 240)
    assert spans(0.05).after == (START, START + timedelta(seconds=0.05), 1)
