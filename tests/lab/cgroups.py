"""Control groups for the hosts' systemd: they outlive processes and namespaces, so they are found again and removed."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

# A machine with both versions has the second one beside the first.
MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
DELEGATED = ("systemd-run", "--user", "--scope", "--quiet", "--property=Delegate=yes", "--")


def mounted() -> Path | None:
    """Find where control groups of version 2 are mounted."""
    return next((path for path in MOUNTS if (path / "cgroup.procs").is_file()), None)


def own() -> Path | None:
    """Find the control group that this process is in."""
    root = mounted()
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    return None if root is None or path is None else root / path


def home(identity: str) -> Path | None:
    """Give the control group of a lab: root's is at the top, a user's under what the user was given."""
    base = mounted() if os.geteuid() == 0 and not in_user_namespace() else own()
    return None if base is None else base / identity


def in_user_namespace() -> bool:
    """Tell whether root here is only called so."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def writable() -> bool:
    """Tell whether this process may make control groups where it is."""
    base = own()
    return base is not None and os.access(base, os.W_OK) and os.access(base / "cgroup.procs", os.W_OK)


def delegation() -> list[str] | None:
    """Give the words before a command that let it make control groups; None when there are no such words."""
    if os.geteuid() == 0 or writable():
        return []
    if shutil.which(DELEGATED[0]) and (Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere")) / "systemd").is_dir():
        return list(DELEGATED)
    return None


def drop(directory: Path | None) -> None:
    """Remove a control group and those below it, as far as nothing runs in them."""
    if directory is None or not directory.is_dir():
        return
    for path, _, _ in os.walk(directory, topdown=False):
        with suppress(OSError):
            os.rmdir(path)  # noqa: PTH106 - a control group has files that cannot be removed
