"""A backup older than reality, on real SSH hosts (S4, F10): a step that it does not know is attached to."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.checks import twice
from chaos.fleets import fleet_of
from chaos.ledgers import LedgerFile
from chaos.schedule import Schedule
from chaos.servers import machines
from chaos.ssh_fleet import ScriptDriver, SshFleet
from chaos.world import DAG, World
from ledger_suite.empty import place_empty_ledger
from patching.change import Step
from patching.rollout.answers import Request
from patching.rollout.approval import approval_request, decide, prepare
from patching.rollout.discovery import discover
from patching.rollout.gates import gate
from patching.rollout.judging import judge
from patching.rollout.planning import make_plan
from patching.rollout.site import Site
from patching.rollout.wave import apply_wave
from patching.target import Target

NEEDED = ("sshd", "unshare", "setpriv", "ssh-keygen")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="machines of their own need root"),
    pytest.mark.skipif(
        any(shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None for name in NEEDED),
        reason="sshd, unshare, setpriv and ssh-keygen are needed",
    ),
]
RUN = "run-1"
TWO_HOSTS = Schedule(
    seed=0, channel="ssh", hosts=2, zones=1, kernel=False, hooks=False, bad=(), pace=0.0, unavailable="2"
)


class HeldDriver(ScriptDriver):
    """Its steps run on a host until the test takes the file ``hold`` away there."""

    def _scripted(self, target: Target, step: Step) -> Step:
        made = super()._scripted(target, step)
        hold = self.fleet.folder / target.name / "hold"
        waits = f"while [ -e '{hold}' ]; do sleep 0.05; done"
        script = str(made.call["script"]).replace("sleep 0.00", waits)
        return made.model_copy(update={"call": {**made.call, "script": script}})


def site_of(world: World, fleet: SshFleet, owner: str, crash: Callable[[str], None]) -> Site:
    site = world.site(owner, world.ledger())
    return replace(site, driver=lambda _name, _options: HeldDriver(fleet), crash=crash)


async def first_wave(world: World, site: Site) -> str:
    found = await discover(site, world.policy, Request(dag_id=DAG, run_id=RUN))
    await make_plan(site, found.rollout)
    approval_request(site, found.rollout, RUN)
    decide(site, found.rollout, RUN, [])
    await prepare(site, found.rollout, RUN)
    await wave(site, found.rollout, 1)
    return found.rollout


async def wave(site: Site, rollout: str, number: int) -> None:
    gate(site, rollout, number, RUN)
    await apply_wave(site, rollout, number, 0, 1, RUN, lambda: None)
    await judge(site, rollout, number, RUN)


def copied(source: Path, copy: Path) -> None:
    """Copy a ledger as the how-to says: ``.backup``, never ``cp``."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)


async def test_step_that_runs_on_the_host_and_not_in_the_restored_ledger_is_attached_to(tmp_path: Path) -> None:
    with machines(tmp_path / "machines", TWO_HOSTS.hosts) as servers:
        fleet = fleet_of(TWO_HOSTS, tmp_path, servers)
        assert isinstance(fleet, SshFleet)
        place_empty_ledger(tmp_path / "empty.sqlite")
        place = LedgerFile(tmp_path, tmp_path / "empty.sqlite")
        world = World(tmp_path, TWO_HOSTS, fleet, place)
        world.build()

        lost = site_of(world, fleet, "lost", lambda _point: None)
        rollout = await first_wave(world, lost)
        copied(place.path, tmp_path / "copy.sqlite")
        (late,) = (name for name in world.names if fleet.installed(name)["shop"] == "1.0")
        hold = fleet.folder / late / "hold"
        hold.touch()
        async with asyncio.timeout(60):
            work = asyncio.create_task(wave(lost, rollout, 2))
            while not fleet.markers(late):  # noqa: ASYNC110 - a host has no event
                await asyncio.sleep(0.01)
            work.cancel()
            await asyncio.wait([work])
        (step,) = fleet.markers(late)
        assert fleet.installed(late) == {"shop": "1.0"}, "it is in the middle of its step"
        lost.ledger.close()
        for suffix in ("-wal", "-shm"):
            place.path.with_name(place.path.name + suffix).unlink(missing_ok=True)
        (tmp_path / "copy.sqlite").replace(place.path)

        again = site_of(
            world, fleet, "restored", lambda point: hold.unlink(missing_ok=True) if point == "started" else None
        )
        assert again.ledger.intents(rollout=rollout, target=late, open_only=False) == [], "the backup knows no step"
        await wave(again, rollout, 2)
        (intent,) = again.ledger.intents(rollout=rollout, target=late, open_only=False)
        assert intent.step_id == step
        assert fleet.markers(late) == [step]
        assert twice(world, late) == []
        assert {row.outcome for row in again.ledger.targets(rollout)} == {"applied"}
        assert fleet.installed(late) == {"shop": "1.1"}
        assert again.ledger.verify() == []
        again.ledger.close()
