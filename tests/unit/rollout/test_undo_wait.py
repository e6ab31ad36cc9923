"""An undo waits for no place that nobody will give back: it stays open and says what a person must do (F8)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from patching.ledger.base import Busy, Lease
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.capacity import target_claims
from patching.report.sentences import waiting_for
from patching.rollout import control, control_targets
from patching.rollout.answers import VerdictName
from patching.rollout.reconcile import reconcile
from patching.rollout.record import Record
from patching.rollout.undo_wait import UndoWait
from unit.rollout.fleet import Fleet

ONE_PLACE: dict[str, Any] = {
    "failureDomain": "role",
    "maxUnavailable": 1,
    "waves": [{"canary": {"count": 1}}, {"size": "100%"}],
}


async def other_rollout(fleet: Fleet) -> str:
    """Plan a rollout of another policy for the same hosts."""
    mine, policy, request, frozen = fleet.rollout, fleet.policy, fleet.request, fleet.frozen
    metadata = policy.metadata.model_copy(update={"name": "app"})
    fleet.policy = policy.model_copy(update={"metadata": metadata})
    fleet.request = request.model_copy(update={"dag_id": "patch__app"})
    await fleet.begin()
    other = fleet.rollout
    fleet.rollout, fleet.policy, fleet.request, fleet.frozen = mine, policy, request, frozen
    return other


def takes_the_place(fleet: Fleet, other: str, name: str, *, ttl: float = 5.0) -> Lease:
    """Let a worker of another rollout change a host in the one place of the role, and fall silent after ``ttl``."""
    planned = fleet.frozen.planned(name)
    assert planned is not None
    claims = [claim for claim in target_claims(fleet.frozen, planned.target) if claim.kind != "target"]
    lease = fleet.ledger.acquire("worker-of-app", other, name, claims, ttl=ttl)
    assert isinstance(lease, Lease)
    snapshot = fleet.ledger.store_document("snapshot", {"of": name})
    key, body = f"target-began:{name}", {"wave": 1, "snapshot": snapshot}
    fleet.ledger.append(NewEntry(chain=other, kind=EntryKind.TARGET_BEGAN, key=key, target=name, body=body))
    return lease


def ends_unknown(fleet: Fleet, rollout: str, name: str) -> None:
    body = {"outcome": "unknown", "reason": "lost", "signature": None, "active": False}
    key = f"target-outcome:{name}:lost"
    fleet.ledger.append(NewEntry(chain=rollout, kind=EntryKind.TARGET_OUTCOME, key=key, target=name, body=body))


async def completed(folder: Path) -> tuple[Fleet, str]:
    """Complete a rollout beside one of another policy that was planned before."""
    fleet = Fleet(folder, hosts=3, verify=[], rollout=ONE_PLACE)
    await fleet.begin()
    other = await other_rollout(fleet)
    for wave in (1, 2):
        await fleet.wave(wave)
    assert (await fleet.finish()).good
    return fleet, other


def undone(fleet: Fleet) -> dict[str, str | None]:
    """Say how each target's undo ended; web-03 is the other rollout's by then."""
    return {row.target: row.undo_outcome and row.undo_outcome.value for row in fleet.ledger.targets(fleet.rollout)}


def waiting(fleet: Fleet) -> str:
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    return waiting_for(row, fleet.ledger.targets(fleet.rollout))


async def test_place_of_an_unknown_target_of_another_rollout_ends_the_wait_and_its_release_lets_the_undo_go_on(
    tmp_path: Path,
) -> None:
    fleet, other = await completed(tmp_path)
    takes_the_place(fleet, other, "web-03")
    ends_unknown(fleet, other, "web-03")
    fleet.clock.advance(seconds=60)
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    summary = await fleet.undo(None)
    advice = "nobody knows what became of web-03: look at it, then `patching release web-03 --reason …`"
    assert advice in summary.sentence
    assert summary.bad
    assert advice in waiting(fleet)
    assert fleet.state == "undoing"
    assert undone(fleet) == {"web-01": None, "web-02": None, "web-03": "skipped"}
    assert not (await fleet.finish()).good

    control_targets.release(fleet.ledger, "web-03", "anna", "it is fine")
    await reconcile(fleet.site)
    assert fleet.state == "undone"
    assert undone(fleet) == {"web-01": "undone", "web-02": "undone", "web-03": "skipped"}
    assert fleet.twice() == []
    assert fleet.ledger.verify() == []


async def test_place_of_a_target_in_mid_change_whose_rollout_a_person_holds_ends_the_wait(tmp_path: Path) -> None:
    fleet, other = await completed(tmp_path)
    lease = takes_the_place(fleet, other, "web-03")
    control.hold(fleet.ledger, other, "bob", "what is this")
    fleet.clock.advance(seconds=60)
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    await fleet.undo(None)
    assert f'web-03 is in mid-change, and its rollout {other} is "held": a person decides' in waiting(fleet)
    fleet.ledger.release(lease)
    await fleet.undo(None)
    assert fleet.state == "undone"


async def test_who_works_on_is_waited_for_as_long_as_the_site_is_patient(tmp_path: Path) -> None:
    fleet, other = await completed(tmp_path)
    lease = takes_the_place(fleet, other, "web-03", ttl=600)
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    fleet.site = replace(fleet.site, patience=0.0)
    summary = await fleet.undo(None)
    assert "web-03 (rollout " in summary.sentence
    assert "and nobody has left it for 0s: see `patching leases`" in summary.sentence
    assert fleet.state == "undoing"
    fleet.ledger.release(lease)
    await reconcile(fleet.site)
    assert fleet.state == "undone"


async def test_failed_target_that_finds_no_place_holds_its_rollout_and_is_undone_once_there_is_one(
    tmp_path: Path,
) -> None:
    """Within its budget the wave is promoted; the rollout must neither be completed nor go on half-changed."""
    fleet = Fleet(tmp_path, hosts=3, verify=[], rollout={**ONE_PLACE, "maxUnavailable": 2, "waves": [{"size": "100%"}]})
    await fleet.begin()
    other = await other_rollout(fleet)
    await fleet.gate(1)
    fleet.hosts.change("web-01", fail=100)
    await fleet.apply(1)
    fleet.hosts.change("web-01", fail=0)
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    for name in ("web-02", "web-03"):
        takes_the_place(fleet, other, name)
        ends_unknown(fleet, other, name)
    fleet.clock.advance(seconds=60)
    assert (await fleet.undo(1)).bad
    assert fleet.state == "held"
    assert "not all is undone yet: web-01 waits for" in waiting(fleet)
    said = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.WAITS])
    for _ in range(3):
        await reconcile(fleet.site)
    assert undone(fleet)["web-01"] is None
    assert fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.WAITS]) == said, "nothing new is to be said"

    control_targets.release(fleet.ledger, "web-03", "anna", "it is fine")
    await reconcile(fleet.site)
    assert undone(fleet)["web-01"] == "undone"
    assert fleet.state == "held"
    assert control.resume(fleet.ledger, fleet.rollout, "anna", "web-03 was looked at").row is not None


async def test_place_that_only_the_own_next_run_frees_does_not_hold_the_rollout_back_from_it(tmp_path: Path) -> None:
    """Held, it would wait for that run, and the run for a person."""
    fleet = Fleet(tmp_path, hosts=3, verify=[], rollout={**ONE_PLACE, "waves": [{"size": "100%"}]})
    await fleet.begin()
    await fleet.gate(1)
    fleet.hosts.change("web-01", fail=100)
    takes_the_place(fleet, fleet.rollout, "web-02")
    key = {"outcome": "failed", "reason": "x", "signature": "y", "active": True, "undo": False}
    began = {"wave": 1, "snapshot": fleet.ledger.store_document("snapshot", {"of": "web-01"})}
    for kind, name, body in (
        (EntryKind.TARGET_BEGAN, "target-began:web-01", began),
        (EntryKind.TARGET_OUTCOME, "target-outcome:web-01:0:change", key),
    ):
        fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=kind, key=name, target="web-01", body=body))
    fleet.clock.advance(seconds=60)
    before = fleet.state
    summary = await fleet.undo(1)
    assert "web-02 is in mid-change, and only the next run goes on with it" in summary.sentence
    assert fleet.state == before != "held"
    assert undone(fleet)["web-01"] is None


async def test_place_that_goes_from_hand_to_hand_is_waited_for_anew_and_the_turn_is_kept(tmp_path: Path) -> None:
    fleet, other = await completed(tmp_path)
    lease = takes_the_place(fleet, other, "web-03", ttl=600)
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    record = Record(fleet.site, fleet.rollout)
    now = 0.0
    wait = UndoWait(record, {"web-01"}, lambda: now)
    full = Busy(kind="domain", name="web role=web", limit=1, holders=("web-03 (rollout x)",))
    patience = fleet.site.patience
    assert await wait.in_vain(full) is None
    now = patience
    assert await wait.in_vain(full.model_copy(update={"holders": ("web-07 (rollout y)",)})) is None
    now = 2 * patience - 1
    assert await wait.in_vain(full.model_copy(update={"holders": ("web-07 (rollout y)",)})) is None
    now = 2 * patience
    found = await wait.in_vain(full.model_copy(update={"holders": ("web-07 (rollout y)",)}))
    assert found is not None
    assert not found.for_good
    await record.close()
    await reconcile(fleet.site)
    assert {item.target for item in fleet.ledger.waiters()} >= {"web-01"}, "it keeps its turn for the next look"
    fleet.ledger.release(lease)


async def test_undo_whose_end_nobody_saw_keeps_its_place_and_the_others_do_not_wait_for_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=2, verify=[], rollout={**ONE_PLACE, "waves": [{"size": "100%"}]})
    assert (await fleet.whole(waves=1)).good
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    fleet.going_dark("web-01", "undo")

    def log(line: str) -> None:
        if "undo: unknown" in line:
            fleet.clock.advance(seconds=60)  # its lease expires

    fleet.site = replace(fleet.site, log=log, lease_ttl=0.2)
    summary = await fleet.undo(None)
    assert "web-02 waits for domain" in summary.sentence
    assert "nobody knows what became of web-01" in summary.sentence
    assert undone(fleet) == {"web-01": "unknown", "web-02": None}


async def test_wave_does_not_wait_for_the_place_of_a_target_in_mid_change_of_a_held_rollout(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3, verify=[], rollout=ONE_PLACE)
    await fleet.begin()
    other = await other_rollout(fleet)
    await fleet.gate(1)
    takes_the_place(fleet, other, "web-03")
    control.hold(fleet.ledger, other, "bob", "what is this")
    fleet.clock.advance(seconds=60)
    summary = await fleet.apply(1)
    assert f'web-03 is in mid-change, and its rollout {other} is "held"' in summary.sentence
    assert set(fleet.versions().values()) == {"1.0"}
