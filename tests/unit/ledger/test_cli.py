"""``patching ledger``: exit codes, what is printed, where the URL comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger_suite.tampering import run_raw
from ledger_suite.values import K, R, entry, opened
from patching.cli.main import run
from patching.ledger.store import SqlLedger


@pytest.fixture
def url(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("PATCHING_LEDGER_URL", raising=False)
    monkeypatch.delenv("AIRFLOW__PATCHING__LEDGER_URL", raising=False)
    opened(ledger)
    return f"sqlite:///{ledger._database.dialect.name}"


def test_whole_ledger_is_0_and_ends_with_its_heads(ledger: SqlLedger, url: str, capsys) -> None:
    assert run(["ledger", "verify", "--url", url]) == 0
    (head,) = ledger.heads()
    assert capsys.readouterr().out.splitlines() == [
        f"  head {R} 2 {head.hash}",
        "whole: 2 entries in 1 chains",
    ]


def test_altered_ledger_is_1_and_says_where(ledger: SqlLedger, url: str, capsys) -> None:
    run_raw(ledger, "UPDATE entry SET actor = 'mallory' WHERE seq = 1")
    assert run(["ledger", "verify", "--url", url]) == 1
    out = capsys.readouterr().out
    assert f"! {R} 1: its hash does not match what it says" in out
    assert "do not act on this ledger" in out
    assert run(["ledger", "rebuild", "--url", url]) == 1
    assert run(["ledger", "verify", "--json", "--url", url]) == 1
    capsys.readouterr()


def test_json_is_one_document_and_its_heads_can_be_checked_later(ledger, url, tmp_path: Path, capsys) -> None:
    assert run(["ledger", "verify", "--json", "--url", url]) == 0
    printed = capsys.readouterr().out
    document = json.loads(printed)
    assert (document["schema"], document["whole"], document["problems"]) == ("patching/ledger-verify/v1", True, [])
    kept = tmp_path / "heads.json"
    kept.write_text(printed)
    ledger.append(entry(K.GATE, "g"))
    assert run(["ledger", "verify", "--url", url, "--against", str(kept)]) == 0
    assert "the 1 heads kept elsewhere are in it" in capsys.readouterr().out
    run_raw(ledger, "DELETE FROM entry")
    run_raw(ledger, "DELETE FROM chain_head")
    run_raw(ledger, "UPDATE ledger_meta SET position = 0")
    assert run(["ledger", "verify", "--url", url]) == 0
    assert run(["ledger", "verify", "--url", url, "--against", str(kept)]) == 1
    assert "is gone" in capsys.readouterr().out


def test_file_without_heads_is_refused(url: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "x").write_text("[]")
    assert run(["ledger", "verify", "--url", url, "--against", str(tmp_path / "x")]) == 1
    assert "has no heads" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["PATCHING_LEDGER_URL", "AIRFLOW__PATCHING__LEDGER_URL"])
def test_url_comes_from_the_environment(url: str, variable: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv(variable, url)
    assert run(["ledger", "verify"]) == 0
    assert "whole" in capsys.readouterr().out


def test_without_a_url_it_is_wrong_use(url: str, capsys) -> None:
    assert run(["ledger", "verify"]) == 2
    assert "give --url" in capsys.readouterr().err


def test_missing_ledger_is_1_and_nothing_is_made(url: str, tmp_path: Path, capsys) -> None:
    assert run(["ledger", "verify", "--url", f"sqlite:///{tmp_path}/none/l.db"]) == 1
    assert "nothing was created" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_chain_is_shown_entry_by_entry_and_steers_no_terminal(ledger: SqlLedger, url: str, capsys) -> None:
    ledger.append(entry(K.STEP_OUTCOME, "o", target="a", step="s", actor="e\x1b[2Jva", stdout="x\x1b[2J\x9b2Jy"))
    assert run(["ledger", "show", R, "--url", url]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert run(["ledger", "show", R, "--json", "--url", url]) == 0
    assert [item["seq"] for item in json.loads(capsys.readouterr().out)["entries"]] == [1, 2, 3]


def test_unknown_chain_is_1(url: str, capsys) -> None:
    assert run(["ledger", "show", "nobody", "--url", url]) == 1
    assert 'no chain "nobody"' in capsys.readouterr().err


def test_rebuild_builds_anew(ledger: SqlLedger, url: str, capsys) -> None:
    run_raw(ledger, "DELETE FROM target_row")
    assert run(["ledger", "rebuild", "--url", url]) == 0
    assert [row.target for row in ledger.targets(R)] == ["a", "b", "c"]
    capsys.readouterr()
