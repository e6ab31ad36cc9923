"""Processes that are remembered by pid *and* start time, and the namespaces they are started in."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.layout import LabError


def start_time(pid: int) -> int | None:
    """Tell when a process started, in clock ticks since boot; None when there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def children(pid: int) -> list[int]:
    """List the children of a process, oldest first."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def inner_child(pid: int) -> int | None:
    """Find the child of an unshare that is pid 1 of its new namespace: there are short-lived helpers beside it."""
    mine = Path("/proc/self/ns/pid").readlink()
    for child in children(pid):
        with suppress(OSError):
            if Path(f"/proc/{child}/ns/pid").readlink() != mine:
                return child
    return None


@dataclass(frozen=True)
class Recorded:
    """A process that can be found again without mistaking another one for it: pids are used again."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Recorded | None:
        """Record a running process; None when it is gone."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    @classmethod
    def read(cls, path: Path) -> Recorded | None:
        """Read a record; None when there is none, or half of one."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Keep the record; it is renamed into place, so it is whole or absent."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.rename(path)

    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        return start_time(self.pid) == self.started

    def end(self, within: float = 10) -> None:
        """Ask the process to end, insist after a while, and wait until it is gone.

        Raises:
            LabError: when it outlives a SIGKILL.
        """
        for sign, patience in ((signal.SIGTERM, within), (signal.SIGKILL, within)):
            if not self.alive():
                return
            try:
                os.kill(self.pid, sign)
            except ProcessLookupError:
                return
            if self.gone(patience):
                return
        raise LabError(f"process {self.pid} does not end: look at /proc/{self.pid}/stack")

    def gone(self, within: float) -> bool:
        """Wait until the process is gone."""
        deadline = time.monotonic() + within
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Let one process at a time in; the lock ends with the process, however that ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def sandboxed(argv: Sequence[str]) -> list[str]:
    """Wrap a command so that its mounts and all its processes end with it, even when it is killed."""
    owner = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
    return ["unshare", *owner, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *argv]


def checked(argv: Sequence[str], *, log: Path | None = None, stdin: str = "", **options: object) -> str:
    """Run a command and give back what it prints.

    Raises:
        LabError: when it fails, with its last line.
    """
    done = subprocess.run(list(argv), input=stdin, text=True, capture_output=True, check=False, **options)  # type: ignore[call-overload]
    if log is not None:
        with log.open("a") as out:
            out.write(f"$ {' '.join(argv)}\n{done.stdout}{done.stderr}")
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["(it said nothing)"]
        where = f" (log: {log})" if log else ""
        raise LabError(f"{argv[0]} failed with {done.returncode}: {said[-1]}{where}")
    return str(done.stdout)
