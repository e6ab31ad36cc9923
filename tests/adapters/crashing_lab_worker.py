"""A worker in a process of its own that dies by SIGKILL at a named crash point of ``apply`` on real hosts.

Run as ``python crashing_lab_worker.py FOLDER POINT``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from adapters.lab_fleet import LabFleet


def main() -> None:
    folder, point = Path(sys.argv[1]), sys.argv[2]
    fleet = LabFleet.reopen(folder)

    def crash(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    fleet.site = replace(fleet.site, crash=crash, owner=f"worker-{os.getpid()}")
    asyncio.run(fleet.apply(1))


if __name__ == "__main__":
    main()
