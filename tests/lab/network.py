"""The lab's network: a bridge in a namespace of its own, and a namespace for each host."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.layout import GATEWAY, Host, LabError, Layout

CLONE_NEWNET = 0x40000000
CORE = "lab"


class Network:
    """The namespaces and links; all calls are made inside the lab's mount namespace."""

    def __init__(self, layout: Layout, hosts: list[Host]) -> None:
        self.layout = layout
        self.hosts = hosts
        self.inside = ThreadPoolExecutor(1, "inside", self._join)

    def _join(self) -> None:
        # A namespace is joined by a thread, for good; a socket stays in the namespace it was made in.
        with self.layout.netns(CORE).open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot join the lab's network")

    def up(self) -> None:
        """Make everything.

        Raises:
            LabError: when ip or unshare fails.
        """
        self.layout.netns(CORE).parent.mkdir(parents=True)
        self.hold(CORE)
        bridge = ["link add br0 type bridge", f"addr add {GATEWAY}/16 dev br0", "link set br0 up"]
        self.ip(CORE, [*bridge, "link set lo up"])
        for host in self.hosts:
            self.hold(host.name)
        lines = []
        for host in self.hosts:
            lines.append(f"link add {link(host)} type veth peer name eth0 netns {self.layout.netns(host.name)}")
            lines += [f"link set {link(host)} master br0", f"link set {link(host)} up"]
        self.ip(CORE, lines)
        for host in self.hosts:
            address = f"addr add {host.address}/16 dev eth0"
            self.ip(host.name, [address, "link set lo up", "link set eth0 up", f"route add default via {GATEWAY}"])

    def hold(self, name: str) -> None:
        """Make a network namespace and hold it open by a file."""
        path = self.layout.netns(name)
        path.touch()
        call(["unshare", f"--net={path}", "true"])

    def ip(self, where: str, lines: list[str]) -> None:
        """Run a batch of ip commands in a namespace."""
        call([*self.enter(where), "ip", "-batch", "-"], "\n".join(lines) + "\n")

    def enter(self, where: str) -> list[str]:
        """Give the words that run a command in a namespace."""
        return ["nsenter", f"--net={self.layout.netns(where)}", "--"]

    def link(self, host: Host, up: bool) -> None:
        """Give a host's cable a signal, or none."""
        self.ip(CORE, [f"link set {link(host)} {'up' if up else 'down'}"])

    def socket(self) -> socket.socket:
        """Make a TCP socket that lives in the lab's network."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made

        return self.inside.submit(make).result()


def link(host: Host) -> str:
    """The bridge's end of a host's cable: an interface's name holds 15 characters."""
    return f"v-{host.name}"


def call(argv: list[str], stdin: str = "") -> None:
    """Run a command.

    Raises:
        LabError: when it fails.
    """
    done = subprocess.run(argv, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")


def mount(kind: str, source: str, target: Path, options: str = "") -> None:
    """Mount a file system.

    Raises:
        LabError: when mount fails.
    """
    target.mkdir(parents=True, exist_ok=True)
    call(["mount", "-t", kind, *(["-o", options] if options else []), source, os.fspath(target)])
