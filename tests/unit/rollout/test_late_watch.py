"""A regression that shows only after the rollout (F5): no worker slot, one incident, an undo on request."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from patching.ledger.entry import EntryKind
from patching.rollout.control import undo
from patching.rollout.incidents import incidents, lock_of
from patching.rollout.late_watch import watch_finished, watched_until
from patching.rollout.measuring import spans_of
from patching.rollout.reconcile import reconcile
from unit.rollout.fleet import Fleet
from unit.rollout.test_undo_by_wave import undo_times


async def completed(folder, **spec: Any) -> Fleet:  # type: ignore[no-untyped-def]
    rules = {"watch": "24h", **spec.pop("rollout", {})}
    fleet = Fleet(folder, rollout=rules, **spec)
    assert (await fleet.whole()).good
    return fleet


def late_verdicts(fleet: Fleet) -> list[str]:
    return [str(entry.body["verdict"]) for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.LATE_VERDICT])]


async def test_healthy_rollout_is_watched_to_the_end_and_gets_one_verdict(tmp_path):
    fleet = await completed(tmp_path)
    for _ in range(3):
        fleet.clock.advance(hours=6)
        assert await watch_finished(fleet.site) == []
    fleet.clock.advance(hours=8)
    (said,) = await watch_finished(fleet.site)
    assert "watched for 1d after it was completed" in said
    assert late_verdicts(fleet) == ["promote"], said
    fleet.clock.advance(hours=1)
    assert await watch_finished(fleet.site) == []
    assert incidents(fleet.ledger) == []


async def test_late_regression_opens_one_incident_that_locks_the_policy(tmp_path):
    fleet = await completed(tmp_path)
    fleet.clock.advance(hours=3)
    fleet.metrics.errors = dict.fromkeys(fleet.names, 0.2)
    (said,) = (await reconcile(fleet.site)).sentences
    assert "late regression: errors" in said
    assert f"`patching undo {fleet.rollout}`" in said
    assert await watch_finished(fleet.site) == []
    (found,) = incidents(fleet.ledger)
    assert lock_of(fleet.ledger, "web") == found
    assert set(found.targets) == set(fleet.names)
    assert late_verdicts(fleet) == ["undo"]
    assert set(fleet.versions().values()) == {"1.1"}, "a person decides about what is finished"


async def test_finished_rollout_is_undone_on_request_newest_first(tmp_path):
    fleet = await completed(tmp_path)
    fleet.metrics.errors = dict.fromkeys(fleet.names, 0.2)
    fleet.clock.advance(hours=3)
    await watch_finished(fleet.site)
    undo(fleet.ledger, fleet.rollout, "alice", "late regression")
    await reconcile(fleet.site)
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}
    begun = {name: at for name, (at, _) in undo_times(fleet).items()}
    wave = {item.target.name: item.wave for item in fleet.frozen.targets}
    order = [wave[name] for name in sorted(begun, key=lambda name: begun[name])]
    assert order == sorted(wave.values(), reverse=True), "newest wave first"
    assert not fleet.twice()
    assert fleet.ledger.verify() == []


async def test_watch_that_ends_without_data_says_so_and_accuses_nobody(tmp_path):
    """F9: no data is never a pass, and never an alarm."""
    fleet = await completed(tmp_path)
    fleet.metrics.down = True
    fleet.clock.advance(hours=1)
    assert await watch_finished(fleet.site) == []
    fleet.clock.advance(hours=24)
    (said,) = await watch_finished(fleet.site)
    assert "does not answer" in said
    assert late_verdicts(fleet) == ["hold"]
    assert incidents(fleet.ledger) == []


async def test_policy_without_watch_is_not_watched(tmp_path):
    fleet = Fleet(tmp_path)
    assert (await fleet.whole()).good
    fleet.metrics.errors = dict.fromkeys(fleet.names, 0.5)
    fleet.clock.advance(hours=1)
    assert await watch_finished(fleet.site) == []
    until = watched_until(fleet.site, fleet.frozen)
    assert until is not None
    assert until <= fleet.clock()


async def test_watch_takes_its_share_of_the_false_alarm_bound(tmp_path):
    watched, plain = Fleet(tmp_path / "a", rollout={"watch": "24h"}), Fleet(tmp_path / "b")
    await watched.plan()
    await plain.plan()
    assert watched.frozen.looks == plain.frozen.looks + 1
    assert plain.frozen.looks >= len(plain.frozen.waves)


async def test_looks_of_the_watch_are_fixed_when_it_begins(tmp_path):
    """One e-process needs the same looks whenever it is asked: they must not grow with the time that has passed."""
    fleet = await completed(tmp_path)
    applied, until = fleet.ledger.targets(fleet.rollout), watched_until(fleet.site, fleet.frozen)
    check = fleet.frozen.policy.spec.verify[0]
    settled = max(row.ended_at for row in applied)
    spans = [
        spans_of(fleet.frozen, check, applied, settled + timedelta(hours=hours), until) for hours in (1, 3, 12, 24)
    ]
    assert len({one.look for one in spans}) == 1
    assert [one.complete for one in spans] == [False, True, True, True]
    assert all(one.look * 240 == pytest.approx((until - settled).total_seconds()) for one in spans)


async def test_nothing_is_judged_before_the_first_look_of_the_watch_is_complete(tmp_path):
    fleet = await completed(tmp_path)
    fleet.metrics.errors = dict.fromkeys(fleet.names, 0.2)
    fleet.clock.advance(hours=1)
    assert await watch_finished(fleet.site) == []
    fleet.clock.advance(hours=1, minutes=5)
    (said,) = await watch_finished(fleet.site)
    assert "late regression" in said
