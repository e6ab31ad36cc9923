"""Who is left after something was stopped, whatever it forked, renamed or detached: orphans come to this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import psutil

PR_SET_CHILD_SUBREAPER = 36


class Left(Protocol):
    """Names the living processes that were started since, here or below; an empty list means that none is left."""

    def __call__(self) -> list[str]: ...


@contextmanager
def adopting_orphans() -> Iterator[Left]:
    """Make this process the parent of every orphan below it, until the end of the block; gives who is left.

    What the processes of before start meanwhile is theirs, and does not count.
    """
    before = {(child.pid, child.create_time()) for child in psutil.Process().children(recursive=True)}
    _subreaper(on=True)

    def fresh(of: psutil.Process | None = None) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in (of or psutil.Process()).children():
                if (child.pid, child.create_time()) not in before:
                    found += [child, *fresh(child)]
        return found

    def left() -> list[str]:
        found = []
        for child in fresh():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{child.pid} {' '.join(child.cmdline())}")
        return found

    try:
        yield left
    finally:
        _subreaper(on=False)
        for child in fresh():
            with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.status() == psutil.STATUS_ZOMBIE and child.ppid() == os.getpid():
                    os.waitpid(child.pid, os.WNOHANG)


def _subreaper(*, on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
