"""Connections opened early (S4): the next target's login is done when its turn comes; nothing else happens there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.change import Step, TargetState
from patching.channels.base import Handle, Progress, Session
from patching.channels.simulated import SimulatedChannel, SimulatedSession
from patching.errors import LoginRefused, TargetOffline
from patching.rollout import control, control_targets, wave
from patching.target import Target
from unit.rollout.fleet import Fleet


class Line(SimulatedSession):
    """A session that tells its channel when it closes, and whose steps wait for the gate."""

    broken = False

    def __init__(self, channel: Lines, name: str) -> None:
        super().__init__(channel.fleet, name)
        self.channel = channel

    @property
    def lost(self) -> bool:
        return self.broken

    async def wait(self, handle: Handle, step: Step) -> Progress:
        self.channel.working.add(self.name)
        await self.channel.gate.wait()
        return await super().wait(handle, step)

    async def close(self) -> None:
        self.channel.open_now.remove(self.name)


class Lines(SimulatedChannel):
    """A channel that counts its sessions; ``refusal`` is raised by every early login."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.hosts)
        self.ledger = fleet.ledger
        self.gate = asyncio.Event()
        self.opened: list[str] = []
        self.open_now: list[str] = []
        self.sessions: list[Line] = []
        self.working: set[str] = set()
        self.refusal: Exception | None = None

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        self.opened.append(target.name)
        if self.refusal is not None and all(lease.target != target.name for lease in self.ledger.leases()):
            raise self.refusal
        self.open_now.append(target.name)
        self.sessions.append(Line(self, target.name))
        return self.sessions[-1]

    def both(self) -> tuple[str, str]:
        """Give the target at work and the one that is next."""
        (first,) = self.working
        (second,) = (name for name in self.open_now if name != first)
        return first, second


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - a ledger and a channel tell nobody
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wave, "LONGEST_PAUSE", 0.02)


@asynccontextmanager
async def at_work(
    folder: Path, *, window: int, hosts: int = 4, unavailable: Any = "100%", refusal: Exception | None = None
) -> AsyncIterator[tuple[Fleet, Lines]]:
    """Let the first job of a wave stand in its step; the wave is over when the body has ended."""
    rollout = {"waves": [{"size": "100%"}], "maxUnavailable": unavailable}
    fleet = Fleet(folder, hosts=hosts, verify=[], rollout=rollout)
    await fleet.begin()
    await fleet.gate(1)
    lines = Lines(fleet)
    fleet.site = replace(fleet.site, channel=lambda _name: lines, concurrency=window)
    lines.refusal = refusal
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fleet.apply(1))
        await until(lambda: bool(lines.working))
        yield fleet, lines
        lines.gate.set()


async def test_the_next_target_is_logged_in_to_while_a_job_runs_and_its_job_takes_that_connection(
    tmp_path: Path,
) -> None:
    async with at_work(tmp_path, window=1) as (fleet, lines):
        await until(lambda: len(lines.open_now) == 2)
        first, second = lines.both()
        row = fleet.ledger.target(fleet.rollout, second)
        assert row is not None
        assert (row.state, row.began_at) == (TargetState.PENDING, None)
        assert [lease.target for lease in fleet.ledger.leases()] == [first]
    assert sorted(lines.opened) == fleet.names
    assert set(fleet.outcomes().values()) == {"applied"}
    assert lines.open_now == []


async def test_who_waits_for_a_place_is_logged_in_to_within_a_tenth_of_the_window(tmp_path: Path) -> None:
    async with at_work(tmp_path, window=20, hosts=6, unavailable=1) as (fleet, lines):
        await until(lambda: len(fleet.ledger.waiters()) == 3)
        await until(lambda: len(lines.open_now) == 3 + 2)
    assert sorted(lines.opened) == fleet.names
    assert lines.open_now == []


async def test_hold_closes_the_early_connection_while_the_running_job_goes_on(tmp_path: Path, quick: None) -> None:
    async with at_work(tmp_path, window=1) as (fleet, lines):
        await until(lambda: len(lines.open_now) == 2)
        control.hold(fleet.ledger, fleet.rollout, "mia", "a look first")
        await until(lambda: lines.open_now == [*lines.working])
    assert len(lines.opened) == 2
    assert sorted(fleet.outcomes().values()) == ["applied", "pending", "pending", "pending"]


async def test_a_target_that_a_person_skips_is_logged_off_and_the_next_one_logged_in_to(
    tmp_path: Path, quick: None
) -> None:
    async with at_work(tmp_path, window=1) as (fleet, lines):
        await until(lambda: len(lines.open_now) == 2)
        _, second = lines.both()
        control_targets.skip(fleet.ledger, fleet.rollout, "mia", "moves tonight", target=second)
        await until(lambda: second not in lines.open_now)
    assert lines.opened.count(second) == 1
    assert fleet.outcomes()[second] == "skipped"
    assert lines.open_now == []


@pytest.mark.parametrize("refusal", [TargetOffline("no route"), LoginRefused("not yet")])
async def test_an_early_login_that_fails_is_no_outcome(tmp_path: Path, refusal: Exception) -> None:
    async with at_work(tmp_path, window=1, hosts=2, refusal=refusal) as (fleet, lines):
        await until(lambda: len(lines.opened) == 2)
    assert len(lines.opened) == 3
    assert set(fleet.outcomes().values()) == {"applied"}


async def test_a_connection_that_broke_before_its_turn_is_opened_anew(tmp_path: Path) -> None:
    async with at_work(tmp_path, window=1, hosts=2) as (fleet, lines):
        await until(lambda: len(lines.sessions) == 2)
        _, second = lines.both()
        next(line for line in lines.sessions if line.name == second).broken = True
    assert lines.opened.count(second) == 2
    assert set(fleet.outcomes().values()) == {"applied"}
    assert lines.open_now == []
