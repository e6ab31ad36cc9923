"""Brings a lab up, takes it down, and clears away what an interrupted start left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab import cgroups, image, inventory, packages, preflight, repository, services
from lab.keys import host_key
from lab.layout import SOURCE, Host, LabError, Layout, fleet, free_port
from lab.process import Recorded, children, inner_child, only_one, sandboxed

DISK_SIZE = "2g"
POST_SECONDS = 1.5
Say = Callable[[str], None]


def say_nothing(_: str) -> None:
    """Keep quiet."""


@contextmanager
def timed(say: Say, what: str) -> Iterator[None]:
    """Tell how long a stage took."""
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.1f} s")


def lock_file(layout: Layout) -> Path:
    """The lock that lets one start or end of this lab happen at a time."""
    return layout.directory.with_name(f"{layout.directory.name}.lock")


def running(layout: Layout) -> bool:
    """Tell whether the lab of this directory is up."""
    keeper = Recorded.read(layout.path("keeper.pid"))
    return keeper is not None and keeper.alive()


def prepare(layout: Layout, count: int, say: Say, disk_size: str = DISK_SIZE) -> list[Host]:
    """Build or find everything that hosts are made of, and write the lab's directory.

    Raises:
        LabError: when something cannot be built.
    """
    # Labs share the cache: the second waits for what the first builds, and finds it.
    with only_one(layout.cache / "lock"):
        with timed(say, "base"):
            below = image.base(layout)
        with timed(say, "packages and keys"):
            packages.build(layout.cache)
            upper = image.site(layout, below)
            hosts = fleet(count, layout.octet, free_port(f"127.{layout.octet}.1.1", *ssh_ports()))
            for host in hosts:
                host_key(layout, host)
    with timed(say, "repository"):
        layout.logs.mkdir(parents=True, exist_ok=True)
        repository.Repository(layout).replace({})
    plan = {
        "hosts": count, "ssh_port": hosts[0].ssh_port, "lower": f"{upper}:{below}", "disk_size": disk_size,
        "post_seconds": POST_SECONDS,
    }  # fmt: skip
    layout.path("plan.json").write_text(json.dumps(plan, indent=2))
    layout.path("prometheus.yml").write_text(services.prometheus_config(hosts))
    inventory.write(layout, hosts, "real")
    return hosts


def ssh_ports() -> tuple[int, ...]:
    """Give the ports to try for SSH: the real one where this user may have it."""
    return (22, 2222) if os.geteuid() == 0 else (2222, 2022)


def launch(layout: Layout) -> subprocess.Popen[str]:
    """Start the keeper in namespaces of its own, and write down which process it is before it does anything.

    Raises:
        LabError: when it ends at once.
    """
    keeper = [sys.executable, "-S", "-m", "lab.keeper", str(layout.directory), str(layout.octet)]
    outer = spawn(layout, [*(cgroups.delegation() or []), *sandboxed(keeper)])
    deadline = time.monotonic() + 10
    while (inner := inner_child(outer.pid)) is None:
        if outer.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"the lab did not start: {last_line(layout.logs / 'keeper.log')}")
        time.sleep(0.01)
    go(layout, outer, {"outer.pid": outer.pid, "keeper.pid": inner})
    return outer


def spawn(layout: Layout, argv: list[str]) -> subprocess.Popen[str]:
    """Start a process that outlives this one and waits for its go."""
    path = f"{os.environ.get('PATH', '')}:{preflight.SYSTEM_PATH}"
    modules = os.pathsep.join(filter(None, [str(SOURCE.parent), os.environ.get("PYTHONPATH")]))
    given = os.environ | {"PYTHONPATH": modules, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    with (layout.logs / "keeper.log").open("w") as log:
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, env=given, cwd="/", start_new_session=True
        )


def go(layout: Layout, process: subprocess.Popen[str], pids: dict[str, int]) -> None:
    """Write down which processes a lab is, then let it begin."""
    for name, pid in pids.items():
        if (record := Recorded.of(pid)) is not None:
            record.write(layout.path(name))
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.close()


def last_line(log: Path) -> str:
    """Give the last line of a log."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"{lines[-1] if lines else 'it said nothing'} (log: {log})"


def clear(layout: Layout) -> None:
    """End what runs and remove what is left, from whatever point an earlier start or end got to.

    Raises:
        LabError: when a process does not end.
    """
    keeper, outer = (Recorded.read(layout.path(name)) for name in ("keeper.pid", "outer.pid"))
    found = [keeper]
    if outer is not None and outer.alive():
        # A start that was interrupted between its two records: the keeper is the only child of the other.
        found += [Recorded.of(pid) for pid in children(outer.pid)]
    for record in [*found, outer]:
        if record is not None:
            record.end()
    if layout.path("hosts").is_dir():
        # Simulated hosts are in no namespace that ends with their keeper.
        from lab.simhost import hosts, state

        hosts.end_marked(state.MARK, str(layout.directory))
    with suppress(FileNotFoundError):
        cgroups.drop(Path(layout.path("cgroup").read_text()) if layout.path("cgroup").read_text() else None)
    if not layout.directory.exists():
        return
    for entry in layout.directory.iterdir():
        if entry == layout.logs:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
