"""What holds for every test: no property test fails because the machine was busy, files lie in memory, labs are few."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

MEMORY = Path("/dev/shm")  # noqa: S108 - only a folder of the test run's own is made there
ROOM = 4 * 2**30

settings.register_profile("project", deadline=None)
settings.load_profile("project")


TOGETHER = {"test_apt_on_lab.py", "test_judge_on_lab.py", "test_lab.py"}


class FewLabs(LoadFileScheduling):
    """A file to a process, some on a lab to the same one: the kernel has watches for two labs, not for four."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "one lab" if Path(file).name in TOGETHER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FewLabs:
    """Spread the tests over processes so that few of them have a lab."""
    return FewLabs(config, log)


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
