"""A lab for pytest: ``pytest_plugins = ["lab.fixtures"]``.

``lab`` is one lab for the session, apart from the one that ``patching lab up`` keeps; ``fresh_lab`` is the same lab,
with every host new again and nothing published.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.api import Lab
from lab.layout import DEFAULT_HOSTS, PROMETHEUS_PORT, LabError, Layout, free_port
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


def require_real_hosts(layout: Layout) -> None:
    """Skip with the reason where real hosts are not possible; where they have to be, that is a failure."""
    required = os.environ.get("CI") == "true"
    if required and os.geteuid() == 0 and missing_packages():
        install_tools()
    problems = preflight(layout)
    if problems:
        reason = "; ".join(str(problem) for problem in problems)
        (pytest.fail if required else pytest.skip)(f"no lab of real hosts: {reason}")


@pytest.fixture(scope="session")
def lab_octet() -> int:
    """The loopback network of this session's lab."""
    return free_octet(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, lab_octet: int) -> Iterator[Lab]:
    """A lab of real hosts, ``PATCHING_LAB_HOSTS`` of them (default 12), that ends with the session."""
    directory = tmp_path_factory.mktemp("lab") / "run"
    require_real_hosts(Layout.default(directory, lab_octet))
    hosts = int(os.environ.get("PATCHING_LAB_HOSTS", str(DEFAULT_HOSTS)))
    # A cold start builds the base first; only a start from the cache takes seconds.
    lab = Lab.up(hosts, directory=directory, octet=lab_octet, within=120)
    yield lab
    lab.down()


@pytest.fixture
def fresh_lab(lab: Lab) -> Lab:
    """The session's lab, as it was when it came up."""
    lab.repository.replace({})
    lab.restore()
    return lab
