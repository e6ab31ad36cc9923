"""What holds for every test: no property test fails because the machine was busy, and files lie in memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import settings

MEMORY = Path("/dev/shm")  # noqa: S108 - only a folder of the test run's own is made there
ROOM = 4 * 2**30

settings.register_profile("project", deadline=None)
settings.load_profile("project")


def in_memory() -> bool:
    """Say whether memory can hold what the tests write; containers often have 64 MiB of it that run no program."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return False
    found = os.statvfs(MEMORY)
    return found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC


# Every ledger waits for its disk at each commit; half of the time of the tests would go into that. What a disk
# promises after a power cut is measured by `make bench`, not tested here.
if "TMPDIR" not in os.environ and in_memory():
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None
