"""The command line's frame: exit codes, streams, laziness; and ``patching validate``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from patching.cli import main as cli
from patching.cli.rule_examples import whole_file
from patching.errors import LedgerUnavailable

GOOD = whole_file("mode: plan")
BAD = whole_file("mode: aply")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "web.yaml").write_text(GOOD)
    return tmp_path / "web.yaml"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path / "bad.yaml"


def test_valid_file_exits_0_and_says_so(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["validate", str(good)]) == 0
    assert capsys.readouterr().out == "1 policy: no errors\n"


def test_invalid_file_in_a_directory_exits_1_and_is_shown_on_stdout(
    good: Path, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["validate", str(good.parent)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f'{bad}:7:9: "aply" is not allowed for "mode"; did you mean "apply"?')
    assert said.out.endswith("\n1 error in 1 of 2 policies\n")
    assert said.err == ""


def test_limits_beside_the_policies_are_checked_with_them(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good.parent / "limits.yaml").write_text("spec: {limits: [{label: az}]}\n")
    assert cli.run(["validate", str(good.parent)]) == 1
    said = capsys.readouterr().out
    assert 'limits.yaml:1:17: the limit of "az" limits nothing' in said
    (good.parent / "limits.yaml").write_text("spec: {limits: [{label: az, maxUnavailable: 1}]}\n")
    assert cli.run(["validate", str(good.parent)]) == 0


def test_json_is_one_versioned_document(good: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["validate", "--json", str(good), str(bad)]) == 1
    made = json.loads(capsys.readouterr().out)
    assert (made["schema"], made["valid"], made["files"]) == ("patching/diagnostics/v1", False, 2)
    assert [(item["file"], item["line"], item["col"], item["rule"]) for item in made["errors"]] == [
        (str(bad), 7, 9, "unknown-value")
    ]


@pytest.mark.parametrize(
    "arguments", [["validate"], ["validate", "/does/not/exist"], ["validate", "--nonsense", "."], []]
)
def test_wrong_use_exits_2_and_is_told_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err


def test_directory_without_policies_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["validate", str(tmp_path)]) == 2
    assert "has no policy files" in capsys.readouterr().err


def test_unknown_command_exits_2_and_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["valdate"]) == 2
    assert 'did you mean "validate"?' in capsys.readouterr().err


def test_broken_people_file_is_an_error_and_wrong_approvers_are_not_hidden(
    good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good.parent / "people.yaml").write_text("groups: {leads: []}")
    assert cli.run(["validate", str(good.parent / "people.yaml"), str(good)]) == 1
    assert capsys.readouterr().out.count("[empty-group]") == 1


def test_version_and_help_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert cli.run(["--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("patching ")
    assert "Exit codes: 0 ok, 1 invalid" in said


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Policy"


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (LedgerUnavailable("the ledger is gone"), 1, "error: the ledger is gone"),
        (ValueError("oops"), 2, "this is a bug"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(3), 3, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_every_end_of_a_command_has_its_exit_code(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_load", lambda _name: lambda _arguments: _raise(error))
    assert cli.run(["lab"]) == code
    assert told in capsys.readouterr().err


def test_every_command_of_the_table_that_is_there_can_be_loaded() -> None:
    assert {"validate", "schema", "ledger", "lab"} <= set(cli.available())
    for name in cli.available():
        if not cli.COMMANDS[name].raw:
            assert cli.typer_command(name) is not None


def test_validate_imports_neither_airflow_nor_a_database(good: Path) -> None:
    code = (
        "import sys; from patching.cli.main import run; assert run(sys.argv[1:]) == 0;"
        "heavy = {'airflow', 'sqlalchemy', 'pandas', 'asyncssh', 'httpx', 'univers', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "validate", str(good)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
