"""An HAProxy for tests: on loopback, in front of servers of the test's, with its runtime socket over TCP and Unix."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.absent import not_installed
from servers.loopback import free_port, listening


@dataclass(frozen=True)
class Haproxy:
    """Where it listens: for clients (``front``), and for commands (``admin`` port and ``socket`` path)."""

    front: int
    admin: int
    socket: Path


@contextmanager
def haproxy(backends: Mapping[str, Mapping[str, int]]) -> Iterator[Haproxy]:
    """Run one with backends {name: {server: port}}; clients reach the first. Skips with the reason where it lacks."""
    binary = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if binary is None:
        not_installed("no haproxy: apt-get install haproxy")
    with tempfile.TemporaryDirectory(prefix="patching-haproxy-") as folder:
        server = Haproxy(free_port(), free_port(), Path(folder) / "admin.sock")
        lines = [
            "global",
            f"  stats socket ipv4@127.0.0.1:{server.admin} level admin",
            f"  stats socket {server.socket} level admin",
            "defaults",
            "  mode tcp",
            "  timeout connect 5s",
            "  timeout client 60s",
            "  timeout server 60s",
            f"listen {next(iter(backends))}",
            f"  bind 127.0.0.1:{server.front}",
        ]
        for number, (backend, servers) in enumerate(backends.items()):
            lines += [f"backend {backend}"] if number else []
            lines += [f"  server {name} 127.0.0.1:{port}" for name, port in servers.items()]
        config = Path(folder) / "haproxy.cfg"
        config.write_text("\n".join([*lines, ""]))
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([binary, "-db", "-f", str(config)], stdout=log, stderr=log)
        try:
            listening(server.admin, process)
            yield server
        finally:
            process.terminate()
            process.wait(20)
