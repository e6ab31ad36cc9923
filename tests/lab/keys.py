"""The keys of the lab: one for whoever logs in, one for each host. Made once, kept in the cache."""

from __future__ import annotations

from pathlib import Path

from lab.layout import Host, Layout
from lab.process import checked


def make_key(path: Path, comment: str) -> Path:
    """Make an ed25519 key unless it is there.

    Raises:
        LabError: when ssh-keygen fails.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{path.name}")
        for half in (partial, partial.with_name(f"{partial.name}.pub")):
            half.unlink(missing_ok=True)
        checked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(partial)])
        partial.with_name(f"{partial.name}.pub").rename(path.with_name(f"{path.name}.pub"))
        partial.rename(path)
    return path


def client_key(layout: Layout) -> Path:
    """Give the private key that logs in to every host."""
    return make_key(layout.keys / "id_ed25519", "lab")


def host_key(layout: Layout, host: Host) -> Path:
    """Give the private key of a host."""
    return make_key(layout.keys / "hosts" / host.name, host.name)


def known_hosts(layout: Layout, hosts: list[Host]) -> str:
    """Give the lines of a known_hosts file, with the keys that the hosts were born with."""
    lines = []
    for host in hosts:
        kind, key, *_ = host_key(layout, host).with_name(f"{host.name}.pub").read_text().split()
        address = host.loopback if host.ssh_port == 22 else f"[{host.loopback}]:{host.ssh_port}"
        lines.append(f"{address},{host.name},{host.address} {kind} {key}\n")
    return "".join(lines)
