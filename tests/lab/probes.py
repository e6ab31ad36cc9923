"""Asks whether hosts and services answer, through the same addresses that everybody uses."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from lab.layout import SERVICE_PORT, Host, LabError

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


def ask_prometheus(url: str, query: str) -> list[dict[str, Any]]:
    """Ask Prometheus for the present value of a query.

    Raises:
        LabError: when it refuses the query, or does not answer.
    """
    try:
        with OPENER.open(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as refused:
        told = json.load(refused)
    except OSError as error:
        raise LabError(f"Prometheus at {url} does not answer: {error}") from error
    if told["status"] != "success":
        raise LabError(f"Prometheus refuses {query!r}: {told.get('error')}")
    return list(told["data"]["result"])


def healthy(host: Host) -> bool:
    """Tell whether a host can be logged in to and its service answers."""
    return speaks_ssh(host) and answers(f"http://{host.loopback}:{SERVICE_PORT}/healthz")


def wait(hosts: Iterable[Host], urls: Mapping[str, str], within: float, running: Callable[[], bool]) -> list[str]:
    """Wait for hosts, and for the services at the addresses; gives the names of those that are late."""
    checks = {host.name: partial(healthy, host) for host in hosts}
    checks |= {name: partial(answers, url) for name, url in urls.items()}
    deadline = time.monotonic() + within
    with ThreadPoolExecutor(8) as workers:
        while checks:
            done = workers.map(lambda item: (item[0], item[1]()), list(checks.items()))
            checks = {name: checks[name] for name, good in done if not good}
            if checks and (time.monotonic() > deadline or not running()):
                break
            time.sleep(0.1 if checks else 0)
    return list(checks)
