"""DAG tests need Airflow's code, but no running Airflow and no database: the home is empty and stays so."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Airflow reads its home when it is first imported, so this cannot wait for a fixture.
_home = tempfile.TemporaryDirectory(prefix="dag-tests-")
if "airflow" not in sys.modules:
    os.environ["AIRFLOW_HOME"] = _home.name
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


def pytest_unconfigure() -> None:
    """Remove the home: a process of pytest-xdist ends without the finalizers of its own."""
    _home.cleanup()


FIRST = """\
apiVersion: patching/v1alpha1
kind: PatchPolicy
metadata: {name: web, description: Web hosts., labels: {owner: team-web, tier: gold}}
spec:
  mode: apply
  driver: {name: apt, connection: ssh_prod}
  targets: {inventory: fleet.yaml, maxTargets: 150}
  schedule:
    timezone: Europe/Berlin
    windows: [{rrule: "FREQ=WEEKLY;BYDAY=TU", start: 22:00, duration: 4h}]
    planAhead: 24h
  approval: {required: 2}
  rollout:
    waves:
      - {canary: {count: 1}, soak: 10m}
      - {size: 100%}
"""
Write = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder needs Airflow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.airflow)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    return folder


@pytest.fixture
def write(policies: Path) -> Write:
    """Write a policy file: the first one of the tests with some of its text replaced."""

    def write_file(file: str = "web.yaml", *replaced: tuple[str, str], text: str = FIRST) -> Path:
        for old, new in replaced:
            assert old in text, f"{old!r} is not in the policy"
            text = text.replace(old, new)
        path = policies / file
        path.write_text(text, encoding="utf-8")
        return path

    return write_file
