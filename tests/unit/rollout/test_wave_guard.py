"""The guard of a wave that is being applied (S5, F3, F9): the first valid alarm stops launching, nothing else does."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from patching.change import Reply, Step
from patching.channels.base import Session
from patching.channels.simulated import SimulatedChannel, SimulatedSession
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.rollout.answers import VerdictName
from patching.sources.base import Sample
from patching.target import Target
from unit.rollout.fleet import Fleet, Metrics

WAVES = [{"canary": {"count": 1}}, {"size": "100%", "soak": "1m"}]
HOSTS = 10


@dataclass
class OfChanged(Metrics):
    """Metrics in which the patch shows: a target has its error share from the moment on that its change ended."""

    fleet: Fleet | None = None

    def _sample(self, name: str, start: datetime, end: datetime) -> Sample:
        found = super()._sample(name, start, end)
        assert self.fleet is not None
        row = self.fleet.ledger.target(self.fleet.rollout, name)
        changed = row is not None and row.ended_at is not None and row.ended_at <= start
        return found if changed or found.requests is None else found.model_copy(update={"errors": 0.0})


class JudgedSession(SimulatedSession):
    """A session in which the first reading waits until every complete block is judged."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        super().__init__(fleet.hosts, name)
        self.rollout: Fleet | None = fleet

    async def read(self, step: Step) -> Reply:
        while self.rollout is not None and unjudged(self.rollout):  # noqa: ASYNC110 - the guard tells nobody
            await asyncio.sleep(0.005)
        self.rollout = None
        return await super().read(step)


class JudgedChannel(SimulatedChannel):
    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.hosts)
        self.rollout = fleet

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        return JudgedSession(self.rollout, target.name)


async def applying(folder: Path, share: float, **spec: Any) -> Fleet:
    """Have a fleet whose second wave is about to be applied, one target a quarter of a minute; blocks of 20 s."""
    fleet = Fleet(folder, hosts=HOSTS, rollout={"waves": WAVES}, **spec)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)

    def crash(point: str) -> None:
        if point == "target-outcome-written":
            fleet.clock.advance(seconds=15)

    fleet.site = replace(fleet.site, look_every=0.01, concurrency=1, lease_ttl=3600.0, crash=crash)
    fleet.site = replace(fleet.site, channel=lambda _name: JudgedChannel(fleet))
    fleet.metrics = OfChanged(errors={name: share for name in fleet.names if name not in changed(fleet)}, fleet=fleet)
    return fleet


def changed(fleet: Fleet) -> set[str]:
    return {name for name, version in fleet.versions().items() if version == "1.1"}


def unjudged(fleet: Fleet) -> bool:
    """Say whether a complete block waits for the guard: no further target begins before, however slow a machine is."""
    rows = [row for row in fleet.ledger.targets(fleet.rollout) if row.wave == 2]
    ended = [row.ended_at for row in rows if row.ended_at is not None]
    if fleet.metrics.down or not ended or all(row.began_at is not None for row in rows):
        return False
    complete = int((fleet.clock.now - min(ended)).total_seconds() - 9) // 20
    found = blocks(fleet)
    return len(found) < complete and not any(entry.body["verdict"]["verdict"] == "undo" for entry in found)


def blocks(fleet: Fleet) -> list[LedgerEntry]:
    entries = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.GUARD])
    return [entry for entry in entries if "verdict" in entry.body]


async def test_alarm_stops_launching_and_what_was_changed_is_undone(tmp_path: Path) -> None:
    fleet = await applying(tmp_path, 0.3)
    summary = await fleet.apply(2)
    assert "stopped launching: errors: error share" in summary.sentence
    outcomes = list(fleet.outcomes().values())
    assert "pending" in outcomes
    assert "running" not in outcomes
    alarm = blocks(fleet)[-1]
    numbers = alarm.body["verdict"]["numbers"]
    assert numbers["evidence"] >= numbers["evidence_needed"] == pytest.approx(4 / 0.05 * 2)
    answer = await fleet.judge(2)
    assert answer.verdict is VerdictName.UNDO
    assert answer.sentence.endswith("found while the wave was applied")
    assert [entry.body["wave"] for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.MEASURED])] == [1, 2]
    await fleet.undo(2)
    await fleet.undo(None)
    assert not changed(fleet)
    assert not fleet.twice()


async def test_alarm_of_another_process_holds_after_a_crash(tmp_path: Path) -> None:
    fleet = await applying(tmp_path, 0.3)
    await fleet.apply(2)
    before, judged = fleet.outcomes(), len(blocks(fleet))
    summary = await fleet.as_worker("worker-2").apply(2)
    assert "found while the wave was applied" in (summary.stopped or "")
    assert (fleet.outcomes(), len(blocks(fleet))) == (before, judged)


async def test_alarm_is_a_hold_where_the_policy_wants_a_person(tmp_path: Path) -> None:
    fleet = await applying(tmp_path, 0.3, onFailure={"undo": "never"})
    await fleet.apply(2)
    assert (await fleet.judge(2)).verdict is VerdictName.HOLD
    assert fleet.state == "held"


async def test_wave_of_one_target_has_no_guard_and_no_share_for_it(tmp_path: Path) -> None:
    fleet = await applying(tmp_path, 0.0)
    assert fleet.frozen.looks == len(WAVES) + 1 + 1, "one guard, and the reserve"
    assert not blocks(fleet)


@pytest.mark.parametrize("fault", ["none", "silent", "down"])
async def test_nothing_but_an_alarm_stops_launching(tmp_path: Path, fault: str) -> None:
    """Missing metrics while a wave is applied are no alarm and no pass: the verdict at its end is what they decide."""
    fleet = await applying(tmp_path, 0.0 if fault == "none" else 0.3)
    fleet.metrics.down = fault == "down"
    fleet.metrics.silent = set(fleet.names) if fault == "silent" else set()
    summary = await fleet.apply(2)
    assert summary.stopped is None
    assert set(fleet.outcomes().values()) == {"applied"}
    unread = [entry.body for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.GUARD])]
    assert blocks(fleet) if fault != "down" else "does not answer" in str(unread[0]["unread"])
    found = blocks(fleet)
    assert [entry.body["block"] for entry in found] == list(range(1, len(found) + 1))
    assert all(one.body["end"] <= two.body["start"] for one, two in itertools.pairwise(found))
    fleet.clock.advance(minutes=2)
    verdict = (await fleet.judge(2)).verdict
    assert verdict is (VerdictName.PROMOTE if fault == "none" else VerdictName.HOLD)
