"""What a person may do to a rollout under way (S8): who and why are kept, the table decides, nothing runs twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patching.errors import LedgerError, TransitionRefused
from patching.ledger.entry import CONTROL, EntryKind
from patching.report.rollout_view import VIEW_KINDS, rollout_view
from patching.rollout import control
from patching.rollout.answers import GateState, VerdictName
from patching.rollout.reconcile import reconcile
from patching.rollout.states import RolloutState
from unit.rollout.fleet import Fleet

pytestmark = pytest.mark.slow


async def held_by_verdict(folder: Path, **spec: object) -> Fleet:
    """Hold a rollout after its canary, because the metrics gave no data."""
    fleet = Fleet(folder, **spec)
    await fleet.begin()
    fleet.metrics.silent = set(fleet.names)
    assert await fleet.wave(1) in (VerdictName.HOLD, VerdictName.INCONCLUSIVE)
    await fleet.finish()
    fleet.metrics.silent = set()
    assert fleet.state == "held"
    return fleet


async def next_run(fleet: Fleet, run_id: str = "run-2", first_wave: int = 1) -> bool:
    """Do the whole next run, as Airflow does it; says whether it ends green."""
    fleet.new_run(run_id)
    await fleet.begin()
    for wave in range(first_wave, 4):
        await fleet.wave(wave)
    return (await fleet.finish()).good


def last_move(fleet: Fleet) -> tuple[str | None, str]:
    entry = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.TRANSITION])[-1]
    return entry.actor, str(entry.body["reason"])


def view(fleet: Fleet) -> dict[str, object]:
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries = fleet.ledger.entries(fleet.rollout, kinds=VIEW_KINDS)
    return rollout_view(row, fleet.ledger.targets(fleet.rollout), fleet.frozen, entries, fleet.clock())


async def test_hold_and_resume_go_on_where_it_stopped_with_who_and_why(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    done = control.hold(fleet.ledger, fleet.rollout, "eva", "disk alarms")
    assert "nothing new begins" in done.sentence
    assert last_move(fleet) == ("eva", "held by eva: disk alarms")
    assert (await fleet.gate(2)).state is GateState.REFUSED
    assert not (await fleet.finish()).good
    control.resume(fleet.ledger, fleet.rollout, "paul", "alarms were old")
    assert last_move(fleet) == ("paul", "resumed by paul: alarms were old")
    assert await next_run(fleet)
    assert fleet.state == "completed"
    assert not fleet.twice()
    assert fleet.ledger.verify() == []


async def test_hold_in_mid_wave_ends_what_is_at_work_and_launches_nothing_more(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    asked: list[str] = []

    def crash(point: str) -> None:
        if point == "started" and not asked:
            asked.append(control.hold(fleet.ledger, fleet.rollout, "eva", "stop").sentence)

    fleet.site = replace(fleet.site, crash=crash, concurrency=1)
    await fleet.apply(2)
    fleet.site = replace(fleet.site, crash=lambda _point: None)
    assert "will end first" in asked[0]
    assert list(fleet.outcomes().values()).count("applied") == 2, "the canary, and the one that was at work"
    control.resume(fleet.ledger, fleet.rollout, "eva", "go")
    assert await next_run(fleet)
    assert set(fleet.versions().values()) == {"1.1"}
    assert not fleet.twice()


async def test_hold_replaces_the_sentence_of_what_was_waited_for(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout={"waves": [{"canary": {"count": 1}, "soak": "10m"}, {"size": "100%"}]})
    await fleet.begin()
    await fleet.wave(1)
    assert "soaks until" in str(view(fleet)["sentence"])
    control.hold(fleet.ledger, fleet.rollout, "eva", "wait")
    assert view(fleet)["sentence"] == "waits for a person to resume or abort it: held by eva: wait"


async def test_resume_is_refused_where_a_verdict_holds_and_names_what_helps(tmp_path: Path) -> None:
    fleet = await held_by_verdict(tmp_path)
    with pytest.raises(TransitionRefused, match=r"never made again.*Promote the wave"):
        control.resume(fleet.ledger, fleet.rollout, "eva", "please")
    assert fleet.state == "held"


async def test_promote_opens_the_next_wave_only_and_keeps_the_judges_verdict(tmp_path: Path) -> None:
    fleet = await held_by_verdict(tmp_path)
    judged = fleet.ledger.find(fleet.rollout, "verdict:1")
    control.promote(fleet.ledger, fleet.rollout, "eva", "I looked at the dashboards")
    assert fleet.ledger.find(fleet.rollout, "verdict:1") == judged
    wave = view(fleet)["waves"][0]  # type: ignore[index]
    assert (wave["verdict"], wave["state"]) == ("promote", "promoted")
    assert wave["reason"].startswith("promoted by eva: I looked at the dashboards; the judge had said ")
    assert wave["checks"], "the judge's numbers stay visible"
    fleet.new_run("run-2")
    await fleet.begin()
    assert await fleet.wave(1) is VerdictName.PROMOTE
    fleet.metrics.silent = set(fleet.names)
    assert await fleet.wave(2) is not VerdictName.PROMOTE
    assert (await fleet.gate(3)).state is GateState.REFUSED
    assert not (await fleet.finish()).good
    assert fleet.state == "held"
    assert not fleet.twice()


async def test_promoted_last_wave_is_verified_and_completed_by_the_next_run(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.wave(2)
    fleet.metrics.down = True
    await fleet.wave(3)
    assert not (await fleet.finish()).good
    control.promote(fleet.ledger, fleet.rollout, "eva", "prometheus was down", wave=3)
    fleet.metrics.down = False
    assert await next_run(fleet)
    assert fleet.state == "completed"


async def test_a_rollout_held_by_the_last_look_is_looked_at_again_after_resume(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    for wave in (1, 2, 3):
        await fleet.wave(wave)
    fleet.hosts.change("web-02", installed={"shop": "0.9"})
    assert not (await fleet.finish()).good
    control.resume(fleet.ledger, fleet.rollout, "eva", "look again")
    assert not await next_run(fleet)
    assert fleet.state == "held"
    fleet.hosts.change("web-02", installed={"shop": "1.1"})
    control.resume(fleet.ledger, fleet.rollout, "eva", "repaired")
    assert await next_run(fleet, "run-3")
    assert fleet.state == "completed"


async def test_promote_of_another_wave_than_the_held_one_is_refused(tmp_path: Path) -> None:
    fleet = await held_by_verdict(tmp_path)
    with pytest.raises(TransitionRefused, match=r"the held wave of .* is wave 1, not 2"):
        control.promote(fleet.ledger, fleet.rollout, "eva", "oops", wave=2)
    assert fleet.state == "held"


async def test_promote_of_an_unfinished_wave_is_refused(tmp_path: Path) -> None:
    """A budget stopped it: targets without an outcome would be left behind in a rollout that looks complete."""
    rules = {"waves": [{"size": "100%"}], "stopWhen": {"failedTargets": 1}}
    fleet = Fleet(tmp_path, rollout=rules, verify=[], onFailure={"undo": "never"})
    fleet.site = replace(fleet.site, concurrency=1)
    await fleet.begin()
    fleet.hosts.change(fleet.frozen.waves[0].targets[0], fail=100)
    assert await fleet.wave(1) is VerdictName.HOLD
    with pytest.raises(TransitionRefused, match="not finished"):
        control.promote(fleet.ledger, fleet.rollout, "eva", "it is fine")


async def test_promote_without_a_held_wave_and_of_what_was_judged_bad_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    control.hold(fleet.ledger, fleet.rollout, "eva", "wait")
    with pytest.raises(TransitionRefused, match="resume lets the rollout go on"):
        control.promote(fleet.ledger, fleet.rollout, "eva", "go")
    control.resume(fleet.ledger, fleet.rollout, "eva", "go")
    fleet.new_run("run-2")
    await fleet.begin()
    fleet.metrics.errors = dict.fromkeys(fleet.frozen.waves[1].targets, 0.5)
    await fleet.gate(2)
    await fleet.apply(2)
    assert (await fleet.judge(2)).verdict is VerdictName.UNDO
    with pytest.raises(TransitionRefused, match='"undoing"'):
        control.promote(fleet.ledger, fleet.rollout, "eva", "no")


async def test_abort_leaves_what_is_changed_and_lets_nothing_begin(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    done = control.abort(fleet.ledger, fleet.rollout, "eva", "wrong fleet")
    assert "1 changed targets stay as they are" in done.sentence
    for wave in (2, 3):
        await fleet.wave(wave)
    closing = await fleet.finish()
    assert not closing.good
    assert "aborted by eva: wrong fleet" in closing.sentence
    assert sorted(fleet.versions().values()).count("1.1") == 1
    with pytest.raises(TransitionRefused, match="undoing"):
        control.resume(fleet.ledger, fleet.rollout, "eva", "on second thought")


@pytest.mark.parametrize("end", ["held", "aborted", "completed"])
async def test_undo_by_a_person_puts_everything_back(tmp_path: Path, end: str) -> None:
    fleet = await held_by_verdict(tmp_path) if end != "completed" else Fleet(tmp_path)
    if end == "completed":
        assert (await fleet.whole()).good
    if end == "aborted":
        control.abort(fleet.ledger, fleet.rollout, "eva", "enough")
    first = fleet.rollout
    control.undo(fleet.ledger, first, "eva", "customers complain")
    assert last_move(fleet) == ("eva", "undo asked for by eva: customers complain")
    assert not await next_run(fleet)
    assert fleet.rollout == first, "the run adopts the rollout that is being undone"
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}


async def test_undo_without_a_run_is_done_by_reconcile(tmp_path: Path) -> None:
    fleet = await held_by_verdict(tmp_path)
    control.undo(fleet.ledger, fleet.rollout, "eva", "back")
    fleet.site = replace(fleet.site, run_active=lambda _run: False)
    await reconcile(fleet.site)
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}


async def test_undo_of_an_ended_rollout_is_refused_beside_an_open_one(tmp_path: Path) -> None:
    fleet = await held_by_verdict(tmp_path)
    first = fleet.rollout
    control.abort(fleet.ledger, first, "eva", "enough")
    fleet.new_run("run-2")
    await fleet.plan()
    assert fleet.rollout != first
    with pytest.raises(TransitionRefused, match=f"{fleet.rollout} of the same policy is open"):
        control.undo(fleet.ledger, first, "eva", "back")


async def test_a_rollout_that_began_to_undo_does_not_go_on(tmp_path: Path) -> None:
    fleet = await held_by_verdict(tmp_path)
    control.undo(fleet.ledger, fleet.rollout, "eva", "back")
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="undo failed")
    for act in (control.resume, control.promote):
        with pytest.raises(TransitionRefused, match="begun to undo"):
            act(fleet.ledger, fleet.rollout, "eva", "go on")


async def test_nothing_is_done_without_who_and_why(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.plan()
    before = fleet.ledger.heads()
    for actor, reason in (("", "why"), ("eva", " \n ")):
        for act in (control.hold, control.resume, control.promote, control.abort, control.undo):
            with pytest.raises(LedgerError, match="needs a name and a reason"):
                act(fleet.ledger, fleet.rollout, actor, reason)
        with pytest.raises(LedgerError, match="needs a name and a reason"):
            control.stop_all(fleet.ledger, actor, reason)
    assert fleet.ledger.heads() == before


async def test_refusals_name_what_is_allowed_and_write_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.whole()
    before = fleet.ledger.heads()
    for act in (control.hold, control.resume, control.promote, control.abort):
        with pytest.raises(
            TransitionRefused, match=r"from there: undoing \(a person or a late regression asks for undo\)"
        ):
            act(fleet.ledger, fleet.rollout, "eva", "try")
    with pytest.raises(LedgerError, match="no rollout nobody"):
        control.hold(fleet.ledger, "nobody", "eva", "try")
    assert fleet.ledger.heads() == before


async def test_hold_of_what_is_held_says_so(tmp_path: Path) -> None:
    fleet = await held_by_verdict(tmp_path)
    with pytest.raises(TransitionRefused, match='"held" already'):
        control.hold(fleet.ledger, fleet.rollout, "eva", "again")


# The stop switch


async def stopped_in_mid_job(folder: Path) -> tuple[Fleet, str]:
    """Turn the switch on when the canary's first of three steps has ended."""
    fleet = Fleet(folder, hosts=3, reboot={"timeout": "5s"})
    for name in fleet.names:
        fleet.hosts.add(name, installed={"kernel": "6.1", "shop": "1.0"}, offers={"kernel": "6.2", "shop": "1.1"})
    await fleet.begin()
    await fleet.gate(1)

    def crash(point: str) -> None:
        if point == "outcome-written" and fleet.ledger.stopped() is None:
            control.stop_all(fleet.ledger, "eva", "datacentre on fire")

    normal = fleet.site
    fleet.site = replace(normal, crash=crash)
    summary = await fleet.apply(1)
    fleet.site = normal
    assert "everything is stopped (eva: datacentre on fire)" in summary.sentence
    return fleet, next(item.target.name for item in fleet.frozen.targets if item.wave == 1)


async def test_stop_in_mid_job_launches_nothing_more_and_the_next_run_finishes_with_every_step_once(
    tmp_path: Path,
) -> None:
    fleet, canary = await stopped_in_mid_job(tmp_path)
    assert len(fleet.hosts.markers(canary)) == 1
    assert fleet.outcomes()[canary] == "running"
    assert [lease.target for lease in fleet.ledger.leases()] == [canary], "in mid-change it keeps its place"
    assert (await fleet.judge(1)).verdict is None
    await fleet.undo(1)
    assert not (await fleet.finish()).good
    fleet.clock.advance(seconds=60)
    again = fleet.as_worker("worker-2")
    again.new_run("run-2")
    await again.begin()
    assert (await again.gate(1)).state is GateState.REFUSED
    assert len(fleet.hosts.markers(canary)) == 1, "still stopped: nothing began"

    control.stop_all(fleet.ledger, "paul", "fire is out", on=False)
    assert await next_run(again, "run-3")
    assert again.state == "completed"
    assert not fleet.twice()
    assert {name: len(fleet.hosts.markers(name)) for name in fleet.names} == dict.fromkeys(fleet.names, 3)
    assert fleet.ledger.leases() == []
    assert fleet.ledger.verify() == []


async def test_stopped_job_that_touched_nothing_gives_its_lease_back(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3)
    await fleet.begin()
    await fleet.gate(1)

    def crash(point: str) -> None:
        if point == "steps-resolved":
            control.stop_all(fleet.ledger, "eva", "now")

    fleet.site = replace(fleet.site, crash=crash)
    await fleet.apply(1)
    assert not any(fleet.hosts.markers(name) for name in fleet.names)
    assert fleet.ledger.leases() == []


async def test_target_stopped_in_mid_change_is_undone_with_its_rollout(tmp_path: Path) -> None:
    """The switch does not keep an undo from a person's decision, and a half-changed target is not forgotten."""
    fleet, canary = await stopped_in_mid_job(tmp_path)
    done = control.abort(fleet.ledger, fleet.rollout, "eva", "enough")
    assert f"{canary} had begun" in done.sentence
    control.undo(fleet.ledger, fleet.rollout, "eva", "back")
    fleet.clock.advance(seconds=60)
    await fleet.finish()
    assert fleet.state == "undone"
    assert fleet.hosts.state(canary)["installed"] == {"kernel": "6.1", "shop": "1.0"}
    assert fleet.ledger.leases() == []


async def test_stop_switch_lets_an_undo_end(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    await fleet.gate(1)
    await fleet.apply(1)
    await fleet.judge(1)
    control.stop_all(fleet.ledger, "eva", "stop")
    await fleet.undo(1)
    assert fleet.versions()[canary] == "1.0"


async def test_stop_switch_keeps_who_and_why_and_is_turned_off_once(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with pytest.raises(TransitionRefused, match="off already"):
        control.stop_all(fleet.ledger, "eva", "none", on=False)
    control.stop_all(fleet.ledger, "eva", "incident 7")
    control.stop_all(fleet.ledger, "paul", "incident 8")
    assert fleet.ledger.stopped() == "paul: incident 8"
    control.stop_all(fleet.ledger, "eva", "over", on=False)
    assert fleet.ledger.stopped() is None
    entries = fleet.ledger.entries(CONTROL, kinds=[EntryKind.STOP_SWITCH])
    assert [(entry.actor, entry.body["on"]) for entry in entries] == [("eva", True), ("paul", True), ("eva", False)]


async def test_prepare_downloads_nothing_while_everything_is_stopped(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.plan()
    control.stop_all(fleet.ledger, "eva", "stop")
    assert await fleet.approve()
    assert not any(fleet.hosts.markers(name) for name in fleet.names)
