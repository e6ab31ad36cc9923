"""A rollout that is judged by a service's own JSON (S5, F9): it has no past, so it is asked while the rollout works."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from patching.errors import ConnectionMissing, LedgerUnavailable, PlanError
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.rollout.answers import JudgeAnswer, VerdictName
from patching.rollout.polling import poll, polling
from patching.sources.http_json import HttpJsonSource
from servers.status import Status, status_server
from unit.rollout.fleet import Fleet

HOSTS = 8


class Polled:
    """A fleet beside a service that tells every host's queue of about 50; a harmed one's is ``factor`` times that."""

    def __init__(self, folder: Path, status: Status, hosts: int = HOSTS, factor: float = 4, **more: str) -> None:
        self.status, self.factor = status, factor
        check = {"name": "queue", "httpJson": {"url": f"{status.url}/status", "pointer": "/queue/{name}"}, **more}
        waves = [{"canary": {"count": 1}, "soak": "10m"}, {"size": "100%", "soak": "10m"}]
        self.fleet = Fleet(folder, hosts=hosts, rollout={"waves": waves}, verify=[check])
        self.harmed: set[str] = set()
        self.noise = random.Random(5)  # noqa: S311 - a figure
        self.fleet.site = replace(
            self.fleet.site, polled=lambda rules: HttpJsonSource(rules, self.fleet.site.connections)
        )
        status.answer = self.answer

    def answer(self, _path: str) -> tuple[int, bytes]:
        queue = {
            name: 50 * self.noise.lognormvariate(0, 0.05) * (self.factor if name in self.harmed else 1)
            for name in self.fleet.names
        }
        return 200, json.dumps({"queue": queue}).encode()

    async def applied(self, wave: int = 1) -> tuple[str, ...]:
        if wave == 1:
            await self.fleet.begin()
        await self.fleet.gate(wave)
        await self.fleet.apply(wave)
        found = self.fleet.frozen.wave(wave)
        assert found is not None
        return found.targets

    async def soaked(self, wave: int = 1) -> JudgeAnswer:
        """Ask the judge as often as it wants to be asked, until it has decided."""
        answer = await self.fleet.judge(wave)
        while answer.again_at is not None:
            self.fleet.clock.now = max(answer.again_at, self.fleet.clock.now)
            answer = await self.fleet.judge(wave)
        return answer

    def rounds(self) -> list[LedgerEntry]:
        return self.fleet.ledger.entries(self.fleet.rollout, kinds=[EntryKind.POLLED])


@pytest.fixture
def status() -> Iterator[Status]:
    with status_server() as running:
        yield running


@pytest.fixture
def polled(tmp_path: Path, status: Status) -> Polled:
    return Polled(tmp_path, status)


async def test_healthy_waves_are_promoted_the_last_one_beside_its_own_time_before(polled: Polled) -> None:
    """The last wave has no control; what it answered as control of the first is its time before."""
    await polled.applied()
    first = await polled.soaked()
    assert first.verdict is VerdictName.PROMOTE, first.sentence
    assert "the unchanged targets" in first.sentence
    await polled.applied(2)
    last = await polled.soaked(2)
    assert last.verdict is VerdictName.PROMOTE, last.sentence
    assert "the time before" in last.sentence


async def test_service_is_asked_every_half_minute_and_once_a_round(polled: Polled) -> None:
    await polled.applied()
    await polled.soaked()
    moments = [entry.at for entry in polled.rounds()]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert len(moments) >= 20
    assert max(gaps) <= timedelta(seconds=31)
    assert polled.status.asked["/status"] == len(moments) + 1  # and once when planning


async def test_harmed_canary_is_undone_before_its_soak_is_over(polled: Polled) -> None:
    (canary,) = await polled.applied()
    polled.harmed.add(canary)
    began = polled.fleet.clock.now
    answer = await polled.soaked()
    assert answer.verdict is VerdictName.UNDO, answer.sentence
    assert polled.fleet.clock.now - began < timedelta(seconds=590)


async def test_harm_of_the_last_wave_is_seen_against_its_own_time_before(polled: Polled) -> None:
    await polled.applied()
    assert (await polled.soaked()).verdict is VerdictName.PROMOTE
    polled.harmed.update(await polled.applied(2))
    answer = await polled.soaked(2)
    assert answer.verdict is VerdictName.UNDO, answer.sentence


async def test_service_that_fails_during_the_soak_holds_and_says_why(polled: Polled) -> None:
    """F9: no data is never a pass."""
    await polled.applied()
    polled.status.answer = lambda _path: (503, b"")
    answer = await polled.soaked()
    assert answer.verdict is VerdictName.HOLD
    assert "status 503" in answer.sentence


async def test_service_that_goes_away_in_the_middle_of_the_soak_holds(polled: Polled) -> None:
    await polled.applied()
    answer = await polled.fleet.judge(1)
    for _ in range(8):
        assert answer.again_at is not None
        polled.fleet.clock.now = answer.again_at
        answer = await polled.fleet.judge(1)
    polled.status.answer = lambda _path: (200, b"{}")
    answer = await polled.soaked()
    assert answer.verdict is VerdictName.HOLD
    assert "no data" in answer.sentence


async def test_soak_in_which_no_worker_came_to_ask_is_never_a_pass(polled: Polled) -> None:
    await polled.applied()
    await polled.fleet.judge(1)
    polled.fleet.clock.advance(seconds=700)
    answer = await polled.fleet.judge(1)
    assert answer.verdict is VerdictName.HOLD, answer.sentence


async def test_worker_that_starts_again_goes_on_with_what_the_dead_one_wrote(polled: Polled, tmp_path: Path) -> None:
    await polled.applied()
    answer = await polled.fleet.judge(1)
    for _ in range(10):
        assert answer.again_at is not None
        polled.fleet.clock.now = answer.again_at
        answer = await polled.fleet.judge(1)
    written = len(polled.rounds())
    polled.fleet.keep()
    polled.fleet.ledger.close()
    reopened = Fleet.reopen(tmp_path)
    reopened.site = replace(reopened.site, polled=polled.fleet.site.polled)
    polled.fleet = reopened
    assert len(polled.rounds()) == written
    answer = await polled.soaked()
    assert answer.verdict is VerdictName.PROMOTE, answer.sentence


async def test_second_shard_in_the_same_slot_asks_nothing(polled: Polled) -> None:
    await polled.applied()
    before = polled.status.asked["/status"]
    polled.fleet.clock.now = polled.fleet.clock.now.replace(second=40)
    await poll(polled.fleet.as_worker("worker-1").site, polled.fleet.frozen, 1)
    await poll(polled.fleet.as_worker("worker-2").site, polled.fleet.frozen, 1)
    assert polled.status.asked["/status"] == before + 1


async def test_wave_that_is_applied_is_asked_before_it_begins_and_again_beside_it(polled: Polled) -> None:
    await polled.fleet.begin()
    site = replace(polled.fleet.site, look_every=0.001)
    asked, before = asyncio.Event(), polled.status.asked["/status"]

    def told(path: str) -> tuple[int, bytes]:
        if polled.status.asked["/status"] > before + 1:
            loop.call_soon_threadsafe(asked.set)
        return polled.answer(path)

    loop, polled.status.answer = asyncio.get_running_loop(), told
    async with polling(site, polled.fleet.frozen, 1):
        assert len(polled.rounds()) == 1
        polled.fleet.clock.advance(seconds=30)
        await asyncio.wait_for(asked.wait(), 30)
    assert polled.status.asked["/status"] >= before + 2


async def test_ledger_that_is_gone_for_a_round_stops_no_wave(polled: Polled) -> None:
    await polled.fleet.begin()
    said: list[str] = []

    class Gone:
        def find(self, *_: object) -> None:
            raise LedgerUnavailable("the ledger is gone")

    site = replace(polled.fleet.site, ledger=Gone(), log=said.append)  # type: ignore[arg-type]
    async with polling(site, polled.fleet.frozen, 1):
        pass
    assert said[0] == "nothing was polled for wave 1: the ledger is gone"


async def test_renamed_place_is_found_when_planning(polled: Polled) -> None:
    polled.status.tell({"queues": {}})
    with pytest.raises(PlanError, match=r'check "queue": .* there is no "queue" at "", but queues'):
        await polled.fleet.plan()


async def test_service_that_is_down_when_planning_is_said_and_stops_no_plan(polled: Polled) -> None:
    polled.status.answer = lambda _path: (503, b"")
    await polled.fleet.plan()
    said = [item.statement for item in polled.fleet.frozen.power]
    assert any("could not be tried" in text and "status 503" in text for text in said)
    assert any("it has no past and is asked every 30s" in text for text in said)


async def test_connection_that_is_deleted_after_planning_holds(polled: Polled) -> None:
    def gone(_rules: object) -> HttpJsonSource:
        raise ConnectionMissing('connection "shop" does not exist')

    await polled.fleet.begin()
    polled.fleet.site = replace(polled.fleet.site, polled=gone)
    await polled.fleet.gate(1)
    await polled.fleet.apply(1)
    answer = await polled.soaked()
    assert answer.verdict is VerdictName.HOLD
    assert "does not exist" in answer.sentence


NOT_KNOWN = "how much hosts differ is not known"


@pytest.mark.parametrize(
    ("controls", "factor", "inconclusive", "verdict", "why"),
    [
        (0, 40, "hold", VerdictName.HOLD, "no comparison has enough data"),
        (2, 1, "hold", VerdictName.HOLD, NOT_KNOWN),
        (2, 4, "hold", VerdictName.HOLD, "not beyond chance yet"),
        (2, 40, "hold", VerdictName.UNDO, "more than tolerated"),
        (2, 1, "promote", VerdictName.PROMOTE, NOT_KNOWN),
        (3, 1, "hold", VerdictName.PROMOTE, "no alarm"),
        (3, 4, "hold", VerdictName.UNDO, "more than tolerated"),
    ],
)
async def test_first_wave_without_a_past_is_promoted_from_three_controls_on_and_undone_only_for_gross_harm(
    tmp_path: Path, status: Status, controls: int, factor: float, inconclusive: str, verdict: VerdictName, why: str
) -> None:
    polled = Polled(tmp_path, status, hosts=controls + 1, onInconclusive=inconclusive, factor=factor)
    polled.harmed.update(await polled.applied())
    answer = await polled.soaked()
    assert answer.verdict is verdict, answer.sentence
    assert why in answer.sentence


async def test_source_without_an_answer_holds_even_where_undecided_is_promoted(tmp_path: Path, status: Status) -> None:
    """F9: ``onInconclusive: promote`` waves through what was measured, never what was not."""
    polled = Polled(tmp_path, status, onInconclusive="promote")
    await polled.applied()
    status.answer = lambda _path: (401, b"")
    assert (await polled.soaked()).verdict is VerdictName.HOLD


async def test_number_without_a_past_tells_no_load(polled: Polled) -> None:
    """Nothing but the control says how much hosts differ: controls chosen by that number would look too much alike."""
    await polled.fleet.plan()
    assert polled.fleet.frozen.loads is None
    assert polled.status.asked["/status"] == 1
