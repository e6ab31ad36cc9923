"""A person's decisions from the command line, over HTTP against the real API, ledger and engine (S7, S8, F10)."""

from __future__ import annotations

import asyncio
import json

import pytest

from adapters.test_cli_runs import Airflow, airflow
from patching.cli import main as cli
from patching.ledger.entry import CONTROL, EntryKind
from patching.rollout.answers import VerdictName
from unit.rollout.fleet import Fleet

__all__ = ["airflow"]  # a fixture is found by its name

WHY = ["--reason", "I looked at the dashboards"]


def held(airflow: Airflow) -> str:
    """Hold the rollout after its canary, because the metrics gave no data."""
    fleet = airflow.fleet

    async def work() -> None:
        await fleet.begin()
        fleet.metrics.down = True
        assert await fleet.wave(1) is not VerdictName.PROMOTE
        await fleet.finish()

    asyncio.run(work())
    fleet.metrics.down = False
    assert fleet.state == "held"
    return fleet.rollout


def test_promote_starts_the_run_that_completes_the_rollout(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout = held(airflow)
    assert cli.run(["promote", rollout, "--wave", "1", *WHY]) == 0
    told = capsys.readouterr()
    assert told.out == f"wave 1 of {rollout} is promoted: the next run goes on after it\n"
    assert "is started" in told.err
    assert airflow.conf == [{"reason": "promote by alice: I looked at the dashboards"}]
    assert airflow.fleet.state == "completed"
    assert not airflow.fleet.twice()
    assert airflow.fleet.ledger.entries(rollout, kinds=[EntryKind.VERDICT])[1].actor == "alice"


def test_resume_of_what_a_verdict_holds_is_refused_with_what_helps(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["resume", held(airflow), *WHY]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "refused, nothing was done" in told.err
    assert "Promote the wave" in told.err
    assert (airflow.conf, airflow.fleet.state) == ([], "held")


def test_resume_after_hold_without_a_run_leaves_it_to_the_next_one(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(airflow.fleet.begin())
    rollout = airflow.fleet.rollout
    assert cli.run(["hold", rollout, *WHY]) == 0
    assert airflow.fleet.state == "held"
    assert cli.run(["resume", rollout, "--no-run", "--json", *WHY]) == 0
    document = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (document["schema_version"], document["by"], document["started"]) == (1, "alice", None)
    assert (airflow.conf, airflow.fleet.state) == ([], "waiting")


def test_abort_then_undo_puts_everything_back(airflow: Airflow) -> None:
    rollout = held(airflow)
    assert cli.run(["abort", rollout, *WHY]) == 0
    assert airflow.fleet.state == "aborted"
    assert cli.run(["undo", rollout, *WHY]) == 0
    assert airflow.fleet.state == "undone"
    assert set(airflow.fleet.versions().values()) == {"1.0"}


def test_undo_of_what_cannot_be_undone_is_refused_until_it_is_restored(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = airflow.fleet
    for name in fleet.names:
        fleet.hosts.change(name, no_undo=["1.0"])
    fleet.policy = fleet.policy.model_copy(update={"spec": fleet.policy.spec.model_copy(update={"verify": ()})})
    asyncio.run(fleet.plan())
    asyncio.run(fleet.approve("eva"))
    asyncio.run(fleet.wave(1))
    rollout = fleet.rollout
    assert cli.run(["abort", rollout, *WHY]) == 0
    assert cli.run(["undo", rollout, *WHY]) == 1
    assert "nothing was undone" in (said := capsys.readouterr().err)
    assert "no source for shop=1.0" in said
    (canary,) = [name for name, version in fleet.versions().items() if version == "1.1"]
    fleet.hosts.change(canary, installed={"shop": "1.0"})
    assert cli.run(["undo", rollout, "--restored", canary, *WHY]) == 0
    assert fleet.state == "undone"


def test_a_run_that_cannot_begin_is_told_and_the_decision_stands(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout = held(airflow)
    airflow.paused = True
    assert cli.run(["promote", rollout, *WHY]) == 1
    assert "that stands, but no run was started: patch__web is paused" in capsys.readouterr().err
    assert airflow.fleet.state == "waiting"


def test_unknown_rollout_and_missing_reason(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["hold", "nobody", *WHY]) == 1
    assert "no such rollout" in capsys.readouterr().err
    assert cli.run(["hold", "nobody"]) == 2
    assert cli.run(["hold", "nobody", "--reason", " "]) == 1


def test_stop_all_needs_the_right_to_every_dag(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    """alice may change one DAG only."""
    assert cli.run(["stop-all", *WHY]) == 1
    assert "who may change all DAGs" in capsys.readouterr().err
    assert airflow.fleet.ledger.stopped() is None
    airflow.everything = True
    assert cli.run(["stop-all", *WHY]) == 0
    assert airflow.fleet.ledger.stopped() == "alice: I looked at the dashboards"
    assert cli.run(["stop-all", "--off", *WHY]) == 0
    assert airflow.fleet.ledger.stopped() is None
    assert len(airflow.fleet.ledger.entries(CONTROL, kinds=[EntryKind.STOP_SWITCH])) == 2


# Single targets and incidents


def failed_in_second_wave(airflow: Airflow) -> str:
    """Hold the rollout because one target of its second wave fails, which is one more than its budget."""
    fleet = airflow.fleet
    fleet.policy = Fleet(
        fleet.folder, onFailure={"undo": "never", "quarantine": False}, rollout={"stopWhen": {"failedTargets": 1}}
    ).policy

    async def work() -> str:
        await fleet.begin()
        await fleet.wave(1)
        bad = next(item.target.name for item in fleet.frozen.targets if item.wave == 2)
        fleet.hosts.change(bad, fail=100)
        await fleet.wave(2)
        await fleet.finish()
        fleet.hosts.change(bad, fail=0)
        return bad

    bad = asyncio.run(work())
    assert (fleet.state, fleet.outcomes()[bad]) == ("held", "failed")
    return bad


def test_retry_of_what_failed_starts_the_run_that_completes_the_rollout(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = failed_in_second_wave(airflow)
    assert cli.run(["retry", airflow.fleet.rollout, "--failed", *WHY]) == 0
    assert f"{bad} of {airflow.fleet.rollout} is tried again" in capsys.readouterr().out
    assert airflow.conf == [{"reason": "retry by alice: I looked at the dashboards"}]
    assert airflow.fleet.state == "completed"
    assert not airflow.fleet.twice()


def test_retry_wants_a_target_or_failed_and_says_what_stands_against_it(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout = held(airflow)
    assert cli.run(["retry", rollout, *WHY]) == 2
    assert cli.run(["retry", rollout, "web-01", "--failed", *WHY]) == 2
    capsys.readouterr()
    assert cli.run(["retry", rollout, "--failed", *WHY]) == 1
    assert "no target failed" in capsys.readouterr().err
    assert cli.run(["retry", rollout, "nobody", *WHY]) == 1
    assert "no such target" in capsys.readouterr().err
    assert airflow.conf == []


def test_skip_leaves_a_target_out(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    rollout = held(airflow)
    name = next(item.target.name for item in airflow.fleet.frozen.targets if item.wave == 3)
    assert cli.run(["skip", rollout, name, *WHY]) == 0
    assert f"{name} is skipped" in capsys.readouterr().out
    assert airflow.fleet.outcomes()[name] == "skipped"
    assert cli.run(["promote", rollout, *WHY]) == 0
    assert (airflow.fleet.state, airflow.fleet.versions()[name]) == ("completed", "1.0")


def test_abort_now_is_told_to_the_jobs(airflow: Airflow) -> None:
    rollout = held(airflow)
    assert cli.run(["abort", rollout, "--now", *WHY]) == 0
    (now,) = airflow.fleet.ledger.entries(rollout, kinds=[EntryKind.ABORTED_NOW])
    assert now.actor == "alice"


def test_a_failed_undo_is_listed_shown_and_released(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    """F10: from the lock to the release, with nothing but the command line."""
    fleet = airflow.fleet
    rollout = held(airflow)
    (canary,) = [item.target.name for item in fleet.frozen.targets if item.wave == 1]
    fleet.hosts.change(canary, fail_undo=100)
    assert cli.run(["undo", rollout, *WHY]) == 0
    assert fleet.state == "held"
    capsys.readouterr()
    assert cli.run(["incident", "list"]) == 0
    name = f"undo-{rollout}"
    assert capsys.readouterr().out.startswith(f"{name}  LOCKS web\n")
    assert cli.run(["incident", "show", name]) == 0
    shown = capsys.readouterr().out
    assert "simulated failure of undo-shop" in shown
    assert "shop: has 1.1, had 1.0  <- not back" in shown
    assert cli.run(["status", rollout]) == 0
    told = capsys.readouterr().out
    assert f"waits for a person to release an incident: policy web is locked by incident {name}" in told
    assert cli.run(["abort", rollout, *WHY]) == 0
    assert cli.run(["run", "web"]) == 1
    assert fleet.ledger.rollouts()[0].id == rollout, "nothing new begins while it is locked"
    assert cli.run(["incident", "release", name]) == 2
    assert cli.run(["incident", "release", name, *WHY]) == 0
    assert cli.run(["incident", "release", name, *WHY]) == 1
    assert "released before, by alice" in capsys.readouterr().err
    assert cli.run(["release", canary, *WHY]) == 0
    assert "has left quarantine" in capsys.readouterr().out
    assert cli.run(["release", canary, *WHY]) == 1
    assert cli.run(["incident", "show", "nobody"]) == 1
