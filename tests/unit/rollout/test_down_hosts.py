"""Hosts that go down after planning take places too (F2, S3): no limit is exceeded, nobody waits for ever."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.change import Outcome
from patching.ledger.base import Claim, Lease
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.capacity import Place, places
from patching.plan.freeze import freeze_plan
from unit.plan.made import NOW, candidate, fleet, policy
from unit.rollout.fleet import Fleet

ONE_WAVE = {"waves": [{"size": "100%"}], "stopWhen": {"failedTargets": 100}}
QUORUM = {**ONE_WAVE, "failureDomain": None, "minHealthy": 5, "maxUnavailable": "100%"}


def applied(fleet: Fleet) -> int:
    return list(fleet.outcomes().values()).count("applied")


def stops(fleet: Fleet) -> list[dict[str, Any]]:
    entries = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.WAVE_APPLIED])
    return [entry.body["stop"] for entry in entries if entry.body["stop"]]


async def begun(folder: Path, *, offline: int = 0, bad: int = 0, **spec: Any) -> Fleet:
    """A rollout whose first ``offline`` targets, then ``bad`` ones, are so from after planning on."""
    made = Fleet(folder, verify=[], **{"rollout": QUORUM, "onFailure": {"retry": {"times": 0}}, **spec})
    await made.begin()
    order = made.frozen.waves[0].targets
    for name in order[:offline]:
        made.hosts.change(name, offline=True)
    for name in order[offline : offline + bad]:
        made.hosts.change(name, fail=100)
    made.site = replace(made.site, concurrency=1)
    await made.gate(1)
    return made


@pytest.mark.parametrize("kind", ["offline", "bad"])
async def test_host_that_went_down_after_planning_takes_the_place_that_a_quorum_leaves(
    tmp_path: Path, kind: str
) -> None:
    made = await begun(tmp_path, **{kind: 1})
    summary = await made.apply(1)
    down = made.frozen.waves[0].targets[0]
    assert applied(made) == 0
    assert stops(made)[-1]["rule"] == "capacity"
    assert stops(made)[-1]["sentence"] == f"service web cannot move: {down} is down, limit 1"
    assert stops(made)[-1]["sentence"] in summary.sentence
    assert made.ledger.leases() == []
    assert made.ledger.waiters() == []
    assert f"service web cannot move: {down} is down, limit 1" in (await made.judge(1)).sentence
    assert made.state == "waiting"


async def test_rest_goes_on_as_soon_as_the_host_is_back(tmp_path: Path) -> None:
    made = await begun(tmp_path, offline=1)
    await made.apply(1)
    await made.judge(1)
    made.hosts.change(made.frozen.waves[0].targets[0], offline=False)
    made.new_run("run-2")
    await made.discover()
    await made.wave(1)
    assert applied(made) == 6


async def test_host_that_is_still_down_is_not_opened_again_and_keeps_its_place(tmp_path: Path) -> None:
    made = await begun(tmp_path, offline=1)
    await made.apply(1)
    await made.judge(1)
    made.new_run("run-2")
    await made.discover()
    await made.wave(1)
    assert applied(made) == 0
    assert made.outcomes()[made.frozen.waves[0].targets[0]] == "offline"


async def test_failed_target_that_was_undone_takes_no_place_any_more(tmp_path: Path) -> None:
    made = await begun(tmp_path, bad=1)
    await made.apply(1)
    await made.judge(1)
    await made.undo(1)
    made.new_run("run-2")
    await made.discover()
    await made.wave(1)
    assert applied(made) == 5


async def test_only_the_domain_of_the_host_that_is_down_stops(tmp_path: Path) -> None:
    made = await begun(tmp_path, offline=1, rollout={**ONE_WAVE, "maxUnavailable": 1})
    await made.apply(1)
    down = made.frozen.planned(made.frozen.waves[0].targets[0]).target
    mates = [item.target.name for item in made.frozen.targets if item.target.labels["az"] == down.labels["az"]]
    assert {name for name, outcome in made.outcomes().items() if outcome != "applied"} == set(mates)


async def test_targets_that_wait_for_a_full_zone_leave_the_window_to_the_free_zones(tmp_path: Path) -> None:
    """Another rollout keeps the only place of az-a: as many wait for it as the window has slots."""
    made = Fleet(tmp_path, hosts=12, verify=[], rollout={**ONE_WAVE, "maxUnavailable": 1})
    await made.begin()
    made.site = replace(made.site, concurrency=2)
    await made.gate(1)
    order = sorted(made.frozen.targets, key=lambda item: item.target.labels["az"])
    wave = made.frozen.waves[0].model_copy(update={"targets": tuple(item.target.name for item in order)})
    claims = [Claim(kind="domain", name="web az=az-a", limit=1)]
    held = made.ledger.acquire("worker-2", "other", "other-01", claims, ttl=10_000)
    assert isinstance(held, Lease)

    async def others_are_done() -> None:
        while applied(made) < 8:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.01)
        assert len(made.ledger.waiters()) <= 2
        made.ledger.release(held)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patching.rollout.wave.shard_of", lambda plan, *_: [plan.planned(name) for name in wave.targets])
        await asyncio.gather(made.apply(1), asyncio.wait_for(others_are_done(), 60))
    assert applied(made) == 12


async def test_place_that_an_unknown_target_of_another_rollout_holds_ends_the_wave_and_is_named(tmp_path: Path) -> None:
    """Nobody works on that one any more, and only a person can free its place: waiting would never end."""
    made = Fleet(tmp_path, verify=[], rollout={**ONE_WAVE, "maxUnavailable": 1})
    await made.begin()
    await made.gate(1)
    row, other = [{"name": "other-01", "wave": 1}], "other"
    plan = made.ledger.store_document("other", {})
    unknown = {"outcome": "unknown", "reason": "gone", "signature": "unknown", "undo": False}
    for kind, body in (
        (EntryKind.ROLLOUT_OPENED, {"policy": "other"}),
        (EntryKind.PLAN_FROZEN, {"plan": plan, "targets": row}),
        (EntryKind.TARGET_OUTCOME, unknown),
    ):
        named = "other-01" if kind is EntryKind.TARGET_OUTCOME else None
        made.ledger.append(NewEntry(chain=other, kind=kind, key=kind.value, target=named, body=body))
    claims = [Claim(kind="domain", name="web az=az-a", limit=1)]
    assert isinstance(made.ledger.acquire("worker-2", other, "other-01", claims, ttl=5), Lease)
    made.clock.advance(seconds=60)
    await asyncio.wait_for(made.apply(1), 60)
    assert applied(made) == 4
    assert stops(made)[-1]["rule"] == "capacity"
    assert "nobody knows what became of other-01" in stops(made)[-1]["sentence"]


# The rule itself


def test_down_targets_take_places_of_what_they_share_but_none_of_their_own() -> None:
    everybody = fleet([3, 3])
    rules = policy(rollout={"failureDomain": "az", "maxUnavailable": 2})
    plan = freeze_plan(
        rollout="r", policy=rules, now=NOW, candidates=[candidate(item) for item in everybody], exclusions=[]
    )
    alone = {place.claim.kind: place.down for place in places(plan, everybody[0], {"web-0-0"})}
    assert set(alone.values()) == {()}
    shared = {place.claim.kind: place.down for place in places(plan, everybody[0], {"web-0-1", "web-1-0"})}
    assert shared["domain"] == ("web-0-1",)
    assert shared["target"] == ()


@given(st.integers(1, 9), st.integers(0, 12))
def test_place_says_that_it_cannot_move_exactly_when_nothing_is_left(limit: int, down: int) -> None:
    place = Place(claim=Claim(kind="domain", name="d", limit=limit), down=tuple(f"h{n}" for n in range(down)))
    assert place.left.limit == max(limit - down, 0)
    assert (place.cannot_move is not None) == (place.left.limit == 0)


# Random outcomes, looked at from outside


class Witness:
    """Counts, whenever a step begins, who is in a step, was found offline, or is left broken."""

    def __init__(self, made: Fleet) -> None:
        self.made = made
        self.most = 0
        made.site = replace(made.site, crash=self.crash)

    def crash(self, point: str) -> None:
        if point != "started":
            return
        open_ones = {item.target for item in self.made.ledger.intents(rollout=self.made.rollout)}
        self.most = max(self.most, len(open_ones | self.broken()))

    def broken(self) -> set[str]:
        return {
            row.target
            for row in self.made.ledger.targets(self.made.rollout)
            if row.outcome in (Outcome.FAILED, Outcome.OFFLINE) and row.undo_outcome is None
        }


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.sampled_from(["well", "well", "offline", "bad"]), min_size=6, max_size=6),
    st.integers(1, 3),
    st.sampled_from([[{"size": "100%"}], [{"canary": {"count": 1}}, {"size": "100%"}]]),
    st.sampled_from([1, 4]),
)
def test_no_limit_is_exceeded_by_hosts_that_go_down_whatever_becomes_of_them(
    fates: list[str], limit: int, waves: list[dict[str, Any]], room: int
) -> None:
    async def rollout(folder: Path) -> None:
        rules = {**ONE_WAVE, "failureDomain": None, "minHealthy": 6 - limit, "maxUnavailable": "100%", "waves": waves}
        made = Fleet(folder, verify=[], rollout=rules, onFailure={"retry": {"times": 0}})
        made.site = replace(made.site, concurrency=room)
        await made.begin()
        for item, fate in zip(made.frozen.targets, fates, strict=True):
            made.hosts.change(item.target.name, offline=fate == "offline", fail=100 if fate == "bad" else 0)
        witness = Witness(made)
        for number in range(1, len(waves) + 1):
            await asyncio.wait_for(made.wave(number), 20)
        assert witness.most <= limit, json.dumps(made.outcomes())
        assert made.ledger.leases() == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(rollout(Path(folder)))
