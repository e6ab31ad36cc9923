"""An undo goes wave by wave, newest first, stops after a wave in which one failed, and waits for no place in vain."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from patching.change import Outcome, TargetState
from patching.ledger.base import Lease, TargetRow
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.capacity import target_claims
from patching.rollout.control import undo
from patching.rollout.incidents import incidents
from patching.rollout.reconcile import reconcile
from patching.rollout.undo_stop import left_by_stop, may_begin, told_left
from unit.rollout.fleet import START, Fleet


async def completed(folder: Path, **spec: Any) -> Fleet:
    fleet = Fleet(folder, **spec)
    assert (await fleet.whole()).good
    return fleet


def of_wave(fleet: Fleet, wave: int) -> list[str]:
    return sorted(item.target.name for item in fleet.frozen.targets if item.wave == wave)


def undo_times(fleet: Fleet) -> dict[str, tuple[datetime, datetime]]:
    """Give when each target's undo began its first step, and when its outcome was written."""
    begun: dict[str, datetime] = {}
    ended: dict[str, datetime] = {}
    for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.INTENT, EntryKind.TARGET_OUTCOME]):
        name = entry.target or ""
        if entry.kind is EntryKind.INTENT and entry.body["step"]["phase"] == "undo":
            begun.setdefault(name, entry.at)
        elif entry.body.get("undo"):
            ended[name] = entry.at
    return {name: (at, ended[name]) for name, at in begun.items()}


async def test_older_wave_begins_only_when_the_newer_one_has_ended(tmp_path: Path) -> None:
    fleet = await completed(tmp_path)
    undo(fleet.ledger, fleet.rollout, "alice", "late regression")
    await fleet.undo(None)
    assert fleet.state == "undone"
    times = undo_times(fleet)
    assert set(times) == set(fleet.names)
    for older, newer in ((1, 2), (2, 3)):
        first = min(times[name][0] for name in of_wave(fleet, older))
        last = max(times[name][1] for name in of_wave(fleet, newer))
        assert last < first, f"wave {older} began before wave {newer} had ended"


async def test_failed_undo_stops_before_the_older_waves_and_a_person_goes_on(tmp_path: Path) -> None:
    fleet = await completed(tmp_path)
    bad = of_wave(fleet, 2)[0]
    fleet.hosts.change(bad, fail_undo=100)
    undo(fleet.ledger, fleet.rollout, "alice", "late regression")
    summary = await fleet.undo(None)
    (canary,) = of_wave(fleet, 1)
    assert fleet.versions() == {name: "1.1" if name in (bad, canary) else "1.0" for name in fleet.names}
    said = "wave 1 not begun (1 target stays changed), because an undo of a newer wave failed"
    assert said in summary.sentence
    assert f"NOT undone: {bad}" in summary.sentence
    assert canary not in summary.sentence
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    assert (row.state, said in row.reason) == ("held", True)
    (found,) = incidents(fleet.ledger)
    assert said in found.cause

    fleet.hosts.change(bad, fail_undo=0)
    undo(fleet.ledger, fleet.rollout, "alice", "repaired")
    await fleet.undo(None)
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}
    assert fleet.twice() == []
    assert fleet.ledger.verify() == []


async def test_newer_wave_waits_for_no_place_that_an_older_ones_unknown_target_holds(tmp_path: Path) -> None:
    """One place for both: what became of the canary was lost, and only its own undo gives its place back."""
    waves = [{"canary": {"count": 1}}, {"size": "100%"}]
    rollout = {"failureDomain": "role", "maxUnavailable": 1, "waves": waves}
    fleet = Fleet(tmp_path, hosts=2, verify=[], rollout=rollout)
    assert (await fleet.whole(waves=2)).good
    (canary,) = of_wave(fleet, 1)
    planned = fleet.frozen.planned(canary)
    assert planned is not None
    lease = fleet.ledger.acquire("dead", fleet.rollout, canary, target_claims(fleet.frozen, planned.target), ttl=5.0)
    assert isinstance(lease, Lease)
    body = {"outcome": "unknown", "reason": "lost", "signature": None, "active": False}
    key = f"target-outcome:{canary}:lost"
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.TARGET_OUTCOME, key=key, target=canary, body=body))
    fleet.clock.advance(seconds=60)
    assert [item.target for item in fleet.ledger.leases()] == [canary]
    undo(fleet.ledger, fleet.rollout, "alice", "back")
    await fleet.undo(None)
    assert set(fleet.versions().values()) == {"1.0"}
    assert fleet.state == "undone"


async def test_tick_that_waits_for_no_place_goes_on_to_the_older_waves_as_places_become_free(tmp_path: Path) -> None:
    """One place for all: in each round most of a wave find it taken, and the older wave must still have its turn."""
    rollout = {"failureDomain": "role", "maxUnavailable": 1, "waves": [{"canary": {"count": 1}}, {"size": "100%"}]}
    fleet = Fleet(tmp_path, hosts=3, verify=[], rollout=rollout)
    assert (await fleet.whole(waves=2)).good
    undo(fleet.ledger, fleet.rollout, "alice", "back")
    await reconcile(fleet.site)
    assert set(fleet.versions().values()) == {"1.0"}
    assert fleet.state == "undone"
    times = undo_times(fleet)
    assert max(times[name][1] for name in of_wave(fleet, 2)) < times[of_wave(fleet, 1)[0]][0]
    assert fleet.twice() == []


def row_of(wave: int, undone: Outcome | None, outcome: Outcome | None = Outcome.APPLIED) -> TargetRow:
    return TargetRow(
        rollout="r",
        target=f"t-{wave}-{undone}",
        wave=wave,
        state=TargetState.ENDED,
        outcome=outcome,
        undo_outcome=undone,
        began_at=START,
    )


ENDS = [None, Outcome.UNDONE, Outcome.FAILED, Outcome.UNKNOWN, Outcome.STAYS_CHANGED, Outcome.SKIPPED]


@given(st.lists(st.builds(row_of, st.integers(1, 4), st.sampled_from(ENDS)), max_size=8))
def test_what_is_left_by_a_stop_is_what_may_never_begin(rows: list[TargetRow]) -> None:
    for row in left_by_stop(rows):
        assert row.undo_outcome is None
        assert not may_begin(rows, row.wave)
    newest = max((row.wave for row in rows), default=1)
    assert may_begin(rows, newest)
    assert bool(told_left(left_by_stop(rows))) == bool(left_by_stop(rows))


def test_target_that_stays_changed_stops_nothing_since_nothing_was_tried_on_it() -> None:
    assert may_begin([row_of(2, Outcome.STAYS_CHANGED), row_of(1, None)], 1)
    assert not may_begin([row_of(2, Outcome.UNKNOWN), row_of(1, None)], 1)
    assert not may_begin([row_of(2, None), row_of(1, None)], 1)
