"""A lab for pytest: ``pytest_plugins = ["lab.fixtures"]``.

``lab`` is one lab for the session, apart from the one that ``patching lab up`` keeps; ``fresh_lab`` is the same lab,
with every host new again and nothing published.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.api import Lab
from lab.beside import free_octet, require_real_hosts
from lab.layout import DEFAULT_HOSTS, Layout


@pytest.fixture(scope="session")
def lab_octet() -> int:
    """The loopback network of this session's lab."""
    return free_octet(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, lab_octet: int) -> Iterator[Lab]:
    """A lab of real hosts, ``PATCHING_LAB_HOSTS`` of them (default 12), that ends with the session."""
    directory = tmp_path_factory.mktemp("lab") / "run"
    hosts = int(os.environ.get("PATCHING_LAB_HOSTS", str(DEFAULT_HOSTS)))
    require_real_hosts(Layout.default(directory, lab_octet), hosts)
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
