"""A worker in a process of its own that dies by SIGKILL at the n-th passing of a named crash point.

Run as ``python crashing_worker.py FOLDER POINT NTH TASK``: TASK is ``apply:WAVE`` or ``undo``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from unit.rollout.fleet import Fleet


def main() -> None:
    folder, point, nth, task = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    fleet = Fleet.reopen(folder)
    passed = 0

    def crash(name: str) -> None:
        nonlocal passed
        passed += name == point
        if passed == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    fleet.site = replace(fleet.site, crash=crash, owner=f"worker-{os.getpid()}")
    kind, _, wave = task.partition(":")
    asyncio.run(fleet.apply(int(wave)) if kind == "apply" else fleet.undo(None))


if __name__ == "__main__":
    main()
