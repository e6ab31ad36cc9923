"""Ledgers on SQLite for the unit tests: one is migrated, every test gets a copy."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger_suite.values import SetClock
from patching.ledger.store import SqlLedger, open_ledger


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrated")
    open_ledger(f"sqlite:///{folder}/ledger.db").close()
    return folder


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def fresh(tmp_path: Path, migrated: Path, clock: SetClock) -> Callable[[], SqlLedger]:
    numbers = itertools.count()

    def make() -> SqlLedger:
        folder = tmp_path / f"ledger{next(numbers)}"
        shutil.copytree(migrated, folder)
        return open_ledger(f"sqlite:///{folder}/ledger.db", clock=clock)

    return make


@pytest.fixture
def ledger(fresh: Callable[[], SqlLedger]) -> SqlLedger:
    return fresh()
