"""The rollback drill (F10): the undo is tried on the first canary before anybody else follows, and survives deaths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.errors import FenceLost
from patching.ledger.entry import EntryKind
from patching.rollout import drill
from patching.rollout.answers import VerdictName
from patching.rollout.undo_job import UndoJob
from unit.rollout.fleet import Fleet
from unit.rollout.test_crash_points import kill_at
from unit.rollout.test_undo_wait import ends_unknown, other_rollout, takes_the_place

RULES = {"waves": [{"canary": {"count": 2}}, {"size": "100%"}], "drill": True}


async def begun(folder: Path, hosts: int = 4, **rules: Any) -> Fleet:
    fleet = Fleet(folder, hosts=hosts, rollout={**RULES, **rules})
    await fleet.begin()
    await fleet.gate(1)
    return fleet


def canaries(fleet: Fleet) -> tuple[str, ...]:
    found = fleet.frozen.wave(1)
    assert found is not None
    return found.targets


async def test_first_canary_is_changed_undone_and_changed_again_and_no_other_is(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    await fleet.apply(1)
    first, second = canaries(fleet)
    assert len(fleet.hosts.markers(first)) == 3
    assert len(fleet.hosts.markers(second)) == 1
    assert fleet.outcomes()[first] == "applied"
    assert await fleet.wave(1) is VerdictName.PROMOTE
    assert await fleet.wave(2) is VerdictName.PROMOTE
    assert (await fleet.finish()).good
    assert set(fleet.versions().values()) == {"1.1"}
    assert sum(len(fleet.hosts.markers(name)) for name in fleet.names) == len(fleet.names) + 2
    assert fleet.twice() == []
    assert fleet.ledger.verify() == []


async def test_drill_that_finds_no_place_ends_and_the_wave_is_not_judged(tmp_path: Path) -> None:
    """F8: it must not hang in `apply` until somebody kills the task."""
    one_place = {"failureDomain": "role", "maxUnavailable": 1, "waves": [{"canary": {"count": 1}}, {"size": "100%"}]}
    fleet = await begun(tmp_path, hosts=3, **one_place)
    other = await other_rollout(fleet)
    host = next(name for name in fleet.names if name != canaries(fleet)[0])

    def taken(point: str) -> None:
        if point == "drill-begun":
            takes_the_place(fleet, other, host)
            ends_unknown(fleet, other, host)
            fleet.clock.advance(seconds=60)

    fleet.site = replace(fleet.site, crash=taken)
    await fleet.apply(1)
    assert fleet.outcomes()[canaries(fleet)[0]] == "applied"
    answer = await fleet.judge(1)
    assert answer.verdict is None
    assert "rollback drill" in answer.sentence


async def test_wave_is_not_judged_before_its_drill(tmp_path: Path) -> None:
    """T3: whatever Airflow shows of apply."""
    fleet = await begun(tmp_path, waves=[{"canary": {"count": 1}}, {"size": "100%"}])
    await fleet.apply(1, stop=lambda: "marked success by alice" if "applied" in fleet.outcomes().values() else None)
    answer = await fleet.judge(1)
    assert answer.verdict is None
    assert "rollback drill" in answer.sentence
    assert fleet.state == "waiting"
    assert await fleet.wave(1) is VerdictName.PROMOTE, "the next run makes it up"
    assert len(fleet.hosts.markers(canaries(fleet)[0])) == 3


async def test_drill_whose_undo_fails_locks_the_policy_and_nobody_follows(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    first, _second = canaries(fleet)
    fleet.hosts.change(first, fail_undo=100)
    await fleet.apply(1)
    assert fleet.state == "held"
    assert [entry.kind for entry in fleet.ledger.entries("control", kinds=[EntryKind.INCIDENT_OPENED])]
    for wave in (1, 2):
        await fleet.wave(wave)
    assert [name for name in fleet.names if fleet.hosts.markers(name)] == sorted(canaries(fleet))


async def test_worker_that_slept_before_its_drill_does_not_undo_what_was_proven_and_changed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chaos seed 120: a zombie undid the canary a second time, under a rollout that was judged and over."""
    fleet = await begun(tmp_path)
    await fleet.apply(1)
    first, _second = canaries(fleet)
    done = fleet.hosts.markers(first)
    monkeypatch.setattr(drill, "missing", lambda *_: "what the zombie read before it slept")
    await fleet.apply(1)
    assert fleet.hosts.markers(first) == done
    assert fleet.outcomes()[first] == "applied"
    assert fleet.versions()[first] == "1.1"
    assert fleet.ledger.leases() == []


async def test_worker_whose_drill_is_taken_over_ends_its_task_in_peace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chaos seed 285: its task ended with an error, though all was well."""
    fleet = await begun(tmp_path)

    async def lost(*_: object, **_more: object) -> None:
        raise FenceLost("somebody else has it")

    monkeypatch.setattr(UndoJob, "conclude", lost)
    await fleet.apply(1)
    assert fleet.state == "running"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("drill-begun", 1),
        ("intent-written", 3),
        ("started", 3),
        ("outcome-written", 3),
        ("target-outcome-written", 3),
        ("intent-written", 4),
        ("started", 4),
        ("target-outcome-written", 4),
    ],
)
async def test_worker_killed_in_the_drill_ends_it_once(tmp_path: Path, point: str, nth: int) -> None:
    fleet = await begun(tmp_path, hosts=3)
    assert kill_at(fleet, point, nth, "apply:1") == -9
    fleet.clock.advance(seconds=60)
    await fleet.apply(1)
    first, second = canaries(fleet)
    assert fleet.outcomes()[first] == fleet.outcomes()[second] == "applied"
    assert await fleet.wave(1) is VerdictName.PROMOTE
    assert fleet.versions()[first] == "1.1"
    assert (len(fleet.hosts.markers(first)), len(fleet.hosts.markers(second))) == (3, 1)
    assert fleet.twice() == []
    assert fleet.ledger.verify() == []
