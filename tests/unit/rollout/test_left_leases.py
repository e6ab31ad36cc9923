"""Nobody waits for a place that nobody will free: of dead workers, in an undo, in a held rollout (F8)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.ledger.base import Claim, Lease
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.capacity import reboot_claims, target_claims
from patching.rollout import control
from patching.rollout.answers import VerdictName
from patching.rollout.reconcile import reconcile
from patching.rollout.states import RolloutState
from unit.rollout.fleet import Fleet
from unit.rollout.test_crash_points import kill_at


async def test_lease_of_a_worker_killed_after_its_last_word_is_freed_once_it_expires_though_the_rollout_is_over(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, hosts=1, rollout={"waves": [{"canary": {"count": 1}}], "maxUnavailable": 1})
    await fleet.begin()
    await fleet.gate(1)
    assert kill_at(fleet, "target-outcome-written", 1, "apply:1") == -9
    await fleet.apply(1)
    fleet.clock.advance(seconds=1)  # the other process ended the target at a later moment of its own clock
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    assert (await fleet.finish()).good
    assert [lease.target for lease in fleet.ledger.leases()] == ["web-01"]
    await reconcile(fleet.site)
    assert len(fleet.ledger.leases()) == 1, "it may still be alive"
    fleet.clock.advance(seconds=60)
    await reconcile(fleet.site)
    assert fleet.ledger.leases() == []

    fleet.hosts.change("web-01", offers={"shop": "1.2"})
    fleet.new_run("run-2")
    assert (await fleet.whole(waves=1)).good
    assert fleet.versions() == {"web-01": "1.2"}


async def test_lease_of_a_worker_killed_before_it_changed_anything_is_freed_though_its_rollout_never_began_the_target(
    tmp_path: Path,
) -> None:
    """A ghost lock: the rollout ends without the target, and the next one would wait for it for ever."""
    fleet = Fleet(tmp_path, hosts=2)
    await fleet.begin()
    claims = [Claim(kind="target", name="web-02", limit=1)]
    held = fleet.ledger.acquire("dead", fleet.rollout, "web-02", claims, ttl=5.0)
    assert isinstance(held, Lease)
    await reconcile(fleet.site)
    assert len(fleet.ledger.leases()) == 1, "it may still be alive"
    fleet.clock.advance(seconds=60)
    await reconcile(fleet.site)
    assert fleet.ledger.leases() == []


def left_on_ended(fleet: Fleet) -> list[str]:
    """Name the targets that have ended and whose places a worker did not give back."""
    ended = {name for name, outcome in fleet.outcomes().items() if outcome == "applied"}
    return [lease.target for lease in fleet.ledger.leases() if lease.target in ended]


@pytest.mark.slow
@pytest.mark.parametrize("rules", [{"maxUnavailable": 1}, {"maxUnavailable": "100%"}], ids=["domain", "reboot"])
async def test_target_that_waits_for_a_place_frees_what_a_dead_worker_left_on_one_that_has_ended(
    tmp_path: Path, rules: dict[str, Any]
) -> None:
    """Else its wave would wait until somebody reconciles: no other task of the run can come while it is at work."""
    waves = [{"canary": {"count": 1}}, {"size": "100%"}]
    rollout = {"waves": waves, "failureDomain": "role", **rules}
    fleet = Fleet(tmp_path, hosts=4, verify=[], rollout=rollout, reboot={"maxConcurrent": 1})
    for name in fleet.names:
        fleet.hosts.add(name, installed={"kernel": "6.1", "shop": "1.0"}, offers={"kernel": "6.2"})
    await fleet.begin()
    assert await fleet.wave(1) is VerdictName.PROMOTE
    await fleet.gate(2)
    assert kill_at(fleet, "target-outcome-written", 1, "apply:2") == -9
    assert len(left_on_ended(fleet)) == 1
    fleet.clock.advance(seconds=60)
    await fleet.apply(2)
    assert set(fleet.outcomes().values()) == {"applied"}
    assert left_on_ended(fleet) == []
    assert not fleet.twice()


async def test_undo_after_the_first_wave_waits_for_no_place_that_a_later_wave_holds(tmp_path: Path) -> None:
    """A target of wave 2 whose outcome is unknown holds the only place, and its own wave's undo comes later."""
    waves = [{"canary": {"count": 1}}, {"size": "100%"}]
    rollout = {"waves": waves, "failureDomain": "role", "maxUnavailable": 1}
    fleet = Fleet(tmp_path, hosts=2, verify=[], rollout=rollout)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    (late,) = fleet.frozen.waves[1].targets
    fleet.going_dark(late)
    await fleet.apply(2)
    assert fleet.outcomes()[late] == "unknown"
    fleet.as_before()
    fleet.hosts.change(late, offline=False)
    control.hold(fleet.ledger, fleet.rollout, "anna", "what is this")
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    assert (await fleet.undo(1)).counts == {"undone": 2}
    assert (await fleet.undo(2)).skipped
    assert set(fleet.versions().values()) == {"1.0"}
    assert (await fleet.finish()).rollout == fleet.rollout
    assert fleet.state == "undone"


async def test_host_that_waits_for_a_reboot_place_nobody_will_free_is_left_to_the_next_run(tmp_path: Path) -> None:
    """The place is a target's that waits for its next try, and the rollout was held meanwhile: no try will come."""
    rollout = {"waves": [{"canary": {"count": 2}}], "maxUnavailable": "100%"}
    fleet = Fleet(tmp_path, hosts=2, verify=[], rollout=rollout, reboot={"maxConcurrent": 1})
    for name in fleet.names:
        fleet.hosts.add(name, installed={"kernel": "6.1", "shop": "1.0"}, offers={"kernel": "6.2"})
    await fleet.begin()
    await fleet.gate(1)
    first, second = fleet.frozen.waves[0].targets
    planned = fleet.frozen.planned(first)
    assert planned is not None
    claims = [*target_claims(fleet.frozen, planned.target), *reboot_claims(fleet.frozen, planned.target)]
    held = fleet.ledger.acquire("worker-2", fleet.rollout, first, claims, ttl=5.0)
    assert isinstance(held, Lease)
    snapshot = fleet.ledger.store_document("snapshot", {"of": first})
    key, body = f"target-began:{first}", {"wave": 1, "snapshot": snapshot}
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.TARGET_BEGAN, key=key, target=first, body=body))

    def holding(point: str) -> None:
        """A person holds it as soon as the second host is changed; the worker of the first was stopped before."""
        row = fleet.ledger.rollout(fleet.rollout)
        if point == "outcome-written" and row is not None and row.state is RolloutState.RUNNING:
            control.hold(fleet.ledger, fleet.rollout, "anna", "what is this")
            fleet.clock.advance(seconds=60)

    fleet.site = replace(fleet.site, crash=holding)
    await fleet.apply(1)
    row = fleet.ledger.target(fleet.rollout, second)
    assert row is not None
    assert row.outcome is None
    assert {lease.target for lease in fleet.ledger.leases()} == {first, second}
