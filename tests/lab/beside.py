"""A lab for a test run, beside the one that ``patching lab up`` keeps."""

from __future__ import annotations

import os

import pytest

from lab.layout import PROMETHEUS_PORT, LabError, Layout, free_port
from lab.preflight import install_tools, missing_packages, preflight

FIRST_OCTET = 80


def free_octet(worker: int = 0) -> int:
    """Find a loopback network that no lab uses; each worker of a parallel run looks in its own range."""
    first = FIRST_OCTET + worker * 10
    for octet in range(first, first + 10):
        try:
            free_port(f"127.{octet}.0.1", PROMETHEUS_PORT)
        except LabError:
            continue
        return octet
    raise LabError(f"127.{first} to 127.{first + 9} are all taken: take another lab down")


def require_real_hosts(layout: Layout, hosts: int) -> None:
    """Skip with the reason where real hosts are not possible; where they have to be, that is a failure."""
    required = os.environ.get("CI") == "true"
    if required and os.geteuid() == 0 and missing_packages():
        install_tools()
    problems = preflight(layout, hosts)
    if problems:
        reason = "; ".join(str(problem) for problem in problems)
        (pytest.fail if required else pytest.skip)(f"no lab of real hosts: {reason}")
