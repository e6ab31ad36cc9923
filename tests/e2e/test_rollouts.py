"""Rollouts of real hosts through a real Airflow: good, bad, marked, cleared, killed, edited in mid-wave (S4, F3, F8).

The rollouts of the first part run at the same time, each on hosts of its own; what is asserted is what the hosts show.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from e2e.conftest import Run, World

pytest_plugins = ["lab.fixtures"]
pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.airflow]

OLD, NEW, BAD = "1.0.0-1", "1.0.0-1+deb12u1", "1.0.0-1+deb12u2"
GOOD_HOSTS = ["web-01", "web-02", "web-03"]
JUDGE_HOSTS = ["web-04", "web-05"]
FAILED_HOSTS = ["web-06", "web-07"]
CLEAR_HOSTS = ["web-08", "web-09"]
KILLED_HOSTS = ["web-10", "web-11"]
EMERGENCY_HOSTS = ["web-12"]


def canary_of(run: Run) -> list[str]:
    return [item["name"] for item in run.view()["targets"] if item["wave"] == 1]


@pytest.fixture(scope="module")
def campaign(world: World) -> dict[str, Run]:
    """Start the rollouts of the good release together: they hardly use a core each while they soak."""
    asks = ("approval: {required: 0}", "approval: {required: 2, approvers: [alice, bob]}")
    world.policy("good", GOOD_HOSTS, asks)
    world.policy("judge-marked", JUDGE_HOSTS, ("soak: 8s", "soak: 60s"))
    world.policy("apply-marked", FAILED_HOSTS)
    world.policy("apply-cleared", CLEAR_HOSTS)
    world.policy("worker-killed", KILLED_HOSTS)
    names = ["good", "judge-marked", "apply-marked", "apply-cleared", "worker-killed"]
    return {name: world.trigger(name, reason=f"end-to-end: {name}") for name in names}


def test_good_update_approved_by_two_people_reaches_every_host_although_its_policy_breaks_in_mid_wave(
    world: World, campaign: dict[str, Run]
) -> None:
    run = campaign["good"]
    run.answer("alice", "approve.person_1")
    run.answer("bob", "approve.person_2")
    run.task_is("wave_1.judge", "deferred", "success")
    path = world.stage.policies / "good.yaml"
    sound = path.read_text()
    path.write_text(sound.replace("spec:", "spec:\n  modee: apply", 1))
    assert run.ends() == "success", run.note()
    path.write_text(sound)
    assert set(world.versions(GOOD_HOSTS).values()) == {NEW}
    assert world.twice(GOOD_HOSTS) == []
    answers = {item["person"] for item in run.view()["approval"]["answers"]}
    assert answers == {"alice", "bob"}


def test_judge_marked_success_opens_no_next_wave(world: World, campaign: dict[str, Run]) -> None:
    run = campaign["judge-marked"]
    run.task_is("wave_1.judge", "deferred")
    run.mark("wave_1.judge", "success")
    assert run.ends() == "failed"
    canary = canary_of(run)
    versions = world.versions(JUDGE_HOSTS)
    assert [host for host, version in versions.items() if version == NEW] == canary
    assert world.ledger.find(run.view()["rollout"]["id"], "wave-started:2") is None


def test_apply_marked_failed_bypasses_no_gate_and_the_next_run_goes_on(world: World, campaign: dict[str, Run]) -> None:
    run = campaign["apply-marked"]
    run.task_is("wave_1.apply", "running")
    run.mark("wave_1.apply", "failed")
    assert run.ends() == "failed"
    second = world.trigger("apply-marked", reason="go on after the mark")
    assert second.ends() == "success", second.note()
    assert second.view()["rollout"]["id"] == run.view()["rollout"]["id"]
    assert set(world.versions(FAILED_HOSTS).values()) == {NEW}
    assert world.twice(FAILED_HOSTS) == []


def test_cleared_apply_runs_nothing_twice(world: World, campaign: dict[str, Run]) -> None:
    run = campaign["apply-cleared"]
    assert run.ends() == "success", run.note()
    before = {host: world.markers(host) for host in CLEAR_HOSTS}
    run.clear("wave_2.apply")
    run.until("apply runs again", lambda: run.tasks()["wave_2.apply"] in ("queued", "running", "skipped"), 30)
    run.task_is("wave_2.apply", "skipped", "success")
    assert {host: world.markers(host) for host in CLEAR_HOSTS} == before
    assert set(world.versions(CLEAR_HOSTS).values()) == {NEW}


def test_worker_killed_in_apply_runs_every_step_once_and_the_rollout_ends_right(
    world: World, campaign: dict[str, Run]
) -> None:
    run = campaign["worker-killed"]
    run.task_is("wave_1.apply", "running")
    owner = run.until("the lease is taken", lambda: owners(world, run), 60)
    os.kill(int(owner.split(":")[1]), signal.SIGKILL)
    assert run.ends() == "success", run.note()
    assert set(world.versions(KILLED_HOSTS).values()) == {NEW}
    assert world.twice(KILLED_HOSTS) == []
    assert world.ledger.verify(run.view()["rollout"]["id"]) == []


def owners(world: World, run: Run) -> str | None:
    """Name the process that holds a lease of this run's rollout."""
    rollout = run.view()["rollout"]["id"]
    held = [lease.owner for lease in world.ledger.leases() if lease.rollout == rollout]
    return held[0] if held else None


def test_emergency_passes_freeze_where_the_policy_allows_it_and_is_in_the_ledger(world: World) -> None:
    frozen = (
        "  schedule:\n    timezone: Europe/Berlin\n    freezes: [{from: 2020-01-01, to: 2099-12-31, reason: always}]\n"
    )
    allowed = "  emergency: {ignore: [window, freeze], approval: {required: 1, approvers: [bob]}}\n"
    world.policy("frozen", EMERGENCY_HOSTS, ("  rollout:\n", f"{frozen}{allowed}  rollout:\n"))
    waiting = world.trigger("frozen", reason="waits for the freeze")
    waiting.task_is("wave_1.gate", "skipped", "deferred")
    assert "freeze" in waiting.note()
    conf = {"policy": "frozen", "reason": "exploited tonight", "advisory_ids": ["DLA-LAB-0001"]}
    urgent = world.trigger("frozen", dag_id="patch_emergency", **conf)
    urgent.answer("bob", "approve.person_1")
    assert urgent.ends() == "success", urgent.note()
    assert world.versions(EMERGENCY_HOSTS) == {"web-12": NEW}
    rollout = urgent.view()["rollout"]["id"]
    recorded = world.ledger.find(rollout, "emergency")
    assert recorded is not None
    assert recorded.body["passes"] == ["window", "freeze"]
    assert recorded.body["reason"] == "exploited tonight"
    superseded = world.ledger.targets(waiting.view()["rollout"]["id"])
    assert [row.outcome.value for row in superseded if row.outcome] == ["superseded"]


def test_bad_update_is_caught_on_the_canary_and_reaches_no_other_host(world: World, campaign: dict[str, Run]) -> None:
    assert campaign["good"].ends() == "success"
    world.lab.publish("v3")
    world.stage.sync_advisories()
    world.policy("bad", GOOD_HOSTS)
    run = world.trigger("bad", reason="end-to-end: bad")
    assert run.ends() == "failed"
    assert run.view()["rollout"]["state"] == "undone", run.note()
    assert set(world.versions(GOOD_HOSTS).values()) == {NEW}
    touched = [item["name"] for item in run.view()["targets"] if item["began_at"]]
    assert touched == canary_of(run)
    assert world.twice(GOOD_HOSTS) == []


def test_every_chain_of_the_ledger_verifies(world: World, campaign: dict[str, Run]) -> None:
    for run in campaign.values():
        run.ends()
    assert world.ledger.verify() == []


def test_broken_policy_is_a_stub_with_its_message_and_other_dags_stay(world: World) -> None:
    path: Path = world.stage.policies / "typo.yaml"
    path.write_text("apiVersion: patching/v1alpha1\nkind: PatchPolicy\nmetadata: {name: typo}\nspec: {modee: apply}\n")
    run = world.trigger("typo")
    run.task_is("discover.targets", "failed")
    assert 'did you mean "mode"' in run.note()
    assert world.admin.get("/api/v2/importErrors")["import_errors"] == []
    path.unlink()
