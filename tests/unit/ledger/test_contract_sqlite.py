"""The contract of both databases, on SQLite."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from ledger_suite.contract_heartbeat import HeartbeatContract
from ledger_suite.contract_leases import LeaseContract
from ledger_suite.contract_verifying import VerifyingContract
from ledger_suite.contract_writing import WritingContract
from ledger_suite.tampering import read_raw, run_raw
from patching.ledger.store import SqlLedger


@pytest.fixture
def raw(ledger: SqlLedger) -> Callable[..., None]:
    return functools.partial(run_raw, ledger)


@pytest.fixture
def raw_rows(ledger: SqlLedger) -> Callable[..., object]:
    return functools.partial(read_raw, ledger)


class TestWriting(WritingContract):
    pass


class TestLeases(LeaseContract):
    pass


class TestHeartbeats(HeartbeatContract):
    pass


class TestVerifying(VerifyingContract):
    pass
