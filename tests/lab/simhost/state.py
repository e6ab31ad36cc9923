"""What a simulated host remembers: packages, holds, units. One JSON file, one writer at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = "PATCHING_SIMULATED_HOST"
MARK = "PATCHING_SIMULATED_LAB"


def new(versions: dict[str, str]) -> dict[str, Any]:
    """Give the state of a host that was just installed."""
    return {
        "packages": {name: {"version": version, "status": "ii"} for name, version in versions.items()},
        "held": [],
        "units": {"shopfront": True, "ssh": True},
        "serving": versions["shopfront"],
        "disk_full": False,
    }


def read(root: Path) -> dict[str, Any]:
    """Read a host's state."""
    return dict(json.loads((root / "state.json").read_text()))


def write(root: Path, state: dict[str, Any]) -> None:
    """Replace a host's state at once."""
    partial = root / f".state.{os.getpid()}"
    partial.write_text(json.dumps(state, indent=1))
    partial.rename(root / "state.json")


@contextmanager
def changing(root: Path) -> Iterator[dict[str, Any]]:
    """Give a host's state to change; nobody else changes it meanwhile, and it is written even after an error."""
    with (root / "state.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read(root)
        try:
            yield state
        finally:
            write(root, state)


def here() -> Path:
    """Give the folder of the host that this process runs in."""
    return Path(os.environ[ROOT])


def installed(state: dict[str, Any]) -> dict[str, str]:
    """List the packages that are there, whole or not, with their versions."""
    return {name: entry["version"] for name, entry in state["packages"].items()}
