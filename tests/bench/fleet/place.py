"""One fleet on disk and running: keys, addresses on 127.0.0.0/8, the server process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncssh

from bench.fleet.durations import durations

TESTS = Path(__file__).parents[2]
USER = "patch"


def python(*arguments: str) -> list[str]:
    """Give the command that runs one of our modules."""
    return [sys.executable, "-m", *arguments]


def environment() -> dict[str, str]:
    """Give the environment that our modules are found in."""
    places = [TESTS, *(TESTS.parent / name for name in ("include", "plugins", "dags"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}


class Place:
    """A folder with everything that contenders need to reach the fleet; a context manager while the servers run."""

    def __init__(self, folder: Path, seconds: list[float]) -> None:
        self.folder = folder
        self.seconds = seconds
        self.names = [f"host-{number:04d}" for number in range(len(seconds))]
        self.port = _free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    @classmethod
    def of(cls, folder: Path, hosts: int, seed: int) -> Place:
        """Lay out a fleet of ``hosts`` hosts with the durations of a seed."""
        return cls(folder, durations(hosts, seed))

    def _address(self, number: int) -> str:
        return f"127.77.{number // 250}.{number % 250 + 1}"

    def order(self, names: list[str]) -> None:
        """Put the hosts in the order of a plan, for who reads them from now on; each keeps its address and seconds."""
        known = {host["name"]: host for host in self.document["hosts"]}
        self.document["hosts"] = [known[name] for name in names]
        self.names = names
        self.seconds = [known[name]["seconds"] for name in names]
        self._keep()

    def _keep(self) -> None:
        (self.folder / "place.json").write_text(json.dumps(self.document))

    def _write(self) -> None:
        keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("client", "host")}
        for name, key in keys.items():
            key.write_private_key(str(self.folder / name))
            key.write_public_key(str(self.folder / f"{name}.pub"))
            (self.folder / name).chmod(0o600)
        public = (self.folder / "host.pub").read_text().strip()
        addresses = [self._address(number) for number in range(len(self.names))]
        known = "".join(f"[{address}]:{self.port} {public}\n" for address in addresses)
        (self.folder / "known_hosts").write_text(known)
        hosts = [
            {"name": name, "address": address, "seconds": seconds}
            for name, address, seconds in zip(self.names, addresses, self.seconds, strict=True)
        ]
        self.document: dict[str, Any] = {
            "hosts": hosts, "port": self.port, "user": USER, "folder": str(self.folder),
            "host_key": str(self.folder / "host"), "client_key": str(self.folder / "client"),
            "authorized": str(self.folder / "client.pub"), "known_hosts": str(self.folder / "known_hosts"),
        }  # fmt: skip
        self._keep()

    def __enter__(self) -> Place:
        """Start the servers."""
        command = python("bench.fleet.hosts", str(self.folder / "place.json"))
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True)
        if self._line() != "ready":
            raise SystemExit("the fleet's servers did not start")
        return self

    def __exit__(self, *_: object) -> None:
        """End the servers."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(timeout=60)

    def _line(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline().strip()

    def renew(self) -> dict[str, Any]:
        """Make every host as it was before; gives what the hosts saw until now."""
        assert self.server.stdin is not None
        self.server.stdin.write("renew\n")
        self.server.stdin.flush()
        facts: dict[str, Any] = json.loads(self._line())
        return facts


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port
