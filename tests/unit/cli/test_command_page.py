"""The reference of the command line: every command, every option, and what its exit codes mean."""

from __future__ import annotations

import re

import pytest

from patching.cli import command_page, main

PAGE = command_page.page()
COMMANDS = dict(command_page.commands())


def section(name: str) -> str:
    return re.split(rf"^##+ {re.escape(name)}$", PAGE, flags=re.MULTILINE)[1].split("\n#")[0]


def test_every_command_that_is_offered_is_on_the_page() -> None:
    assert re.findall(r"^## patching (\S+)$", PAGE, flags=re.MULTILINE) == main.available()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_says_what_its_exit_codes_mean(name: str) -> None:
    told = section(name).split("Exit code 0")
    assert len(told) == 2, f"the docstring of {name} says nothing of exit code 0"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_argument_and_option_of_a_command_has_a_meaning(name: str) -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.*?) \|$", section(name), flags=re.MULTILINE)
    called = " ".join(row[0] for row in rows)
    for param in COMMANDS[name].params:
        assert param.metavar in called if param.metavar else param.opts[0] in called
    assert [row[0] for row in rows if not row[2].strip()] == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_in_the_terminal_tells_the_same_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*name.split()[1:], "--help"]) == 0
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", capsys.readouterr().out.split("Options:")[1]))
    for row in re.findall(r"^\| `(-.+?)` \|", section(name), flags=re.MULTILINE):
        assert set(re.findall(r"--[a-z][a-z-]*", row)) <= shown


def test_the_exit_codes_of_the_page_are_those_of_the_code() -> None:
    assert list(command_page.EXIT_CODES) == [main.OK, main.FAILED, main.WRONG_USE, main.PENDING]
