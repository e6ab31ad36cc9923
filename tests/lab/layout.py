"""Names, addresses and paths of the lab, in one place."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ZONES = ("az-a", "az-b", "az-c")
ROLE = "web"
SSH_USER = "patch"
SERVICE_PORT = 8000
REPOSITORY_PORT = 8081
PROMETHEUS_PORT = 9090
TRAFFIC_PORT = 9099
GATEWAY = "10.77.0.1"
DEFAULT_HOSTS = 12
MAX_HOSTS = 250
SOURCE = Path(__file__).resolve().parent


class LabError(RuntimeError):
    """The lab could not do what it was asked; the message is one line that says what and how to mend it."""


@dataclass(frozen=True)
class Host:
    """One host: what it is called and where it is reached."""

    name: str
    number: int
    zone: str
    octet: int = 77
    ssh_port: int = 22

    @property
    def address(self) -> str:
        """The address inside the lab's network."""
        return f"10.77.{ZONES.index(self.zone) + 1}.{self.number}"

    @property
    def loopback(self) -> str:
        """The address on this machine that is forwarded to the host."""
        return f"127.{self.octet}.{ZONES.index(self.zone) + 1}.{self.number}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels that inventory and metrics carry."""
        return {"env": "lab", "role": ROLE, "az": self.zone}


@dataclass(frozen=True)
class Layout:
    """The directories of one lab: ``directory`` lives as long as the lab, ``cache`` outlives it."""

    directory: Path
    cache: Path
    octet: int = 77
    environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def default(
        cls, directory: Path | str | None = None, octet: int | None = None, environ: Mapping[str, str] = os.environ
    ) -> Layout:
        """Read the environment: ``PATCHING_LAB_DIR``, ``PATCHING_LAB_OCTET``, ``XDG_CACHE_HOME``."""
        cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "patching-lab"
        chosen = Path(directory or environ.get("PATCHING_LAB_DIR") or cache / "run")
        return cls(chosen.absolute(), cache, octet or int(environ.get("PATCHING_LAB_OCTET", "77")), environ)

    @property
    def identity(self) -> str:
        """A short name of this lab, for what outlives a process: its control groups."""
        return "patchlab-" + hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]

    @property
    def gateway(self) -> str:
        """The loopback address of what belongs to no host: Prometheus and the repository."""
        return f"127.{self.octet}.0.1"

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus answers on this machine."""
        return f"http://{self.gateway}:{PROMETHEUS_PORT}"

    @property
    def repository_url(self) -> str:
        """Where the package repository answers on this machine."""
        return f"http://{self.gateway}:{REPOSITORY_PORT}"

    @property
    def keys(self) -> Path:
        """The keys of the lab, made once and kept: SSH, repository, hosts."""
        return self.cache / "keys"

    @property
    def logs(self) -> Path:
        """What the lab's processes say."""
        return self.directory / "logs"

    @property
    def live(self) -> Path:
        """Where the lab mounts things: empty to everybody outside its mount namespace."""
        return self.directory / "live"

    def netns(self, name: str) -> Path:
        """The file that holds a network namespace open, visible inside the lab's mount namespace only."""
        return self.live / "ns" / name

    def path(self, name: str) -> Path:
        """A file in the lab's own directory."""
        return self.directory / name


def fleet(count: int, octet: int, ssh_port: int) -> list[Host]:
    """Name the hosts web-01… and spread them over the zones in turn.

    Raises:
        LabError: for a number that the address plan has no room for.
    """
    if not 1 <= count <= MAX_HOSTS:
        raise LabError(f"{count} hosts: give a number from 1 to {MAX_HOSTS}")
    return [
        Host(f"{ROLE}-{number:02d}", number, ZONES[(number - 1) % len(ZONES)], octet, ssh_port)
        for number in range(1, count + 1)
    ]


def free_port(address: str, *candidates: int) -> int:
    """Choose the first port that can be bound on the address.

    Raises:
        LabError: when none can.
    """
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise LabError(f"ports {candidates} on {address} are taken: set PATCHING_LAB_OCTET to another number (default 77)")
