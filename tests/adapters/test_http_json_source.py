"""The HTTP and JSON source against a real server (S5, F9): what it reads, what planning finds, what is no answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from patching.errors import ConnectionMissing, MetricSourceUnavailable
from patching.policy_metrics import HttpJsonCheck
from patching.sources.base import Connection
from patching.sources.http_json import HttpJsonSource
from patching.target import Member, Target
from servers.loopback import free_port
from servers.status import Status, status_server

TARGETS = [Target(name=name, labels={"az": "a/b"}, members=(Member(address="127.0.0.1"),)) for name in ("web-1", "w/2")]


class Connections:
    def __init__(self, **known: Connection) -> None:
        self.known = known

    def get(self, connection_id: str) -> Connection:
        if connection_id not in self.known:
            raise ConnectionMissing(f'connection "{connection_id}" does not exist')
        return self.known[connection_id]


@pytest.fixture
def status() -> Iterator[Status]:
    with status_server() as running:
        yield running


def source(status: Status, *, port: int = 0, **check: Any) -> HttpJsonSource:
    extra = {"headers": {"X-Scope": "shop"}}
    connection = Connection(
        id="shop", type="http", host="127.0.0.1", port=port or status.port, login="eva", password="x", extra=extra
    )
    rules = {"connection": "shop", "url": "/status", "pointer": "/hosts/{name}/depth"} | check
    return HttpJsonSource(HttpJsonCheck.model_validate(rules), Connections(shop=connection))


async def test_one_answer_for_all_targets_is_asked_once_with_the_connections_login(status: Status) -> None:
    status.tell({"hosts": {"web-1": {"depth": 7}, "w/2": {"depth": 0.5}}})
    found = await source(status).now(TARGETS)
    assert (found.values, found.failed) == ({"web-1": 7.0, "w/2": 0.5}, {})
    assert status.asked == {"/status": 1}
    assert status.headers["X-Scope"] == "shop"
    assert status.headers["Authorization"].startswith("Basic ")


async def test_each_target_has_its_own_url_in_which_its_name_is_quoted(status: Status) -> None:
    status.tell({"depth": 3})
    found = await source(status, url="/of/{name}?zone={label:az}", pointer="/depth").now(TARGETS)
    assert found.values == {"web-1": 3.0, "w/2": 3.0}
    assert status.asked == {"/of/web-1?zone=a%2Fb": 1, "/of/w%2F2?zone=a%2Fb": 1}


async def test_whole_url_of_the_targets_needs_no_connection(status: Status) -> None:
    status.tell([{"n": 12}])
    rules = HttpJsonCheck(url=f"http://{{address}}:{status.port}/x", pointer="/0/n")
    assert (await HttpJsonSource(rules, Connections()).now(TARGETS[:1])).values == {"web-1": 12.0}
    assert "Authorization" not in status.headers


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (200, b'{"hosts": {"web-1": {"length": 1}}}', 'there is no "depth" at "/hosts/web-1", but length'),
        (200, b'{"hosts": {"web-1": {"depth": "12"}}}', 'no number, but "12"'),
        (200, b'{"hosts": {"web-1": {"depth": true}}}', "no number, but true"),
        (200, b'{"hosts": {"web-1": {"depth": NaN}}}', "no number, but NaN"),
        (200, b"<html>", "is no JSON"),
        (200, b" " * 1_000_001, "more than 1,000,000 bytes"),
        (404, b"{}", "status 404, expected 200"),
        (302, b"{}", "status 302, expected 200"),
        (401, b"{}", "status 401, expected 200"),
    ],
)
async def test_answer_without_the_number_is_found_when_planning_and_is_no_data(
    status: Status, code: int, body: bytes, words: str
) -> None:
    status.answer = lambda _path: (code, body)
    (refusal,) = await source(status).validate(TARGETS[:1])
    assert refusal.blocking
    assert words in refusal.message
    found = await source(status).now(TARGETS[:1])
    assert found.values == {}
    assert words in found.failed["web-1"]


@pytest.mark.parametrize("code", [500, 503, 429])
async def test_service_that_is_ill_is_no_error_of_the_plan_and_no_data(status: Status, code: int) -> None:
    status.answer = lambda _path: (code, b'{"hosts": {"web-1": {"depth": 1}}}')
    with pytest.raises(MetricSourceUnavailable, match=f"status {code}"):
        await source(status).validate(TARGETS)
    assert (await source(status).now(TARGETS)).values == {}


async def test_one_target_without_a_value_is_said_and_blocks_nothing(status: Status) -> None:
    status.tell({"hosts": {"web-1": {"depth": 7}}})
    (refusal,) = await source(status).validate(TARGETS)
    assert not refusal.blocking
    assert "no current value for w/2" in refusal.message


async def test_nobody_listens(status: Status) -> None:
    nowhere = source(status, port=free_port())
    with pytest.raises(MetricSourceUnavailable, match="GET http://127"):
        await nowhere.validate(TARGETS)
    assert set((await nowhere.now(TARGETS)).failed) == {"web-1", "w/2"}


async def test_service_that_never_answers_is_waited_for_only_so_long(status: Status) -> None:
    ended = Event()

    def hang(_path: str) -> tuple[int, bytes]:
        ended.wait(10)
        return 200, b"{}"

    status.answer = hang
    try:
        found = await source(status, timeout=0.1).now(TARGETS[:1])
    finally:
        ended.set()
    assert "no answer within 0.1 s" in found.failed["web-1"]


async def test_connection_that_does_not_exist_is_said() -> None:
    with pytest.raises(ConnectionMissing, match="shop"):
        HttpJsonSource(HttpJsonCheck(connection="shop", url="/x", pointer="/y"), Connections())


async def test_numbers_that_json_can_say_are_read_as_they_are(status: Status) -> None:
    status.answer = lambda _path: (200, json.dumps({"hosts": {"web-1": {"depth": -1.5e3}}}).encode())
    assert (await source(status).now(TARGETS[:1])).values == {"web-1": -1500.0}
