"""F8: a writer that is killed at any moment leaves a ledger that verifies and holds everything it had confirmed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ledger_suite.values import R
from patching.ledger.store import SqlLedger

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(6))
def test_killed_writer_leaves_a_ledger_that_verifies_and_loses_nothing_confirmed(ledger: SqlLedger, seed: int) -> None:
    after = random.Random(seed).randint(1, 60)  # noqa: S311
    program = str(Path(__file__).with_name("appending_worker.py"))
    worker = subprocess.Popen(
        [sys.executable, program, f"sqlite:///{ledger._database.dialect.name}", "a"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert worker.stdout is not None
    confirmed = [worker.stdout.readline().strip() for _ in range(after)]
    worker.kill()
    rest, _ = worker.communicate(timeout=30)
    confirmed += rest.split("\n")[:-1]
    written = [item.key for item in ledger.entries(R)]
    assert worker.returncode < 0
    assert [key for key in confirmed if key not in written] == []
    assert ledger.verify() == []
    assert [lease.owner for lease in ledger.leases()] == ["a"]
    before = ledger.targets(R), ledger.leases()
    ledger.rebuild()
    assert (ledger.targets(R), ledger.leases()) == before
