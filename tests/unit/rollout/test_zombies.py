"""A worker that sleeps between its intent and its act, and wakes when its successor has decided otherwise (F8, T12)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.change import Step
from patching.channels.base import Attach, Handle, Progress, Session
from patching.channels.simulated import SimulatedChannel, SimulatedFleet, SimulatedSession
from patching.errors import TargetOffline
from patching.target import Target
from unit.rollout.fleet import Fleet


class SleepySession(SimulatedSession):
    """Falls asleep just before the first step that it starts."""

    def __init__(self, fleet: SimulatedFleet, name: str, asleep: asyncio.Event, wake: asyncio.Event) -> None:
        super().__init__(fleet, name)
        self.asleep, self.wake = asleep, wake

    async def start(self, step_id: str, step: Step) -> Handle:
        self.asleep.set()
        await self.wake.wait()
        return await super().start(step_id, step)


class Sleepy:
    """A channel of sleepy sessions."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.fleet = fleet
        self.asleep, self.wake = asyncio.Event(), asyncio.Event()

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        return SleepySession(self.fleet, target.name, self.asleep, self.wake)


class CutBeforeTombstone(SimulatedSession):
    """A connection that breaks when a step is to be given up."""

    async def forbid(self, step_id: str, step: Step) -> Progress:
        raise TargetOffline(f"{self.name} does not answer (simulated)")


class CutChannel(SimulatedChannel):
    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        return CutBeforeTombstone(self.fleet, target.name)


async def one_host(tmp_path: Path, **spec: Any) -> Fleet:
    fleet = Fleet(tmp_path, hosts=1, rollout={"waves": [{"size": "100%"}]}, **spec)
    await fleet.begin()
    await fleet.gate(1)
    return fleet


def other(fleet: Fleet, owner: str, channel: Any) -> Fleet:
    found = fleet.as_worker(owner)
    # Its heartbeat must not come before its lease has run out: it sleeps.
    found.site = replace(found.site, channel=lambda _name: channel, lease_ttl=30.0)
    return found


async def asleep_with_its_intent(fleet: Fleet) -> tuple[Sleepy, asyncio.Task[Any]]:
    """A worker that wrote its intent and sleeps, and its successor that found the host dark: the target is unknown."""
    sleepy = Sleepy(fleet.hosts)
    zombie = asyncio.create_task(other(fleet, "zombie", sleepy).apply(1))
    await asyncio.wait_for(sleepy.asleep.wait(), 10)
    fleet.clock.advance(seconds=60)
    fleet.hosts.change("web-01", offline=True)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "unknown"}
    fleet.hosts.change("web-01", offline=False)
    fleet.clock.advance(seconds=60)
    return sleepy, zombie


async def test_zombie_that_wakes_after_its_step_was_given_up_starts_nothing(tmp_path: Path) -> None:
    """F8: the successor gave the step up and did the work under a new id; the old id must never run."""
    fleet = await one_host(tmp_path)
    sleepy, zombie = await asleep_with_its_intent(fleet)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    sleepy.wake.set()
    await zombie
    assert len(fleet.hosts.markers("web-01")) == 1
    assert fleet.outcomes() == {"web-01": "applied"}
    assert fleet.ledger.intents(rollout=fleet.rollout) == []
    assert fleet.ledger.verify() == []


async def test_zombie_that_started_before_the_tombstone_is_settled_as_what_it_did(tmp_path: Path) -> None:
    """F8: its step ran, so the successor finds its effect and does nothing again."""
    fleet = await one_host(tmp_path)
    sleepy, zombie = await asleep_with_its_intent(fleet)
    sleepy.wake.set()
    await zombie
    await fleet.apply(1)
    assert len(fleet.hosts.markers("web-01")) == 1
    assert fleet.outcomes() == {"web-01": "applied"}
    assert fleet.versions() == {"web-01": "1.1"}


async def test_step_whose_tombstone_cannot_be_written_stays_open_and_its_target_unknown(tmp_path: Path) -> None:
    fleet = await one_host(tmp_path)
    sleepy, zombie = await asleep_with_its_intent(fleet)
    await other(fleet, "cut", CutChannel(fleet.hosts)).apply(1)
    assert fleet.outcomes() == {"web-01": "unknown"}
    assert len(fleet.ledger.intents(rollout=fleet.rollout)) == 1
    fleet.clock.advance(seconds=60)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    sleepy.wake.set()
    await zombie
    assert len(fleet.hosts.markers("web-01")) == 1


async def test_zombie_of_a_target_that_drifted_meanwhile_starts_nothing(tmp_path: Path) -> None:
    """F8: the successor leaves a drifted target alone, so nobody may begin what was meant for the other state."""
    fleet = await one_host(tmp_path, hooks=[{"command": {"name": "drain", "enter": "true", "leave": "true"}}])
    sleepy = Sleepy(fleet.hosts)
    zombie = asyncio.create_task(other(fleet, "zombie", sleepy).apply(1))
    await asyncio.wait_for(sleepy.asleep.wait(), 10)
    fleet.clock.advance(seconds=60)
    fleet.hosts.change("web-01", installed={"shop": "0.9"})
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "drifted"}
    sleepy.wake.set()
    await zombie
    assert fleet.hosts.markers("web-01") == []


async def test_simulated_tombstone_and_start_are_decided_by_who_was_first(tmp_path: Path) -> None:
    hosts = SimulatedFleet(tmp_path)
    hosts.add("web-01", installed={"shop": "1.0"})
    session = SimulatedSession(hosts, "web-01")
    step = Step.model_validate(
        {"name": "install", "phase": "apply", "kind": "act", "call": {"op": "set", "name": "shop", "to": "1.1"}}
    )
    assert (await session.forbid("a", step)).attach is Attach.FORBIDDEN
    assert (await session.wait(await session.start("a", step), step)).attach is Attach.FORBIDDEN
    await session.start("b", step)
    assert (await session.forbid("b", step)).attach is Attach.ENDED
    assert hosts.markers("web-01") == ["b"]


@pytest.mark.parametrize("answer", [Attach.ENDED, Attach.FORBIDDEN])
async def test_looking_at_a_forbidden_step_never_says_that_it_may_be_started(tmp_path: Path, answer: Attach) -> None:
    hosts = SimulatedFleet(tmp_path)
    hosts.add("web-01", installed={"shop": "1.0"})
    session = SimulatedSession(hosts, "web-01")
    step = Step.model_validate({"name": "n", "phase": "apply", "kind": "act", "call": {"op": "nothing"}})
    await (session.start("a", step) if answer is Attach.ENDED else session.forbid("a", step))
    assert (await session.look("a", step)).attach is answer
