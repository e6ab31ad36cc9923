"""Irreversible changes: gated before, never undone without proof, held with the reason, and the rest as declared."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.errors import LedgerError, TransitionRefused
from patching.ledger.entry import CONTROL, EntryKind
from patching.report.plan_text import render_plan
from patching.report.rollout_report import make_report
from patching.report.rollout_view import VIEW_KINDS, rollout_view
from patching.rollout import control, control_targets
from patching.rollout.answers import VerdictName
from patching.rollout.incidents import incidents, lock_of, release
from patching.rollout.reversibility import what_stays
from unit.rollout.fleet import Fleet
from unit.rollout.test_crash_points import kill_at

WHY = "its data are migrated"
ACCEPT = {"withoutBackup": "a replica has everything", "withoutDrill": "tried in the lab"}
RULE = {"match": ["db"], "reason": WHY, "accept": ACCEPT}
UNDRILLED = {**RULE, "accept": {"withoutDrill": "tried"}}
BACKUP = {"command": {"name": "snapshot", "enter": "snap"}, "backup": True}
TWO = [{"canary": {"count": 2}}, {"size": "100%"}]


async def begun(folder: Path, with_db: tuple[str, ...] = ("web-01",), hosts: int = 4, **spec: Any) -> Fleet:
    """Begin a rollout whose first hosts get an irreversible patch as well; all of wave 1 are canaries."""
    rollout = {"waves": TWO, **spec.get("rollout", {})}
    patches = {"securityOrigins": ["Lab-Security:*"], "irreversible": [RULE], **spec.get("patches", {})}
    fleet = Fleet(folder, hosts=hosts, **{**spec, "rollout": rollout, "patches": patches})
    for name in with_db:
        fleet.hosts.change(name, installed={"shop": "1.0", "db": "15.5"}, offers={"shop": "1.1", "db": "15.6"})
    await fleet.plan()
    await fleet.approve("eva")
    return fleet


def canaries(fleet: Fleet) -> tuple[str, ...]:
    found = fleet.frozen.wave(1)
    assert found is not None
    return found.targets


def undos(fleet: Fleet) -> dict[str, str]:
    rows = fleet.ledger.targets(fleet.rollout)
    return {row.target: row.undo_outcome.value for row in rows if row.undo_outcome is not None}


async def judged_bad(fleet: Fleet) -> VerdictName | None:
    for name in canaries(fleet):
        fleet.metrics.errors[name] = 0.3
    return await fleet.wave(1)


async def all_db(folder: Path, **spec: Any) -> Fleet:
    """Give both canaries the irreversible patch: whoever is drawn."""
    names = tuple(f"web-{number:02d}" for number in range(1, 5))
    return await begun(folder, names, **spec)


async def mixed(folder: Path, **spec: Any) -> tuple[Fleet, str, str]:
    """Give one of two canaries the irreversible patch; gives (fleet, the one with it, the one without)."""
    stuck, free = canaries(await begun(folder / "draw", (), **spec))
    fleet = await begun(folder / "fleet", (stuck,), **spec)
    assert set(canaries(fleet)) == {stuck, free}, "the draw does not depend on the patches"
    return fleet, stuck, free


async def test_plan_keeps_the_reason_and_somebody_must_approve(tmp_path: Path) -> None:
    fleet = await all_db(tmp_path)
    planned = fleet.frozen.targets[0]
    assert not planned.undo.possible
    (found,) = planned.undo.irreversible
    assert (found.components, found.found_by, found.reason) == (("db",), "policy", WHY)
    assert fleet.frozen.approval_required == 1
    assert WHY in fleet.frozen.approval_reason


async def test_bad_verdict_on_irreversible_targets_holds_with_an_incident_and_touches_nothing(tmp_path: Path) -> None:
    fleet = await all_db(tmp_path)
    assert await judged_bad(fleet) is VerdictName.HOLD
    assert fleet.state == "held"
    assert undos(fleet) == {}
    assert {len(fleet.hosts.markers(name)) for name in canaries(fleet)} == {2}, "each patch went on, and nothing back"
    (found,) = incidents(fleet.ledger)
    assert found.locks
    assert set(found.targets) == set(canaries(fleet))
    assert WHY in found.cause
    assert (Path(__file__).parents[3] / found.runbook).is_file()
    verdict = fleet.ledger.find(fleet.rollout, "verdict:1")
    assert verdict is not None
    assert set(verdict.body["irreversible"]) == set(canaries(fleet))
    assert (await fleet.finish()).good is False
    assert fleet.ledger.verify() == []


async def test_person_cannot_undo_it_without_proof(tmp_path: Path) -> None:
    fleet = await all_db(tmp_path)
    await judged_bad(fleet)
    with pytest.raises(TransitionRefused, match=WHY):
        control.undo(fleet.ledger, fleet.rollout, "eva", "back!")
    with pytest.raises(TransitionRefused, match="nothing was undone"):
        control.undo(fleet.ledger, fleet.rollout, "eva", "back!", others=True)
    with pytest.raises(LedgerError, match="web-99"):
        control.undo(fleet.ledger, fleet.rollout, "eva", "back!", restored=["web-99"])
    assert fleet.state == "held"


async def test_restored_targets_are_looked_at_before_they_count(tmp_path: Path) -> None:
    fleet = await all_db(tmp_path)
    await judged_bad(fleet)
    good, bad = canaries(fleet)
    fleet.hosts.change(good, installed={"shop": "1.0", "db": "15.5"})
    control.undo(fleet.ledger, fleet.rollout, "eva", "restored from the snapshot", restored=[good, bad])
    await fleet.undo(None)
    assert undos(fleet) == {good: "undone", bad: "stays_changed"}
    assert fleet.hosts.state(bad)["installed"] == {"shop": "1.1", "db": "15.6"}, "nothing was tried"
    assert fleet.state == "held"
    fleet.hosts.change(bad, installed={"shop": "1.1", "db": "15.5"})
    control.undo(fleet.ledger, fleet.rollout, "eva", "now it is", restored=[bad])
    await fleet.undo(None)
    assert fleet.state == "undone"
    assert fleet.versions()[bad] == "1.0", "what can be undone beside it is"
    assert fleet.ledger.verify() == []


async def test_the_rest_is_undone_where_the_policy_says_so(tmp_path: Path) -> None:
    fleet, stuck, free = await mixed(tmp_path, onFailure={"irreversible": "undo-others"})
    assert await judged_bad(fleet) is VerdictName.UNDO
    await fleet.finish()
    assert undos(fleet) == {stuck: "stays_changed", free: "undone"}
    assert (fleet.versions()[stuck], fleet.versions()[free]) == ("1.1", "1.0")
    assert fleet.state == "held"
    assert lock_of(fleet.ledger, "web") is not None
    assert stuck in {item.target for item in fleet.ledger.quarantines(now=fleet.clock())}


async def test_no_service_is_undone_by_half(tmp_path: Path) -> None:
    fleet, stuck, free = await mixed(tmp_path, onFailure={"irreversible": "undo-others"}, rollout={"service": "role"})
    assert await judged_bad(fleet) is VerdictName.HOLD, "all of the service stays"
    assert undos(fleet) == {}
    (found,) = incidents(fleet.ledger)
    assert f"service web is not undone by half, and {stuck} cannot be undone" in found.cause
    assert free in found.targets


async def test_person_undoes_the_rest_and_the_page_offers_it(tmp_path: Path) -> None:
    fleet, stuck, free = await mixed(tmp_path)
    assert await judged_bad(fleet) is VerdictName.HOLD
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries = fleet.ledger.entries(fleet.rollout, kinds=VIEW_KINDS)
    view = rollout_view(row, fleet.ledger.targets(fleet.rollout), fleet.frozen, entries, fleet.clock())
    (act,) = [item for item in view["acts"] if item["act"] == "undo"]
    assert (act["label"], act["body"]) == ("Undo the rest", {"others": True})
    done = control.undo(fleet.ledger, fleet.rollout, "eva", "the rest", others=True)
    assert stuck in done.sentence
    await fleet.undo(None)
    assert undos(fleet) == {stuck: "stays_changed", free: "undone"}
    assert fleet.state == "held"


async def test_failed_backup_leaves_the_target_untouched(tmp_path: Path) -> None:
    fleet = await all_db(
        tmp_path, hooks=[BACKUP], patches={"irreversible": [{**RULE, "accept": {"withoutDrill": "tried"}}]}
    )
    await fleet.gate(1)
    for name in canaries(fleet):
        fleet.hosts.change(name, fail=1)
    await fleet.apply(1)
    assert {fleet.outcomes()[name] for name in canaries(fleet)} == {"failed"}
    for name in canaries(fleet):
        fleet.hosts.change(name, fail=0)
        assert fleet.hosts.state(name)["installed"] == {"shop": "1.0", "db": "15.5"}
    await fleet.judge(1)
    await fleet.undo(1)
    assert set(undos(fleet).values()) == {"undone"}, "it was never changed, so nothing stands in the way"
    assert incidents(fleet.ledger) == []


DRILLED = {"rollout": {"drill": True}, "hooks": [BACKUP], "patches": {"irreversible": [{**RULE, "accept": {}}]}}


async def test_passed_drill_is_the_proof_that_lets_the_same_patches_be_undone(tmp_path: Path) -> None:
    fleet = await all_db(tmp_path, **DRILLED)
    await fleet.gate(1)
    await fleet.apply(1)
    assert fleet.ledger.find(fleet.rollout, "drill:proven") is not None
    steps = fleet.ledger.intents(rollout=fleet.rollout, target=canaries(fleet)[0], open_only=False)
    assert [item.step["name"] for item in steps].count("hook-snapshot") == 2, "a backup before each change"
    for name in canaries(fleet):
        fleet.metrics.errors[name] = 0.3
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
    await fleet.finish()
    assert (fleet.state, set(undos(fleet).values())) == ("undone", {"undone"})
    assert fleet.twice() == []


async def test_drill_whose_second_change_fails_holds_whatever_the_others_did(tmp_path: Path) -> None:
    fleet = await begun(tmp_path, (), rollout={"drill": True})
    await fleet.gate(1)
    first, second = canaries(fleet)
    site = fleet.site

    def break_it(point: str) -> None:
        if fleet.ledger.find(fleet.rollout, "drill:proven") is not None:
            fleet.hosts.change(first, fail=1)

    fleet.site = replace(site, crash=break_it)
    await fleet.apply(1)
    assert (fleet.outcomes()[first], fleet.outcomes()[second]) == ("failed", "applied")
    answer = await fleet.judge(1)
    assert answer.verdict is VerdictName.HOLD
    assert f"the rollback drill failed: {first}" in answer.sentence


async def test_failed_drill_does_not_wait_for_ever_once_its_incident_is_released(tmp_path: Path) -> None:
    fleet = await begun(tmp_path, (), rollout={"drill": True})
    await fleet.gate(1)
    first, _second = canaries(fleet)
    fleet.hosts.change(first, fail_undo=100)
    await fleet.apply(1)
    (found,) = incidents(fleet.ledger)
    release(fleet.ledger, found.id, "eva", "looked at")
    control.resume(fleet.ledger, fleet.rollout, "eva", "go on")
    fleet.new_run("run-2")
    await fleet.discover()
    assert await fleet.wave(1) is VerdictName.HOLD
    verdict = fleet.ledger.find(fleet.rollout, "verdict:1")
    assert verdict is not None
    assert f"the rollback drill failed: {first}" in verdict.body["reason"]


async def test_old_version_that_nobody_has_is_not_tried(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout={"waves": [{"canary": {"count": 1}}, {"size": "100%"}]})
    for name in fleet.names:
        fleet.hosts.change(name, no_undo=["1.0"])
    await fleet.plan()
    await fleet.approve("eva")
    assert await judged_bad(fleet) is VerdictName.HOLD
    (name,) = canaries(fleet)
    assert len(fleet.hosts.markers(name)) == 1
    with pytest.raises(TransitionRefused, match=r"no source for shop=1\.0"):
        control.undo(fleet.ledger, fleet.rollout, "eva", "back!")


@pytest.mark.slow
@pytest.mark.parametrize(("point", "nth"), [("lease-taken", 1), ("lease-taken", 2), ("target-outcome-written", 1)])
async def test_killed_worker_neither_undoes_what_stays_nor_leaves_the_rest(
    tmp_path: Path, point: str, nth: int
) -> None:
    fleet, stuck, free = await mixed(tmp_path, onFailure={"irreversible": "undo-others"})
    for name in canaries(fleet):
        fleet.metrics.errors[name] = 0.3
    await fleet.gate(1)
    await fleet.apply(1)
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
    assert kill_at(fleet, point, nth, "undo") == -9
    fleet.clock.advance(seconds=60)
    await fleet.finish()
    assert undos(fleet) == {stuck: "stays_changed", free: "undone"}
    assert fleet.twice() == []
    assert len(fleet.ledger.entries(CONTROL, kinds=[EntryKind.INCIDENT_OPENED])) == 1
    assert fleet.ledger.verify() == []


async def test_irreversible_target_that_fails_in_mid_change_stays_and_locks_while_others_were_good(
    tmp_path: Path,
) -> None:
    fleet = await all_db(tmp_path, rollout={"stopWhen": {"failedTargets": 3}})
    await fleet.gate(1)
    name = canaries(fleet)[0]
    site = fleet.site

    def break_it(point: str) -> None:
        begun = fleet.ledger.intents(rollout=fleet.rollout, target=name, open_only=False)
        if point == "outcome-written" and [item.open for item in begun] == [False]:  # its own, not another target's
            fleet.hosts.change(name, fail=1)

    fleet.site = replace(site, crash=break_it)
    await fleet.apply(1)
    fleet.site = site
    assert fleet.outcomes()[name] == "failed"
    await fleet.judge(1)
    await fleet.undo(1)
    assert undos(fleet) == {name: "stays_changed"}
    assert fleet.hosts.state(name)["installed"] == {"shop": "1.0", "db": "15.6"}, "as it failed"
    assert fleet.state == "held"
    assert lock_of(fleet.ledger, "web") is not None


async def test_report_has_what_cannot_be_undone_and_the_legs_of_the_drill(tmp_path: Path) -> None:
    fleet = await all_db(tmp_path, **DRILLED)
    await fleet.wave(1)
    await fleet.wave(2)
    await fleet.finish()
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries, rows = fleet.ledger.entries(fleet.rollout), fleet.ledger.targets(fleet.rollout)
    report = make_report(entries, fleet.frozen, row, rows, fleet.clock())
    name = canaries(fleet)[0]
    legs = [line.split(" at ")[0] for line in report.drill]
    verified = f"{name} undone, and verified by what it runs and by the checks,"
    assert legs == [f"{name} changed", verified, f"{name} changed again"]
    assert "## Rollback drill" in report.markdown
    assert f"db cannot be undone (declared in the policy: {WHY}): web-0" in report.markdown


async def test_backup_is_not_made_again_of_a_target_in_mid_change(tmp_path: Path) -> None:
    fleet = await all_db(tmp_path, hooks=[BACKUP], patches={"irreversible": [UNDRILLED]})
    await fleet.gate(1)
    name = canaries(fleet)[0]
    site = fleet.site

    def break_it(point: str) -> None:
        begun = fleet.ledger.intents(rollout=fleet.rollout, target=name, open_only=False)
        phases = [item.step["phase"] for item in begun]
        if point == "outcome-written" and phases.count("apply") == 1:
            fleet.hosts.change(name, fail=1)

    fleet.site = replace(site, crash=break_it)
    await fleet.apply(1)
    fleet.site = site
    fleet.hosts.change(name, fail=0)
    assert fleet.outcomes()[name] == "failed"
    control_targets.retry(fleet.ledger, fleet.rollout, "eva", "the disk is bigger now", target=name)
    await fleet.apply(1)
    assert fleet.outcomes()[name] == "applied"
    steps = fleet.ledger.intents(rollout=fleet.rollout, target=name, open_only=False)
    assert [item.step["name"] for item in steps].count("hook-snapshot") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "nth"),
    [("drill-begun", 1), ("started", 7), ("outcome-written", 8), ("started", 9), ("target-outcome-written", 4)],
)
async def test_worker_killed_in_a_drill_with_a_backup_ends_it_once(tmp_path: Path, point: str, nth: int) -> None:
    """Two canaries take a backup and two patches each: the drill's steps are the seventh to the eleventh."""
    fleet = await all_db(tmp_path, **DRILLED)
    await fleet.gate(1)
    assert kill_at(fleet, point, nth, "apply:1") == -9
    fleet.clock.advance(seconds=60)
    await fleet.apply(1)
    assert fleet.ledger.find(fleet.rollout, "drill:proven") is not None
    assert {fleet.outcomes()[name] for name in canaries(fleet)} == {"applied"}
    steps = [item.step["name"] for item in fleet.ledger.intents(rollout=fleet.rollout, open_only=False)]
    assert (steps.count("hook-snapshot"), steps.count("undo-db")) == (3, 1)
    assert await fleet.wave(1) is VerdictName.PROMOTE
    assert fleet.twice() == []
    assert fleet.ledger.verify() == []


async def test_drill_is_done_where_it_can_be_and_the_plan_says_where_it_cannot(tmp_path: Path) -> None:
    names = [f"web-{number:02d}" for number in range(1, 5)]
    fleet = Fleet(tmp_path / "all", hosts=4, rollout={"waves": TWO, "drill": True})
    for name in names:
        fleet.hosts.change(name, no_undo=["1.0"])
    await fleet.plan()
    assert "the rollback drill cannot pass and will hold the rollout" in render_plan(fleet.frozen, width=1000)
    first, second = canaries(fleet)

    fleet = Fleet(tmp_path / "one", hosts=4, rollout={"waves": TWO, "drill": True})
    fleet.hosts.change(first, no_undo=["1.0"])
    await fleet.plan()
    await fleet.approve("eva")
    assert "cannot pass" not in render_plan(fleet.frozen, width=1000)
    assert await fleet.wave(1) is VerdictName.PROMOTE
    proven = fleet.ledger.find(fleet.rollout, "drill:proven")
    assert proven is not None
    assert proven.target == second
    assert len(fleet.hosts.markers(first)) == 1


@pytest.mark.slow
async def test_target_that_is_at_work_counts_as_changed(tmp_path: Path) -> None:
    """Its job may begin to install at any moment, so nobody undoes half of its service meanwhile."""
    fleet = await all_db(tmp_path, hooks=[BACKUP], patches={"irreversible": [UNDRILLED]})
    await fleet.gate(1)
    assert kill_at(fleet, "started", 1, "apply:1") == -9
    begun = [row.target for row in fleet.ledger.targets(fleet.rollout) if row.began_at is not None]
    assert begun
    assert set(what_stays(fleet.ledger, fleet.frozen)) == set(begun)
    fleet.clock.advance(seconds=60)
    await fleet.apply(1)
    assert set(what_stays(fleet.ledger, fleet.frozen)) == set(canaries(fleet))


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    stuck=st.sets(st.sampled_from([f"web-{number:02d}" for number in range(1, 7)]), max_size=3),
    rest=st.sampled_from(["hold", "undo-others"]),
    labelled=st.booleans(),
)
def test_whole_rollouts_never_touch_what_stays_nor_leave_a_service_by_half(
    stuck: set[str], rest: str, labelled: bool
) -> None:
    """Each zone is a service; all that was changed was judged bad."""
    rules = {"waves": [{"canary": {"count": 4}}, {"size": "100%"}], **({"service": "az"} if labelled else {})}

    async def bad_rollout(folder: Path) -> tuple[Fleet, VerdictName | None]:
        fleet = await begun(folder, tuple(stuck), hosts=6, rollout=rules, onFailure={"irreversible": rest})
        verdict = await judged_bad(fleet)
        await fleet.finish()
        return fleet, verdict

    with TemporaryDirectory() as folder:
        fleet, verdict = asyncio.run(bad_rollout(Path(folder)))
        changed = set(canaries(fleet))
        zone = {item.target.name: item.target.labels["az"] for item in fleet.frozen.targets}
        near = {zone[name] for name in stuck & changed}
        stays = {name for name in changed if name in stuck or (labelled and zone[name] in near)}
        undo = not stays or (rest == "undo-others" and stays != changed)
        assert verdict is (VerdictName.UNDO if undo else VerdictName.HOLD)
        assert fleet.state == ("held" if stays else "undone")
        back = {name for name in changed if fleet.versions()[name] == "1.0"}
        assert back == (changed - stays if undo else set())
        phases = {(item.target, item.step["phase"]) for item in fleet.ledger.intents(open_only=False)}
        assert {target for target, phase in phases if phase == "undo"} == back
        assert (lock_of(fleet.ledger, "web") is not None) == bool(stays)
        assert fleet.twice() == []
        assert fleet.ledger.verify() == []
