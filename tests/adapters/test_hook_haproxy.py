"""The drain hook in whole change jobs at a real HAProxy, as HAProxy itself and its clients see it (S4, F8)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.errors import ConnectionMissing
from patching.hooks.haproxy import ServerState, parse_states
from patching.ledger.entry import EntryKind
from patching.rollout.states import RolloutState
from patching.sources.base import Connection
from servers.haproxy import Haproxy, haproxy
from servers.loopback import free_port
from unit.rollout.fleet import Fleet

NAMES = ("web-01", "web-02", "web-03")
WAVES = {"waves": [{"canary": {"count": 1}}, {"size": "100%"}]}


class Connections:
    """The connections of a test."""

    def __init__(self, *known: Connection) -> None:
        self.known = {item.id: item for item in known}

    def get(self, connection_id: str) -> Connection:
        if connection_id not in self.known:
            raise ConnectionMissing(f'connection "{connection_id}" does not exist')
        return self.known[connection_id]


class Died(Exception):
    """Stands for the death of a worker at a crash point."""


@pytest.fixture
async def echoes() -> AsyncIterator[dict[str, int]]:
    """Three servers that keep connections open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    servers = {name: await asyncio.start_server(serve, "127.0.0.1", 0) for name in NAMES}
    yield {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    for server in servers.values():
        server.close()


@pytest.fixture
def balancer(echoes: dict[str, int]) -> Iterator[Haproxy]:
    with haproxy({"shop": echoes, "admin": {name: echoes[name] for name in NAMES[:2]}}) as running:
        yield running


def command(balancer: Haproxy, line: str) -> str:
    """Ask HAProxy as a person does, not with the code under test."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(balancer.socket))
        asked.sendall(f"{line}\n".encode())
        return b"".join(iter(lambda: asked.recv(65536), b"")).decode()


def states(balancer: Haproxy) -> dict[str, ServerState]:
    found = parse_states(command(balancer, "show servers state"), command(balancer, "show stat -1 4 -1"))
    return {f"{item.backend}/{item.server}": item for item in found}


async def until(seen: Callable[[], object]) -> None:
    """Wait for what HAProxy shows; the limit is only there so that a failure ends."""
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110 - HAProxy tells nobody when its sessions change
            await asyncio.sleep(0.01)


def out_of_service(balancer: Haproxy) -> set[str]:
    return {name for name, item in states(balancer).items() if not item.in_service}


async def begun(tmp_path: Path, connection: Connection, **hook: Any) -> Fleet:
    hooks = [{"drain": "haproxy", "connection": "lb", "wait": 5.0, **hook}]
    fleet = Fleet(tmp_path, hosts=3, hooks=hooks, rollout=WAVES)
    fleet.site = replace(fleet.site, connections=Connections(connection))
    await fleet.begin()
    await fleet.gate(1)
    return fleet


def over_tcp(balancer: Haproxy) -> Connection:
    return Connection(id="lb", host="127.0.0.1", port=balancer.admin)


def canary(fleet: Fleet) -> str:
    return next(item.target.name for item in fleet.frozen.targets if item.wave == 1)


def both(name: str) -> set[str]:
    return {f"shop/{name}"} | ({f"admin/{name}"} if name in NAMES[:2] else set())


def ends(fleet: Fleet, phase: str) -> list[dict[str, Any]]:
    entries = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.STEP_OUTCOME])
    return [entry.body for entry in entries if entry.body.get("phase") == phase]


def watching(fleet: Fleet, balancer: Haproxy) -> list[set[str]]:
    """Look, each time that a step of the change has begun, who is out of service."""
    seen: list[set[str]] = []

    def look(point: str) -> None:
        applying = [item for item in fleet.ledger.intents(rollout=fleet.rollout) if item.step["phase"] == "apply"]
        if point == "started" and applying:
            seen.append(out_of_service(balancer))

    fleet.site = replace(fleet.site, crash=look)
    return seen


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_target_is_drained_while_it_is_changed_and_ready_after_it(
    tmp_path: Path, balancer: Haproxy, unix: bool
) -> None:
    connection = Connection(id="lb", host=str(balancer.socket)) if unix else over_tcp(balancer)
    fleet = await begun(tmp_path, connection)
    seen = watching(fleet, balancer)
    await fleet.apply(1)
    name = canary(fleet)
    assert fleet.outcomes()[name] == "applied"
    assert seen == [both(name)]
    assert out_of_service(balancer) == set()
    assert [body["ok"] for body in ends(fleet, "enter") + ends(fleet, "leave")] == [True, True]


async def test_only_the_named_backend_is_drained(tmp_path: Path, balancer: Haproxy) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer), backend="shop")
    seen = watching(fleet, balancer)
    await fleet.apply(1)
    assert seen == [{f"shop/{canary(fleet)}"}]


@pytest.mark.parametrize("state", ["drain", "maint"])
async def test_what_somebody_else_took_out_of_service_stays_out(tmp_path: Path, balancer: Haproxy, state: str) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer))
    name = canary(fleet)
    command(balancer, f"set server shop/{name} state {state}")
    before = states(balancer)[f"shop/{name}"].admin
    await fleet.apply(1)
    assert fleet.outcomes()[name] == "applied"
    assert out_of_service(balancer) == {f"shop/{name}"}
    assert states(balancer)[f"shop/{name}"].admin == before


async def test_server_that_a_person_put_into_maintenance_meanwhile_is_not_given_back(
    tmp_path: Path, balancer: Haproxy
) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer), backend="shop")
    name = canary(fleet)

    def look(point: str) -> None:
        if point == "started" and out_of_service(balancer):
            command(balancer, f"set server shop/{name} state maint")

    fleet.site = replace(fleet.site, crash=look)
    await fleet.apply(1)
    assert fleet.outcomes()[name] == "applied"
    assert out_of_service(balancer) == {f"shop/{name}"}
    assert "nothing to give back" in ends(fleet, "leave")[0]["stdout"]


async def test_change_waits_until_the_last_session_has_ended(tmp_path: Path, balancer: Haproxy) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer), backend="shop", wait=30.0)
    name = canary(fleet)
    for other in set(NAMES) - {name}:
        command(balancer, f"set server shop/{other} state maint")
    _, writer = await asyncio.open_connection("127.0.0.1", balancer.front)
    await until(lambda: states(balancer)[f"shop/{name}"].sessions)
    work = asyncio.create_task(fleet.apply(1))
    await until(lambda: f"shop/{name}" in out_of_service(balancer))
    assert fleet.versions()[name] == "1.0"
    assert not work.done()
    writer.close()
    await work
    assert fleet.versions()[name] == "1.1"


@pytest.mark.parametrize(("left", "outcome"), [("fail", "failed"), ("proceed", "applied")])
async def test_sessions_that_stay_fail_the_target_untouched_or_are_accepted(
    tmp_path: Path, balancer: Haproxy, left: str, outcome: str
) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer), backend="shop", wait=0.2, onSessionsLeft=left)
    name = canary(fleet)
    for other in set(NAMES) - {name}:
        command(balancer, f"set server shop/{other} state maint")
    _, writer = await asyncio.open_connection("127.0.0.1", balancer.front)
    await until(lambda: states(balancer)[f"shop/{name}"].sessions)
    await fleet.apply(1)
    assert fleet.outcomes()[name] == outcome
    assert fleet.versions()[name] == ("1.1" if outcome == "applied" else "1.0")
    assert f"shop/{name}" not in out_of_service(balancer)
    writer.close()


@pytest.mark.parametrize(("on_error", "outcome"), [("fail", "failed"), ("ignore", "applied")])
async def test_balancer_that_does_not_answer_fails_the_target_before_it_is_touched_or_is_ignored(
    tmp_path: Path, balancer: Haproxy, on_error: str, outcome: str
) -> None:
    gone = Connection(id="lb", host="127.0.0.1", port=free_port())
    fleet = await begun(tmp_path, gone, onError=on_error, timeout=2.0)
    await fleet.apply(1)
    name = canary(fleet)
    assert fleet.outcomes()[name] == outcome
    assert (fleet.hosts.markers(name) == []) == (outcome == "failed")


async def test_unknown_server_is_said_with_the_name_that_comes_near(tmp_path: Path, balancer: Haproxy) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer), server="wbe-{name}")
    await fleet.apply(1)
    row = next(item for item in fleet.ledger.targets(fleet.rollout) if item.target == canary(fleet))
    assert row.outcome == "failed"
    assert f'has no server "wbe-{row.target}" in any backend' in row.detail
    assert fleet.hosts.markers(row.target) == []


@pytest.mark.parametrize("point", ["intent-written", "started", "ended", "outcome-written"])
async def test_server_is_given_back_though_the_worker_died_while_it_entered(
    tmp_path: Path, balancer: Haproxy, point: str
) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer))
    here = fleet.site

    def die(passed: str) -> None:
        entered = [item for item in fleet.ledger.intents(open_only=False) if item.step["phase"] == "enter"]
        if passed == point and entered:
            raise Died

    fleet.site = replace(here, crash=die, owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    fleet.clock.advance(seconds=60)
    fleet.site = replace(here, owner="next")
    seen = watching(fleet, balancer)
    await fleet.apply(1)
    name = canary(fleet)
    assert fleet.outcomes()[name] == "applied"
    assert seen == [both(name)]
    assert out_of_service(balancer) == set()
    assert not fleet.twice()


@pytest.mark.parametrize("point", ["intent-written", "started", "ended", "outcome-written"])
async def test_undo_gives_back_what_a_dead_change_job_had_drained(
    tmp_path: Path, balancer: Haproxy, point: str
) -> None:
    fleet = await begun(tmp_path, over_tcp(balancer))
    here = fleet.site

    def die(passed: str) -> None:
        applying = [item for item in fleet.ledger.intents(open_only=False) if item.step["phase"] == "apply"]
        if passed == point and applying:
            raise Died

    fleet.site = replace(here, crash=die, owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    assert out_of_service(balancer) == both(canary(fleet))
    fleet.clock.advance(seconds=60)
    fleet.site = replace(here, owner="next")
    fleet.ledger.transition(fleet.rollout, RolloutState.UNDOING, reason="a person wants it")
    await fleet.undo(None)
    assert set(fleet.versions().values()) == {"1.0"}
    assert out_of_service(balancer) == set()
    assert fleet.state == "undone"
