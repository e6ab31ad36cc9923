"""Whole simulated rollouts take most of the time of the unit tests: `make check` runs these files, `make test` all."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = {
    "test_drill.py",
    "test_frozen_plan.py",
    "test_irreversible.py",
    "test_planning.py",
    "test_queries.py",
    "test_retries.py",
    "test_reversibility.py",
    "test_whole_rollout.py",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the others as slow."""
    for item in items:
        if item.path.parent == HERE and item.path.name not in QUICK:
            item.add_marker(pytest.mark.slow)
