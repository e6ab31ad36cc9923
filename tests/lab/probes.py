"""Asks whether hosts and services answer, through the same addresses that everybody uses."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from lab.layout import SERVICE_PORT, Host, Layout

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PATIENCE = 2.0


def speaks_ssh(host: Host) -> bool:
    """Tell whether a host's SSH server greets."""
    try:
        with socket.create_connection((host.loopback, host.ssh_port), PATIENCE) as sock:
            sock.settimeout(PATIENCE)
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def answers(url: str) -> bool:
    """Tell whether an address answers with a success."""
    try:
        with OPENER.open(url, timeout=PATIENCE) as answer:
            return bool(200 <= answer.status < 300)
    except OSError:
        return False


def healthy(host: Host) -> bool:
    """Tell whether a host can be logged in to and its service answers."""
    return speaks_ssh(host) and answers(f"http://{host.loopback}:{SERVICE_PORT}/healthz")


def wait(hosts: Iterable[Host], layout: Layout | None, within: float, running: Callable[[], bool]) -> list[str]:
    """Wait for hosts, and for the lab's services when its layout is given; gives the names of those that are late."""
    checks: dict[str, Callable[[], bool]] = {host.name: lambda host=host: healthy(host) for host in hosts}  # type: ignore[misc]
    if layout is not None:
        checks["prometheus"] = lambda: answers(f"{layout.prometheus_url}/-/ready")
        checks["repository"] = lambda: answers(f"{layout.repository_url}/dists/lab/InRelease")
    deadline = time.monotonic() + within
    with ThreadPoolExecutor(8) as workers:
        while checks:
            done = workers.map(lambda item: (item[0], item[1]()), list(checks.items()))
            checks = {name: checks[name] for name, good in done if not good}
            if checks and (time.monotonic() > deadline or not running()):
                break
            time.sleep(0.1 if checks else 0)
    return list(checks)
