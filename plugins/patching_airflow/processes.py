"""Processes recognised by pid and start time, with everything they started: found, and ended without a trace."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

KILLED = 10.0


class StillRunning(TimeoutError):
    """A process was killed and goes on; the message names it."""


def start_time(pid: int) -> str | None:
    """Give the kernel's start time of a process, None when there is none: a pid alone may be somebody else's.

    One that has ended and was not waited for counts as none.
    """
    found = _stat(pid)
    return found[2] if found else None


def family(known: Mapping[int, str]) -> dict[int, str]:
    """Find the living processes among known ones (pid: start time), what they started, and who is in their sessions.

    Whoever is known stays known after its death, so its session is still found; a pid that another process has by now
    is left alone.
    """
    table = _table()
    ours = {pid for pid, started in known.items() if pid not in table or table[pid][2] == started}
    more = True
    while more:
        fresh = {pid for pid, (parent, session, _) in table.items() if parent in ours or session in ours} - ours
        ours |= fresh
        more = bool(fresh)
    return {pid: table[pid][2] for pid in ours if pid in table}


def end(known: dict[int, str], children: Sequence[subprocess.Popen[bytes]] = ()) -> None:
    """Kill known processes (pid: start time) and their family until nobody is left; ``children`` are waited for.

    Raises StillRunning when one does not even end when it is killed.
    """
    deadline = time.monotonic() + KILLED
    while left := family(known):
        if time.monotonic() > deadline:
            raise StillRunning(f"processes {sorted(left)} do not end although they were killed: see ps and dmesg")
        known = {**known, **left}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for child in children:
            child.poll()
        time.sleep(0.02)
    for child in children:
        child.wait()


def _table() -> dict[int, tuple[int, int, str]]:
    """List the living: pid, then parent, session and start time."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return {pid: found for pid in pids if (found := _stat(pid))}


def _stat(pid: int) -> tuple[int, int, str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, _group, session, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else (int(parent), int(session), rest[15])
