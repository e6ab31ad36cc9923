"""``patching heartbeat``: its exit code is the dead man's switch."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from patching.cli.heartbeat import judged
from patching.cli.main import run
from patching.ledger.base import Beat
from patching.ledger.store import open_ledger

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("PATCHING_LEDGER_URL", "AIRFLOW__PATCHING__LEDGER_URL"):
        monkeypatch.delenv(name, raising=False)
    url = f"sqlite:///{tmp_path}/ledger.db"
    open_ledger(url).close()
    return url


def beaten(url: str, ago: timedelta) -> None:
    """Leave a heartbeat of some time ago."""
    ledger = open_ledger(url, clock=lambda: datetime.now(UTC) - ago)
    ledger.beat("patch_reconcile")
    ledger.close()


def test_scheduler_that_was_just_heard_is_0(url: str, capsys) -> None:
    beaten(url, timedelta(minutes=2))
    assert run(["heartbeat", "--url", url]) == 0
    assert capsys.readouterr().out.startswith("patch_reconcile was heard 2m")


def test_silence_is_1_and_says_what_to_look_at(url: str, capsys) -> None:
    beaten(url, timedelta(minutes=20))
    assert run(["heartbeat", "--url", url, "--max-age", "30m"]) == 0
    assert run(["heartbeat", "--url", url]) == 1
    out = capsys.readouterr().out
    assert "was last heard 20m" in out
    assert "scheduler or its workers are down, or the DAG is paused" in out


def test_never_heard_is_1(url: str, capsys) -> None:
    assert run(["heartbeat", "--url", url]) == 1
    assert "nothing was ever heard from patch_reconcile" in capsys.readouterr().out


def test_ledger_that_cannot_be_read_is_1(tmp_path: Path, capsys) -> None:
    assert run(["heartbeat", "--url", f"sqlite:///{tmp_path}/none.db"]) == 1
    assert "there is no ledger at" in capsys.readouterr().err


def test_other_heartbeats_count_for_nothing(url: str) -> None:
    open_ledger(url).beat("exploited-list")
    assert run(["heartbeat", "--url", url]) == 1


def test_limit_that_is_no_duration_is_1(url: str, capsys) -> None:
    assert run(["heartbeat", "--url", url, "--max-age", "soon"]) == 1
    assert "--max-age" in capsys.readouterr().err


def test_json_and_metrics_are_for_programs(url: str, capsys) -> None:
    beaten(url, timedelta(minutes=2))
    assert run(["heartbeat", "--url", url, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["good"]) == ("patching/heartbeat/v1", True)
    assert run(["heartbeat", "--url", url, "--prometheus"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "# TYPE patching_heartbeat_timestamp_seconds gauge"
    value = float(lines[2].removeprefix('patching_heartbeat_timestamp_seconds{name="patch_reconcile"} '))
    assert abs(value - datetime.fromisoformat(document["last"]).timestamp()) < 0.01


@pytest.mark.parametrize(("age", "good"), [(900, True), (901, False), (-30, True)])
def test_limit_itself_is_still_good_and_so_is_a_clock_that_is_behind(age: float, good: bool) -> None:
    beat = Beat(name="patch_reconcile", at=NOW - timedelta(seconds=age), beats=1)
    assert judged(beat, NOW, 900)[0] is good
