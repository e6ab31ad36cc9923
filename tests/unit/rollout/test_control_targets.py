"""What a person may do to single targets of a live rollout (S8): skip, retry, release, and abort at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from patching.change import JobResult, Outcome, Phase, StepKind
from patching.drivers.simulated import SimulatedDriver, _step
from patching.errors import LedgerError, TransitionRefused
from patching.ledger.entry import EntryKind
from patching.report.rollout_view import VIEW_KINDS, rollout_view
from patching.rollout import control, control_targets
from patching.rollout.answers import GateState, VerdictName
from patching.rollout.change_job import ChangeJob
from patching.rollout.record import Record
from patching.rollout.undoing import _undo_all
from unit.rollout.fleet import Fleet

pytestmark = pytest.mark.slow

LEFT_ALONE = {"undo": "never", "quarantine": False}
ENOUGH = 20.0
"""Far above what a cancelled job takes, far below what the cancelled step would have taken."""


def targets_of(fleet: Fleet, wave: int) -> list[str]:
    return [item.target.name for item in fleet.frozen.targets if item.wave == wave]


def view(fleet: Fleet) -> dict[str, object]:
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries = fleet.ledger.entries(fleet.rollout, kinds=VIEW_KINDS)
    return rollout_view(row, fleet.ledger.targets(fleet.rollout), fleet.frozen, entries, fleet.clock())


async def next_run(fleet: Fleet, run_id: str = "run-2") -> bool:
    """Do the whole next run, as Airflow does it; says whether it ends green."""
    fleet.new_run(run_id)
    await fleet.begin()
    for wave in (1, 2, 3):
        await fleet.wave(wave)
    return (await fleet.finish()).good


async def held_by_a_failure(folder: Path, **spec: object) -> tuple[Fleet, str]:
    """Hold a rollout because one target of its second wave failed, which is one more than its budget."""
    fleet = Fleet(folder, **{"onFailure": LEFT_ALONE, "rollout": {"stopWhen": {"failedTargets": 1}}, **spec})
    fleet.site = replace(fleet.site, concurrency=1)
    await fleet.begin()
    await fleet.wave(1)
    bad = targets_of(fleet, 2)[-1]
    fleet.hosts.change(bad, fail=100)
    assert await fleet.wave(2) is VerdictName.HOLD
    await fleet.finish()
    assert (fleet.state, fleet.outcomes()[bad]) == ("held", "failed")
    return fleet, bad


# Skip


async def test_a_skipped_target_is_left_as_it_is_and_the_rollout_completes_without_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    name = targets_of(fleet, 3)[0]
    done = control_targets.skip(fleet.ledger, fleet.rollout, "eva", "it is sold tomorrow", target=name)
    assert name in done.sentence
    for wave in (2, 3):
        await fleet.wave(wave)
    assert (await fleet.finish()).good
    assert fleet.versions()[name] == "1.0"
    row = fleet.ledger.target(fleet.rollout, name)
    assert row is not None
    assert (row.outcome, row.detail) == (Outcome.SKIPPED, "skipped by eva: it is sold tomorrow")
    (ended,) = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.TARGET_OUTCOME], target=name)
    assert ended.actor == "eva"
    assert fleet.ledger.leases() == []
    assert fleet.ledger.verify() == []


async def test_what_has_begun_or_ended_is_not_skipped(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.gate(1)
    said: list[str] = []

    def crash(point: str) -> None:
        if point == "started":
            with pytest.raises(TransitionRefused, match=r"is at work|has begun") as refusal:
                control_targets.skip(fleet.ledger, fleet.rollout, "eva", "no", target=targets_of(fleet, 1)[0])
            said.append(str(refusal.value))

    normal, fleet.site = fleet.site, replace(fleet.site, crash=crash)
    await fleet.apply(1)
    fleet.site = normal
    assert said
    with pytest.raises(TransitionRefused, match='has ended as "applied"'):
        control_targets.skip(fleet.ledger, fleet.rollout, "eva", "no", target=targets_of(fleet, 1)[0])
    with pytest.raises(LedgerError, match="not in the plan"):
        control_targets.skip(fleet.ledger, fleet.rollout, "eva", "no", target="nobody")


async def test_a_worker_that_slept_does_not_begin_what_was_skipped_meanwhile(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.gate(1)
    name = targets_of(fleet, 1)[0]
    before = fleet.ledger.target(fleet.rollout, name)
    planned = fleet.frozen.planned(name)
    assert before is not None
    assert planned is not None
    control_targets.skip(fleet.ledger, fleet.rollout, "eva", "no", target=name)
    record = Record(fleet.site, fleet.rollout)
    try:
        channel = fleet.site.channel("fleet")
        answer = await ChangeJob(record, fleet.frozen, planned, channel, SimulatedDriver(), before).run()
    finally:
        await record.close()
    assert isinstance(answer, JobResult)
    assert answer.outcome is Outcome.SKIPPED
    assert fleet.hosts.markers(name) == []
    assert fleet.ledger.leases() == []


async def test_a_wave_whose_targets_were_all_skipped_is_no_evidence(tmp_path: Path) -> None:
    """Else the canary could be skipped, and the fleet would follow it."""
    fleet = Fleet(tmp_path)
    await fleet.begin()
    control_targets.skip(fleet.ledger, fleet.rollout, "eva", "no", target=targets_of(fleet, 1)[0])
    assert await fleet.wave(1) is VerdictName.HOLD
    assert (await fleet.gate(2)).state is GateState.REFUSED


# Retry


async def test_retry_goes_on_in_the_same_rollout_with_only_what_failed(tmp_path: Path) -> None:
    fleet, bad = await held_by_a_failure(tmp_path)
    first, done_before = fleet.rollout, {name: len(fleet.hosts.markers(name)) for name in fleet.names}
    fleet.hosts.change(bad, fail=0)
    done = control_targets.retry(fleet.ledger, first, "eva", "disk was full")
    assert (done.goes_on, fleet.state) == (True, "waiting")
    assert done.sentence == f"{bad} of {first} is tried again, from the step that failed"
    assert view(fleet)["waves"][1]["verdict"] is None  # type: ignore[index]
    assert await next_run(fleet)
    assert (fleet.rollout, fleet.state) == (first, "completed")
    assert set(fleet.versions().values()) == {"1.1"}
    row = fleet.ledger.target(first, bad)
    assert row is not None
    assert (row.generation, row.outcome) == (1, Outcome.APPLIED)
    raised = fleet.ledger.entries(first, kinds=[EntryKind.GENERATION_RAISED])
    assert [(entry.target, entry.actor, entry.body["reason"]) for entry in raised] == [
        (bad, "eva", "tried again by eva: disk was full")
    ]
    assert not fleet.twice()
    again = [name for name in targets_of(fleet, 1) if len(fleet.hosts.markers(name)) != done_before[name]]
    assert again == [], "what had ended is not touched again"
    assert fleet.ledger.verify() == []


async def test_worker_that_slept_before_its_undo_leaves_alone_what_a_person_had_tried_again(tmp_path: Path) -> None:
    """Its wish is from when the target had failed; by now the target was changed once more, and well."""
    fleet, bad = await held_by_a_failure(tmp_path)
    stale = fleet.ledger.target(fleet.rollout, bad)
    assert stale is not None
    fleet.hosts.change(bad, fail=0)
    control_targets.retry(fleet.ledger, fleet.rollout, "eva", "disk was full")
    assert await next_run(fleet)
    done = fleet.hosts.markers(bad)
    record = Record(fleet.site, fleet.rollout)
    await _undo_all(record, fleet.frozen, [stale], None, {})
    await record.close()
    assert fleet.hosts.markers(bad) == done
    assert (fleet.versions()[bad], fleet.outcomes()[bad], fleet.ledger.leases()) == ("1.1", "applied", [])


async def test_retry_resumes_at_the_step_that_failed(tmp_path: Path) -> None:
    spec = {"onFailure": LEFT_ALONE, "rollout": {"waves": [{"size": "100%"}], "stopWhen": {"failedTargets": 1}}}
    fleet = Fleet(tmp_path, hosts=1, verify=[], **spec)
    (name,) = fleet.names
    fleet.hosts.add(name, installed={"app": "1", "shop": "1.0"}, offers={"app": "2", "shop": "1.1"})
    await fleet.begin()

    def crash(point: str) -> None:
        if point == "outcome-written":
            fleet.hosts.change(name, fail=1)

    normal, fleet.site = fleet.site, replace(fleet.site, crash=crash)
    assert await fleet.wave(1) is VerdictName.HOLD
    fleet.site = normal
    assert len(fleet.hosts.markers(name)) == 2, "one step done, one failed"
    fleet.hosts.change(name, fail=0)
    control_targets.retry(fleet.ledger, fleet.rollout, "eva", "again", target=name)
    assert await next_run(fleet)
    assert len(fleet.hosts.markers(name)) == 3
    assert not fleet.twice()
    assert fleet.hosts.state(name)["installed"] == {"app": "2", "shop": "1.1"}


async def test_a_target_that_fails_again_holds_again(tmp_path: Path) -> None:
    fleet, bad = await held_by_a_failure(tmp_path)
    control_targets.retry(fleet.ledger, fleet.rollout, "eva", "once more")
    assert not await next_run(fleet)
    assert (fleet.state, fleet.outcomes()[bad]) == ("held", "failed")
    fleet.hosts.change(bad, fail=0)
    control_targets.retry(fleet.ledger, fleet.rollout, "eva", "repaired now")
    assert await next_run(fleet, "run-3")
    assert not fleet.twice()


async def test_an_offline_target_of_a_promoted_wave_is_caught_up_and_its_wave_judged_anew(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    name = targets_of(fleet, 2)[0]
    fleet.hosts.change(name, offline=True)
    assert await fleet.wave(2) is VerdictName.PROMOTE
    fleet.hosts.change(name, offline=False)
    assert control_targets.retry(fleet.ledger, fleet.rollout, "eva", "it is back").goes_on
    assert (await fleet.gate(3)).state is GateState.REFUSED, "its wave is not promoted any more"
    assert await next_run(fleet)
    assert set(fleet.versions().values()) == {"1.1"}
    judged = [entry.key for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.VERDICT])]
    assert judged == ["verdict:1", "verdict:2", "verdict:2:again:1", "verdict:3"]
    looks, guards = fleet.frozen.looks, int(len(targets_of(fleet, 2)) > 1)
    levels = [
        entry.body["checks"][0]["numbers"]["evidence_needed"] * 0.05
        for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.VERDICT])
    ]
    assert levels == pytest.approx([looks, looks, 2 * looks * (1 + guards), looks]), "half of the reserve"


async def test_retry_in_a_rollout_that_a_person_holds_leaves_it_held(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    name = targets_of(fleet, 2)[0]
    fleet.hosts.change(name, offline=True)
    await fleet.wave(2)
    control.hold(fleet.ledger, fleet.rollout, "paul", "power works")
    done = control_targets.retry(fleet.ledger, fleet.rollout, "eva", "it is back", target=name)
    assert (done.goes_on, fleet.state) == (False, "held")
    assert "still held" in done.sentence


async def test_retry_takes_out_of_quarantine_what_this_rollout_put_there(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout={"stopWhen": {"failedTargets": 2}})
    await fleet.begin()
    await fleet.wave(1)
    bad = targets_of(fleet, 2)[0]
    fleet.hosts.change(bad, fail=100)
    await fleet.wave(2)
    assert [item.target for item in fleet.ledger.quarantines(now=fleet.clock())] == [bad]
    fleet.hosts.change(bad, fail=0)
    control_targets.retry(fleet.ledger, fleet.rollout, "eva", "repaired", target=bad)
    assert fleet.ledger.quarantines(now=fleet.clock()) == []
    assert await next_run(fleet)
    assert fleet.versions()[bad] == "1.1"
    assert not fleet.twice()


async def test_a_half_changed_target_that_waits_for_its_retry_is_undone_with_its_rollout(tmp_path: Path) -> None:
    """It stays begun: else nobody would look after it any more."""
    spec = {"onFailure": LEFT_ALONE, "rollout": {"waves": [{"size": "100%"}], "stopWhen": {"failedTargets": 1}}}
    fleet = Fleet(tmp_path, hosts=1, verify=[], **spec)
    (name,) = fleet.names
    fleet.hosts.add(name, installed={"app": "1", "shop": "1.0"}, offers={"app": "2", "shop": "1.1"})
    await fleet.begin()

    def crash(point: str) -> None:
        if point == "outcome-written":
            fleet.hosts.change(name, fail=1)

    normal, fleet.site = fleet.site, replace(fleet.site, crash=crash)
    await fleet.wave(1)
    fleet.site = normal
    fleet.hosts.change(name, fail=0)
    control_targets.retry(fleet.ledger, fleet.rollout, "eva", "again", target=name)
    control.abort(fleet.ledger, fleet.rollout, "eva", "on second thought")
    control.undo(fleet.ledger, fleet.rollout, "eva", "back")
    await fleet.finish()
    assert fleet.state == "undone"
    assert fleet.hosts.state(name)["installed"] == {"app": "1", "shop": "1.0"}


async def test_retry_refuses_with_what_stands_against_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    with pytest.raises(TransitionRefused, match="no target failed"):
        control_targets.retry(fleet.ledger, fleet.rollout, "eva", "x")
    with pytest.raises(TransitionRefused, match='it is "applied", and only what failed is retried'):
        control_targets.retry(fleet.ledger, fleet.rollout, "eva", "x", target=targets_of(fleet, 1)[0])
    for wave in (2, 3):
        await fleet.wave(wave)
    await fleet.finish()
    with pytest.raises(TransitionRefused, match='is "completed": only one that runs, waits or is held'):
        control_targets.retry(fleet.ledger, fleet.rollout, "eva", "x")


async def test_retry_is_no_way_around_a_verdict_that_rests_on_checks(tmp_path: Path) -> None:
    """Asking until the answer is pleasant would void the verdict's false-alarm bound."""
    fleet = Fleet(tmp_path, onFailure=LEFT_ALONE)
    await fleet.begin()
    await fleet.wave(1)
    fleet.hosts.change(targets_of(fleet, 2)[0], offline=True)
    fleet.metrics.silent = set(fleet.names)
    assert await fleet.wave(2) in (VerdictName.HOLD, VerdictName.INCONCLUSIVE)
    with pytest.raises(TransitionRefused, match="rests on its checks, and is never made again"):
        control_targets.retry(fleet.ledger, fleet.rollout, "eva", "x")
    assert fleet.state == "held"


# Release


def kept_until(fleet: Fleet) -> datetime:
    (kept,) = fleet.ledger.quarantines(now=fleet.clock())
    assert kept.until is not None
    return kept.until


async def test_an_unknown_targets_place_is_released_by_a_person_and_then_its_quarantine(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.gate(1)
    name = targets_of(fleet, 1)[0]

    def crash(point: str) -> None:
        if point == "started":
            fleet.hosts.change(name, offline=True)

    normal, fleet.site = fleet.site, replace(fleet.site, crash=crash)
    await fleet.apply(1)
    fleet.site = normal
    assert fleet.outcomes()[name] == "unknown"
    assert [lease.target for lease in fleet.ledger.leases()] == [name]
    with pytest.raises(TransitionRefused, match="neither in quarantine nor keeps a place"):
        control_targets.release(fleet.ledger, name, "eva", "its worker may still be at it")
    fleet.clock.advance(seconds=60)
    first = control_targets.release(fleet.ledger, name, "eva", "the host is scrapped")
    assert (
        f"in quarantine until {kept_until(fleet):%Y-%m-%d %H:%MZ}, or until it is released once more" in first.sentence
    )
    assert fleet.ledger.leases() == []
    assert fleet.outcomes()[name] == "quarantined"
    assert [item.target for item in fleet.ledger.quarantines(now=fleet.clock())] == [name]
    assert view(fleet)["targets"][0]["quarantined"]  # type: ignore[index]
    until = kept_until(fleet)
    last = control_targets.release(fleet.ledger, name, "paul", "a new host has its name")
    assert f"has left quarantine, which would have lasted until {until:%Y-%m-%d %H:%MZ}: the next plan" in last.sentence
    assert fleet.ledger.quarantines(now=fleet.clock()) == []
    released = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.RELEASED])
    assert [entry.actor for entry in released] == ["eva", "paul"]
    with pytest.raises(TransitionRefused, match="nothing to do"):
        control_targets.release(fleet.ledger, name, "eva", "again")
    fleet.ledger.rebuild()
    assert fleet.ledger.leases() == []
    assert fleet.ledger.quarantines(now=fleet.clock()) == []


# Abort at once


class DownloadingDriver(SimulatedDriver):
    """Downloads first: a step of phase prepare that leaves a mark on the host."""

    def steps(self, target, phase, before, now, patches):  # type: ignore[no-untyped-def]
        if phase is not Phase.PREPARE:
            return super().steps(target, phase, before, now, patches)
        done = now.version("cache") is not None
        return [] if done else [_step("download", phase, StepKind.ACT, op="set", name="cache", to="1")]


async def begun_without_downloads(folder: Path, hosts: int) -> Fleet:
    """Begin a rollout whose hosts did not answer while downloads were made ahead of the window."""
    fleet = Fleet(folder, hosts=hosts, rollout={"waves": [{"size": "100%"}]}, verify=[])
    fleet.site = replace(fleet.site, driver=lambda _name, _options: DownloadingDriver())
    await fleet.plan()
    for name in fleet.names:
        fleet.hosts.change(name, offline=True)
    await fleet.approve()
    for name in fleet.names:
        fleet.hosts.change(name, offline=False)
    await fleet.gate(1)
    return fleet


async def test_abort_at_once_cancels_a_download_and_nothing_is_changed(tmp_path: Path) -> None:
    fleet = await begun_without_downloads(tmp_path, 3)
    for name in fleet.names:
        fleet.hosts.change(name, slow=600)
    said: list[str] = []

    def crash(point: str) -> None:
        if point == "started" and not said:
            said.append(control.abort(fleet.ledger, fleet.rollout, "eva", "wrong fleet", now=True).sentence)

    fleet.site = replace(fleet.site, crash=crash)
    await asyncio.wait_for(fleet.apply(1), ENOUGH)
    assert "only read or downloaded and is cancelled" in said[0]
    assert (fleet.state, set(fleet.versions().values())) == ("aborted", {"1.0"})
    assert set(fleet.outcomes().values()) <= {"skipped", "pending"}
    assert fleet.ledger.intents() == [], "the cancelled step has its end in the ledger"
    assert fleet.ledger.leases() == []


async def test_abort_at_once_lets_what_installs_go_to_its_end(tmp_path: Path) -> None:
    fleet = await begun_without_downloads(tmp_path, 1)
    (name,) = fleet.names
    starts: list[str] = []
    said: list[str] = []

    def crash(point: str) -> None:
        if point != "started":
            return
        starts.append(point)
        if len(starts) == 2:
            said.append(control.abort(fleet.ledger, fleet.rollout, "eva", "wrong fleet", now=True).sentence)

    fleet.site = replace(fleet.site, crash=crash)
    await fleet.apply(1)
    assert f"{name} had begun and ends" in said[0]
    assert (fleet.outcomes()[name], fleet.versions()[name], fleet.state) == ("applied", "1.1", "aborted")


async def test_downloads_ahead_of_the_window_are_cancelled_too(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=2)
    fleet.site = replace(fleet.site, driver=lambda _name, _options: DownloadingDriver())
    await fleet.plan()
    for name in fleet.names:
        fleet.hosts.change(name, slow=600)
    asked: list[str] = []

    def crash(point: str) -> None:
        if point == "started" and not asked:
            asked.append(control.abort(fleet.ledger, fleet.rollout, "eva", "wrong", now=True).sentence)

    fleet.site = replace(fleet.site, crash=crash)
    await asyncio.wait_for(fleet.approve(), ENOUGH)
    assert asked
    assert fleet.state == "aborted"


async def test_a_rollout_that_was_aborted_may_be_aborted_at_once_afterwards_only_once(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    control.abort(fleet.ledger, fleet.rollout, "eva", "enough")
    assert control.abort(fleet.ledger, fleet.rollout, "eva", "and at once", now=True).row is not None
    with pytest.raises(TransitionRefused, match='"aborted" already'):
        control.abort(fleet.ledger, fleet.rollout, "eva", "again", now=True)
