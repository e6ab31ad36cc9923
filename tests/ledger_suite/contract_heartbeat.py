"""What must hold on both databases: heartbeats."""

from __future__ import annotations

from ledger_suite.values import SetClock
from patching.ledger.store import SqlLedger


class HeartbeatContract:
    """Run by a subclass per database, which has the fixtures ``ledger`` and ``clock``."""

    def test_beat_is_one_row_by_the_ledgers_clock_and_no_entry(self, ledger: SqlLedger, clock: SetClock) -> None:
        chains = ledger.chains()
        assert ledger.beats() == []
        assert ledger.beat("patch_reconcile") is None
        (first,) = ledger.beats()
        clock.move(120)
        assert ledger.beat("patch_reconcile") == first
        (now,) = ledger.beats()
        assert (now.name, now.beats, (now.at - first.at).total_seconds()) == ("patch_reconcile", 2, 120)
        assert ledger.chains() == chains
        assert ledger.verify() == []

    def test_rebuilding_the_state_leaves_heartbeats_alone(self, ledger: SqlLedger) -> None:
        ledger.beat("patch_reconcile")
        ledger.rebuild()
        assert [beat.name for beat in ledger.beats()] == ["patch_reconcile"]
