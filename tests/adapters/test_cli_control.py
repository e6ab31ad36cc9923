"""``patching hold|resume|promote|abort|undo|stop-all`` over HTTP against the real API, ledger and engine (S7, S8)."""

from __future__ import annotations

import asyncio
import json

import pytest

from adapters.test_cli_runs import Airflow, airflow
from patching.cli import main as cli
from patching.ledger.entry import CONTROL, EntryKind
from patching.rollout.answers import VerdictName

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
