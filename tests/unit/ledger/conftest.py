"""Ledgers on SQLite for the unit tests: one is migrated, every test gets a copy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger_suite.empty import place_empty_ledger
from ledger_suite.values import SetClock
from patching.ledger.store import SqlLedger, open_ledger


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def fresh(tmp_path: Path, clock: SetClock) -> Callable[[], SqlLedger]:
    numbers = itertools.count()

    def make() -> SqlLedger:
        return open_ledger(place_empty_ledger(tmp_path / f"ledger{next(numbers)}" / "ledger.db"), clock=clock)

    return make


@pytest.fixture
def ledger(fresh: Callable[[], SqlLedger]) -> SqlLedger:
    return fresh()
