"""A rollback that fails (F10): everything of the policy stops, one incident has the evidence, a person releases it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patching.errors import LedgerError, PlanError, TransitionRefused
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.report.incident_view import incident_text, incident_view
from patching.report.rollout_view import VIEW_KINDS, rollout_view
from patching.rollout import control, control_targets
from patching.rollout.answers import GateState, VerdictName
from patching.rollout.incidents import Incident, incidents, lock_of, release
from patching.rollout.reconcile import reconcile
from patching.rollout.states import RolloutState
from unit.rollout.fleet import Fleet

pytestmark = pytest.mark.slow


async def undo_fails(folder: Path, **fault: object) -> tuple[Fleet, str]:
    """Judge the canary bad on a host whose undo fails."""
    fleet = Fleet(folder)
    await fleet.begin()
    (name,) = [item.target.name for item in fleet.frozen.targets if item.wave == 1]
    fleet.metrics.errors[name] = 0.3
    await fleet.gate(1)
    await fleet.apply(1)
    fleet.hosts.change(name, **(fault or {"fail_undo": 100}))
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
    await fleet.undo(1)
    return fleet, name


def only(fleet: Fleet) -> Incident:
    (found,) = incidents(fleet.ledger)
    return found


def evidence(fleet: Fleet, name: str) -> dict[str, object]:
    return dict(fleet.ledger.document(only(fleet).evidence[name]))


async def test_a_failed_undo_locks_its_policy_once_with_evidence(tmp_path: Path) -> None:
    fleet, name = await undo_fails(tmp_path)
    closing = await fleet.finish()
    found = only(fleet)
    assert (found.policy, found.rollout, found.targets, found.locks) == ("web", fleet.rollout, (name,), True)
    assert (fleet.state, closing.good) == ("held", False)
    assert found.id in closing.sentence
    opened = fleet.ledger.entries(CONTROL, kinds=[EntryKind.INCIDENT_OPENED])
    assert len(opened) == 1, "the sweep finds the same failed undo and opens nothing"
    gathered = evidence(fleet, name)
    assert [(step["name"], step["exit_code"]) for step in gathered["steps"]][-1] == ("undo-shop", 100)  # type: ignore[attr-defined]
    assert "simulated failure of undo-shop" in gathered["steps"][-1]["stderr"]  # type: ignore[index]
    assert gathered["wanted_back"] == {"shop": "1.0"}
    assert gathered["now"]["answers"] is True  # type: ignore[index]
    assert gathered["now"]["versions"] == {"shop": "1.1"}  # type: ignore[index]
    assert (Path(__file__).parents[3] / found.runbook).is_file()
    assert fleet.ledger.verify() == []


async def test_no_wave_no_plan_and_no_emergency_begins_while_it_is_locked(tmp_path: Path) -> None:
    fleet, _ = await undo_fails(tmp_path)
    await fleet.finish()
    locked = only(fleet).id
    answer = await fleet.gate(2)
    assert (answer.state, answer.shown_as) == (GateState.REFUSED, "failed")
    assert locked in answer.sentence
    assert set(fleet.versions().values()) == {"1.0", "1.1"}
    for asked in ({}, {"replan": True}, {"mode": "plan"}, {"emergency": True}):
        fleet.new_run(f"run-{asked}", **asked)
        with pytest.raises(PlanError, match=locked):
            await fleet.discover()
    for act in (control.resume, control.promote, control_targets.retry):
        with pytest.raises(TransitionRefused, match=locked):
            act(fleet.ledger, fleet.rollout, "eva", "go on")  # type: ignore[operator]
    assert [row.id for row in fleet.ledger.rollouts()] == [fleet.rollout]


async def test_a_failed_undo_within_the_budget_holds_the_rollout_too(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    bad = next(item.target.name for item in fleet.frozen.targets if item.wave == 2)
    fleet.hosts.change(bad, fail=100)
    await fleet.gate(2)
    await fleet.apply(2)
    assert (await fleet.judge(2)).verdict is VerdictName.PROMOTE
    # The step that failed has changed something after all, and it does not go back.
    fleet.hosts.change(bad, fail=0, fail_undo=100, installed={"shop": "1.1"})
    await fleet.undo(2)
    assert fleet.state == "held"
    assert only(fleet).targets == (bad,)
    assert (await fleet.gate(3)).state is GateState.REFUSED


async def test_another_rollout_of_the_policy_that_is_at_work_is_held(tmp_path: Path) -> None:
    """An emergency works beside: it stops before its next target, whatever its DAG's tasks show."""
    fleet = Fleet(tmp_path)
    body = {"policy": "web", "emergency": True, "requested_by": "eva"}
    fleet.ledger.append(NewEntry(chain="urgent", kind=EntryKind.ROLLOUT_OPENED, key="opened", body=body))
    body = {"policy": "db", "emergency": False, "requested_by": "eva"}
    fleet.ledger.append(NewEntry(chain="other", kind=EntryKind.ROLLOUT_OPENED, key="opened", body=body))
    for name in ("urgent", "other"):
        for state in (RolloutState.WAITING, RolloutState.RUNNING):
            fleet.ledger.transition(name, state, reason="told")
    await fleet.begin()
    (canary,) = [item.target.name for item in fleet.frozen.targets if item.wave == 1]
    fleet.metrics.errors[canary] = 0.3
    await fleet.gate(1)
    await fleet.apply(1)
    fleet.hosts.change(canary, fail_undo=100)
    await fleet.judge(1)
    await fleet.undo(1)
    states = {row.id: row.state for row in fleet.ledger.rollouts()}
    assert (states["urgent"], states["other"]) == (RolloutState.HELD, RolloutState.RUNNING)


async def test_release_needs_a_person_and_lets_the_policy_work_again(tmp_path: Path) -> None:
    fleet, name = await undo_fails(tmp_path)
    await fleet.finish()
    found = only(fleet)
    with pytest.raises(LedgerError, match="needs a name and a reason"):
        release(fleet.ledger, found.id, "eva", " ")
    with pytest.raises(LedgerError, match="no incident nobody"):
        release(fleet.ledger, "nobody", "eva", "x")
    done = release(fleet.ledger, found.id, "eva", "downgraded by hand")
    assert fleet.rollout in done.sentence
    after = only(fleet)
    assert (after.released_by, after.release_reason, after.locks) == ("eva", "eva: downgraded by hand", False)
    assert lock_of(fleet.ledger, "web") is None
    with pytest.raises(TransitionRefused, match="released before, by eva"):
        release(fleet.ledger, found.id, "paul", "me too")
    assert fleet.state == "held", "what is held stays held"
    control.abort(fleet.ledger, fleet.rollout, "eva", "plan anew")
    fleet.new_run("run-2")
    await fleet.plan()
    planned = {item.target.name for item in fleet.frozen.targets}
    assert name not in planned, "it stays in quarantine"
    assert planned


async def test_an_undo_that_is_asked_for_again_is_tried_under_a_new_generation(tmp_path: Path) -> None:
    fleet, name = await undo_fails(tmp_path)
    await fleet.finish()
    fleet.hosts.change(name, fail_undo=0)
    done = control.undo(fleet.ledger, fleet.rollout, "eva", "the lock file is gone")
    assert f"the failed undo of {name} is tried once more" in done.sentence
    fleet.new_run("run-2")
    await fleet.begin()
    await fleet.finish()
    assert (fleet.state, fleet.versions()[name]) == ("undone", "1.0")
    assert not fleet.twice()
    assert only(fleet).locks, "a person releases it, not the machine"


async def test_a_second_failure_after_the_release_is_an_incident_of_its_own(tmp_path: Path) -> None:
    fleet, name = await undo_fails(tmp_path)
    await fleet.finish()
    release(fleet.ledger, only(fleet).id, "eva", "try again")
    control.undo(fleet.ledger, fleet.rollout, "eva", "again")
    fleet.new_run("run-2")
    await fleet.begin()
    await fleet.finish()
    first, second = incidents(fleet.ledger)
    assert (first.locks, second.locks, second.targets) == (False, True, (name,))
    assert first.id != second.id
    assert fleet.state == "held"


async def test_a_host_that_does_not_answer_is_said_so_in_the_evidence(tmp_path: Path) -> None:
    fleet, name = await undo_fails(tmp_path, offline=True)
    now = evidence(fleet, name)["now"]
    assert now["answers"] is False  # type: ignore[index]
    assert "does not answer" in now["detail"]  # type: ignore[index]


class Died(BaseException):
    """A worker that dies here."""


async def test_a_worker_that_dies_after_the_failed_undo_leaves_the_incident_to_reconcile(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    (name,) = [item.target.name for item in fleet.frozen.targets if item.wave == 1]
    fleet.metrics.errors[name] = 0.3
    await fleet.gate(1)
    await fleet.apply(1)
    fleet.hosts.change(name, fail_undo=100)
    await fleet.judge(1)

    def crash(point: str) -> None:
        if point == "target-outcome-written":
            raise Died

    normal, fleet.site = fleet.site, replace(fleet.site, crash=crash)
    with pytest.raises(BaseExceptionGroup):
        await fleet.undo(1)
    assert incidents(fleet.ledger) == []
    fleet.site = replace(normal, run_active=lambda _run: False, owner="worker-2")
    fleet.clock.advance(minutes=10)
    await reconcile(fleet.site)
    assert only(fleet).targets == (name,)
    assert fleet.state == "held"
    assert (await reconcile(fleet.site)).go_on == ()


async def test_page_report_and_terminal_say_the_same_of_it(tmp_path: Path) -> None:
    fleet, name = await undo_fails(tmp_path)
    closing = await fleet.finish()
    found, row = only(fleet), fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    entries = fleet.ledger.entries(fleet.rollout, kinds=VIEW_KINDS)
    rows = fleet.ledger.targets(fleet.rollout)
    view = rollout_view(row, rows, fleet.frozen, entries, fleet.clock(), locked=found)
    assert view["incident"]["id"] == found.id
    assert view["sentence"].startswith("waits for a person to release an incident: policy web is locked by")
    assert f"patching incident show {found.id}" in view["next_steps"][0]
    assert view["acts"][0]["act"] == "release-incident"
    assert found.id in closing.markdown
    text = incident_text(incident_view(found, {name: evidence(fleet, name)}))
    assert f"{name}: " in text
    assert "simulated failure of undo-shop" in text
    assert "shop: has 1.1, had 1.0  <- not back" in text
