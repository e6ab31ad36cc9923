"""One connection a target (S4), counted by real SSH servers: the next one opened early, the end of a step pushed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.openssh import OpenSsh
from chaos.fleets import fleet_of
from chaos.ledgers import LedgerFile
from chaos.schedule import Schedule
from chaos.servers import Machines, machines
from chaos.world import DAG, World
from patching.change import Phase, Step, StepKind
from patching.channels.base import Attach, Handle, Progress
from patching.channels.ssh import SshChannel, SshSession
from patching.rollout.answers import Request
from patching.rollout.approval import approval_request, decide, prepare
from patching.rollout.discovery import discover
from patching.rollout.gates import gate
from patching.rollout.planning import make_plan
from patching.rollout.site import Site
from patching.rollout.wave import apply_wave

NEEDED = ("sshd", "unshare", "setpriv", "ssh-keygen")
WITHOUT = [name for name in NEEDED if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="machines of their own need root"),
    pytest.mark.skipif(bool(WITHOUT), reason=f"{', '.join(WITHOUT)} missing"),
]
CALM = Schedule(
    seed=0, channel="ssh", hosts=3, zones=1, kernel=False, hooks=False, bad=(), pace=0.0, unavailable="100%"
)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path / "servers", CALM.hosts) as made:
        yield made


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - a server's log tells nobody
            await asyncio.sleep(0.01)


def logins(server: OpenSsh) -> int:
    return (server.directory / "sshd.log").read_text().count("Accepted publickey")


async def test_each_target_is_logged_in_to_once_in_a_wave_and_the_next_one_while_a_step_runs(
    tmp_path: Path, servers: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.world.WAVES", [{"size": "100%", "soak": "0s"}])
    world = World(tmp_path, CALM, fleet_of(CALM, tmp_path, servers), LedgerFile(tmp_path, None))
    world.build()
    ledger = world.ledger()
    site = replace(world.site("worker", ledger), concurrency=1, lease_ttl=60.0)
    rollout = await approved(site, world)
    before = [logins(machine) for machine in servers.machines]
    at_work, go_on, wait = asyncio.Event(), asyncio.Event(), SshSession.wait

    async def held(session: SshSession, handle: Handle, step: Step) -> Progress:
        at_work.set()
        await go_on.wait()
        return await wait(session, handle, step)

    def now() -> list[int]:
        return [logins(machine) - known for machine, known in zip(servers.machines, before, strict=True)]

    monkeypatch.setattr(SshSession, "wait", held)
    wave = asyncio.create_task(apply_wave(site, rollout, 1, 0, 1, "run", lambda: None))
    await at_work.wait()
    await until(lambda: sorted(now()) == [0, 1, 1])
    assert len([row for row in ledger.targets(rollout) if row.began_at is not None]) == 1
    go_on.set()
    summary = await wave
    assert summary.counts["applied"] == 3, summary
    assert now() == [1, 1, 1]
    ledger.close()


async def approved(site: Site, world: World) -> str:
    """Do what comes before the first wave; gives the rollout."""
    found = await discover(site, world.policy, Request(dag_id=DAG, run_id="run"))
    assert found.rollout is not None
    await make_plan(site, found.rollout)
    approval_request(site, found.rollout, "run")
    decide(site, found.rollout, "run", [])
    await prepare(site, found.rollout, "run")
    gate(site, found.rollout, 1, "run")
    return found.rollout


async def test_the_end_of_a_step_is_pushed_over_the_one_connection_and_never_asked_for(tmp_path: Path) -> None:
    server = OpenSsh(tmp_path / "sshd", "LogLevel VERBOSE")
    server.start()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    call = {"script": f"read word < {pipe}", "sudo": True}
    step = Step(name="act", phase=Phase.APPLY, kind=StepKind.ACT, call=call, deadline=60.0)
    log = server.directory / "sshd.log"
    try:
        session = await SshChannel(server.connection(), state_dir=str(tmp_path / "state")).open(server.target())
        waiting = asyncio.create_task(session.wait(await session.start("a" * 32, step), step))
        await until(lambda: log.read_text().count("Starting session: command") == 1)
        # Long enough for any polling to show; that nothing happens cannot be waited for.
        assert not (await asyncio.wait({waiting}, timeout=1.0))[0]
        await asyncio.to_thread(pipe.write_text, "go\n")
        progress = await waiting
        assert progress.attach is Attach.ENDED
        assert log.read_text().count("Starting session: command") == 1
        assert logins(server) == 1
        await session.close()
    finally:
        server.stop()
