"""The silence hook in whole change jobs at a real Alertmanager, as its own API shows it (S4, L10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from patching.channels.service import ServiceSession
from patching.hooks.alertmanager import AlertmanagerKind
from patching.policy_hooks import Hook
from patching.sources.base import Connection
from patching.target import Member, Target
from servers.alertmanager import alertmanager
from unit.rollout.fleet import Fleet

HOOK = {
    "silence": "alertmanager",
    "connection": "alerts",
    "matchers": {"instance": "{address}:9100", "job": "{name}"},
    "atMost": 600.0,
}


class Died(Exception):
    """Stands for the death of a worker at a crash point."""


class Connections:
    """The one connection of these tests."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, connection_id: str) -> Connection:
        return Connection(id=connection_id, host="127.0.0.1", port=self.port)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with alertmanager() as running:
        yield running


def silences(port: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"http://127.0.0.1:{port}/api/v2/silences", trust_env=False).json()
    return [item for item in found if item["status"]["state"] == "active"]


async def begun(tmp_path: Path, port: int) -> Fleet:
    fleet = Fleet(tmp_path, hosts=1, hooks=[HOOK], rollout={"waves": [{"canary": {"count": 1}}]})
    # The Alertmanager has the real time, so the fleet has it too.
    fleet.clock.now = datetime.now(UTC)
    fleet.site = replace(fleet.site, connections=Connections(port))
    await fleet.begin()
    await fleet.gate(1)
    return fleet


def watching(fleet: Fleet, port: int) -> list[list[dict[str, Any]]]:
    seen: list[list[dict[str, Any]]] = []

    def look(point: str) -> None:
        applying = [item for item in fleet.ledger.intents(rollout=fleet.rollout) if item.step["phase"] == "apply"]
        if point == "started" and applying:
            seen.append(silences(port))

    fleet.site = replace(fleet.site, crash=look)
    return seen


async def test_alerts_of_the_target_and_no_other_are_silenced_during_its_change_only(tmp_path: Path, port: int) -> None:
    fleet = await begun(tmp_path, port)
    seen = watching(fleet, port)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    ((silence,),) = seen
    matchers = {item["name"]: (item["value"], item["isRegex"], item["isEqual"]) for item in silence["matchers"]}
    assert matchers == {"instance": ("127.0.0.1:9100", False, True), "job": ("web-01", False, True)}
    assert fleet.rollout in silence["comment"]
    assert silence["createdBy"] == "patching"
    assert silences(port) == []


async def test_silence_ends_by_itself_after_its_time_should_nobody_end_it(tmp_path: Path, port: int) -> None:
    fleet = await begun(tmp_path, port)
    seen = watching(fleet, port)
    began = fleet.clock.now
    await fleet.apply(1)
    ends = datetime.fromisoformat(seen[0][0]["endsAt"])
    assert timedelta(minutes=9) < ends - began <= timedelta(minutes=11)


@pytest.mark.parametrize("point", ["intent-written", "started", "ended", "outcome-written"])
async def test_dead_worker_leaves_one_silence_which_the_next_one_takes_over_and_ends(
    tmp_path: Path, port: int, point: str
) -> None:
    fleet = await begun(tmp_path, port)
    here = fleet.site

    def die(passed: str) -> None:
        entered = [item for item in fleet.ledger.intents(open_only=False) if item.step["phase"] == "enter"]
        if passed == point and entered:
            raise Died

    fleet.site = replace(here, crash=die, owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    assert len(silences(port)) == (point != "intent-written" and point != "started")
    fleet.clock.advance(seconds=60)
    fleet.site = replace(here, owner="next")
    seen = watching(fleet, port)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    assert [len(found) for found in seen] == [1]
    assert silences(port) == []


def by_alice(port: int) -> str:
    """Make a silence as a person does; gives its id."""
    now = datetime.now(UTC)
    theirs = {
        "matchers": [{"name": "job", "value": "web-01", "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "alice",
        "comment": "disk",
    }
    url = f"http://127.0.0.1:{port}/api/v2/silences"
    return str(httpx.post(url, json=theirs, trust_env=False).json()["silenceID"])


async def test_silence_of_somebody_else_is_left_alone(tmp_path: Path, port: int) -> None:
    made = by_alice(port)
    fleet = await begun(tmp_path, port)
    await fleet.apply(1)
    assert [item["id"] for item in silences(port)] == [made]
    ended(port, made)


def ended(port: int, silence: str) -> None:
    httpx.delete(f"http://127.0.0.1:{port}/api/v2/silence/{silence}", trust_env=False).raise_for_status()


async def test_refused_silence_says_what_the_alertmanager_said(port: int) -> None:
    hook = Hook(silence="alertmanager", connection="alerts", matchers={"no label!": "{name}"})
    target = Target(name="web-01", members=(Member(address="127.0.0.1"),))
    step = AlertmanagerKind().enter(hook, target, "r", None)
    assert step is not None
    session = ServiceSession(Connections(port), lambda: datetime.now(UTC), "web-01")
    progress = await session.wait(await session.start("id", step), step)
    assert progress.reply is not None
    assert progress.reply.exit_code == 1
    assert "the Alertmanager answered POST /api/v2/silences with 400" in progress.reply.stderr
