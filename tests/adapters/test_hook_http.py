"""The HTTP hook against a real HTTP server that counts (S4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from patching.errors import ConnectionMissing
from patching.sources.base import Connection
from unit.rollout.fleet import Fleet

CALLS = {
    "enter": {"url": "/changes/{name}", "body": {"host": "{name}", "where": ["{address}", "{label:az}"]}},
    "leave": {"url": "/changes/{name}", "method": "DELETE"},
}


@dataclass
class Receiver:
    """What came in: (method, path, headers, body); ``status`` is what is answered."""

    port: int = 0
    status: int = 200
    got: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)


class Died(Exception):
    """Stands for the death of a worker at a crash point."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a server on loopback that keeps what it gets."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept.got.append((self.command, self.path, dict(self.headers), json.loads(text) if text else None))
            self.send_response(kept.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_DELETE = do_GET = _take  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_address[1]
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def board() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


class Connections:
    """The connection of the change board."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, connection_id: str) -> Connection:
        if connection_id != "board":
            raise ConnectionMissing(f'connection "{connection_id}" does not exist')
        extra = {"headers": {"X-Api-Token": "s3cret"}}
        return Connection(id="board", host=f"http://127.0.0.1:{self.port}/api", login="me", password="pw", extra=extra)


async def begun(tmp_path: Path, board: Receiver, connection: str = "board", **http: Any) -> Fleet:
    hooks = [{"http": {"name": "board", **CALLS, **http}, "connection": connection}]
    fleet = Fleet(tmp_path, hosts=1, hooks=hooks, rollout={"waves": [{"canary": {"count": 1}}]})
    fleet.site = replace(fleet.site, connections=Connections(board.port))
    await fleet.begin()
    await fleet.gate(1)
    return fleet


async def test_request_before_and_after_has_the_target_the_login_and_the_change_id(
    tmp_path: Path, board: Receiver
) -> None:
    fleet = await begun(tmp_path, board)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    (method, path, headers, body), (after, _, left, _) = board.got
    assert (method, path, after) == ("POST", "/api/changes/web-01", "DELETE")
    assert body == {"host": "web-01", "where": ["127.0.0.1", "az-a"]}
    assert headers["X-Patching-Change-Id"] == fleet.rollout
    assert (headers["Authorization"][:6], headers["X-Api-Token"]) == ("Basic ", "s3cret")
    assert headers["Idempotency-Key"] != left["Idempotency-Key"]
    assert left["X-Patching-Outcome"] == "applied"


async def test_secrets_of_the_connection_are_nowhere_in_the_ledger(tmp_path: Path, board: Receiver) -> None:
    board.status = 500
    fleet = await begun(tmp_path, board)
    await fleet.apply(1)
    text = "".join(item.model_dump_json() for item in fleet.ledger.entries(fleet.rollout))
    assert "status 500, expected 200" in text
    assert "s3cret" not in text
    assert "Basic " not in text


async def test_refused_request_fails_the_target_untouched_and_its_leaving_request_is_sent(
    tmp_path: Path, board: Receiver
) -> None:
    board.status = 409
    fleet = await begun(tmp_path, board)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "failed"}
    assert fleet.hosts.markers("web-01") == []
    assert [item[0] for item in board.got] == ["POST", "DELETE"]


async def test_connection_that_does_not_exist_fails_the_target_untouched(tmp_path: Path, board: Receiver) -> None:
    fleet = await begun(tmp_path, board, connection="bord")
    await fleet.apply(1)
    (row,) = fleet.ledger.targets(fleet.rollout)
    assert row.outcome == "failed"
    assert 'connection "bord" does not exist' in row.detail
    assert fleet.hosts.markers("web-01") == []


async def test_failure_that_may_be_ignored_stops_nothing(tmp_path: Path, board: Receiver) -> None:
    board.status = 409
    fleet = await begun(tmp_path, board, onError="ignore")
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}


@pytest.mark.parametrize(("method", "sent"), [("POST", 1), ("PUT", 2)])
async def test_request_of_a_worker_that_died_is_sent_again_only_where_that_does_no_harm(
    tmp_path: Path, board: Receiver, method: str, sent: int
) -> None:
    fleet = await begun(tmp_path, board, enter={"url": "/changes", "method": method})
    here = fleet.site

    def die(passed: str) -> None:
        if passed == "ended":
            raise Died

    fleet.site = replace(here, crash=die, owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    fleet.clock.advance(seconds=60)
    fleet.site = replace(here, owner="next")
    await fleet.apply(1)
    assert [item[0] for item in board.got].count(method) == sent
    assert fleet.outcomes() == {"web-01": "failed" if method == "POST" else "applied"}
    assert board.got[-1][0] == "DELETE"


async def test_cancelled_wait_ends_the_request(tmp_path: Path) -> None:
    from patching.change import Phase, Step, StepKind
    from patching.channels.base import Attach
    from patching.channels.service import ServiceSession

    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    call = {
        "connection": None,
        "timeout": 60.0,
        "repeatable": False,
        "method": "GET",
        "url": f"http://127.0.0.1:{port}/",
        "body": None,
        "status": [200],
        "headers": {},
    }
    step = Step(name="x", phase=Phase.ENTER, kind=StepKind.ACT, channel="http", call=call, deadline=0.05)
    session = ServiceSession(Connections(0), lambda: None, "web-01")  # type: ignore[arg-type, return-value]
    handle = await session.start("id", step)
    await arrived.wait()
    assert (await session.wait(handle, step)).attach is Attach.RUNNING
    await session.cancel(handle)
    assert (await session.look("id", step)).attach is Attach.LOST
    await session.close()
    server.close()
