"""Builders of remote programs: what comes from outside reaches the shell as data, and lost codes are not success."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patching.channels.remote_job import (
    JobPaths,
    cancel_program,
    forbid_program,
    framed,
    look_program,
    parse_look,
    remote_command,
    start_program,
    wait_program,
)

BOOT = "11111111-2222-3333-4444-555555555555"
TEXT = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=40)


def sh(program: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["/bin/sh", "-s"], input=framed(program).encode(), capture_output=True, check=False)


@given(state=TEXT.filter(bool), payload=TEXT, user=st.none() | TEXT.filter(bool))
@settings(max_examples=60, deadline=None)
def test_programs_are_valid_shell_whatever_they_are_given(state: str, payload: str, user: str | None) -> None:
    paths = JobPaths("step-1", state)
    programs = (
        start_program(paths, payload, run_as=user), look_program(paths), wait_program(paths, 1), cancel_program(paths),
        forbid_program(paths), start_program(paths, payload, run_as=user, wait=1),
    )  # fmt: skip
    for program in programs:
        ran = subprocess.run(["/bin/sh", "-n"], input=framed(program).encode(), capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr


@given(payload=TEXT)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_payload_is_written_as_it_is(payload: str, tmp_path: Path) -> None:
    """Only the writing part of the start program runs: no runner, no root."""
    program = start_program(JobPaths("step-1", str(tmp_path / "s")), payload)
    lines = program[program.index("  printf '%s\\n'") :]
    write = lines[: lines.index("\n  printf '%s' ")]
    assert sh(f"new={tmp_path}; {write}").returncode == 0
    assert (tmp_path / "script").read_bytes() == payload.encode() + b"\n"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "a\n", "$(id)", "x" * 200])
def test_a_step_id_that_could_leave_its_directory_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a step id"):
        JobPaths(name)


@pytest.mark.parametrize("torn", range(1, 60, 7))
def test_a_program_that_arrives_torn_runs_nothing(torn: int, tmp_path: Path) -> None:
    """A connection cut while a program is sent must not run its first half."""
    touched = tmp_path / "touched"
    whole = framed(f"touch {touched}\necho {'x' * 60}\ntrue")
    subprocess.run(["/bin/sh", "-s"], input=whole[:-torn].encode(), capture_output=True, check=False)
    assert not touched.exists() or torn < 2


def test_a_program_cannot_eat_the_rest_of_itself() -> None:
    assert sh("cat\necho after").stdout == b"after\n"


def test_the_remote_command_is_constant_and_bounded() -> None:
    """Neither process lists nor sudo's log show what a step does."""
    assert remote_command(sudo=True, seconds=30) == "exec sudo -n /bin/sh -c 'exec timeout -k 5 30 /bin/sh -s'"
    assert remote_command(sudo=False, seconds=0.2) == "exec /bin/sh -c 'exec timeout -k 5 1 /bin/sh -s'"


def looked(**changed: str) -> bytes:
    words = {"boot": BOOT, "directory": "1", "lock": "0", "exit": "1", "started": "1", "alive": "0", "recorded": BOOT,
             "code": "0", "out": "2", "err": "1", **changed}  # fmt: skip
    return b"patching-step=1\n" + "".join(f"{key}={value}\n" for key, value in words.items()).encode() + b"\nabc"


def test_a_look_is_read() -> None:
    look = parse_look(looked())
    assert look is not None
    assert (look.exit_code, look.stdout, look.stderr, look.boot_id) == (0, b"ab", b"c", BOOT)
    assert look.evidence.same_boot


@pytest.mark.parametrize("code", ["", "-1", "256", "x", "0x0", "٣", "0 1"])
def test_an_exit_code_that_is_none_is_not_seen(code: str) -> None:
    look = parse_look(looked(code=code))
    assert look is not None
    assert look.exit_code is None


@pytest.mark.parametrize("output", [b"", b"sudo: a password is required\n", b"patching-step=1\nboot=x\n", b"\n\n"])
def test_what_is_no_look_is_none(output: bytes) -> None:
    assert parse_look(output) is None


def test_a_look_at_nothing_is_absent(tmp_path: Path) -> None:
    look = parse_look(sh(look_program(JobPaths("step-1", str(tmp_path)))).stdout)
    assert look is not None
    assert not look.evidence.directory
