"""What must hold on both databases: nothing can be changed, removed, added or cut off without being noticed (S7)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger_suite.sequences import act, acts, projected
from ledger_suite.values import K, R, claim, entry, opened
from patching.errors import LedgerCorrupt
from patching.ledger import schema
from patching.ledger.base import Head
from patching.ledger.store import SqlLedger

Raw = Callable[..., None]


def filled(ledger: SqlLedger) -> str:
    plan = opened(ledger)
    for number in range(4):
        ledger.append(entry(K.GATE, f"g{number}", wave=number, note="ü€"))
    return plan


class VerifyingContract:
    """Run by a subclass per database, with the fixtures ``ledger``, ``raw`` (SQL behind the ledger's back), ``url``."""

    def test_whole_ledger_has_no_problem(self, ledger: SqlLedger) -> None:
        filled(ledger)
        assert ledger.verify() == []
        assert ledger.verify(R) == []
        assert [(head.chain, head.seq) for head in ledger.heads()] == [(R, 6)]

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE entry SET body = '{}' WHERE seq = 3",
            "DELETE FROM entry WHERE seq = 3",
            "UPDATE document SET body = '{}'",
            "DELETE FROM document",
        ],
    )
    def test_database_itself_refuses_to_change_what_is_written(self, ledger: SqlLedger, raw: Raw, statement) -> None:
        filled(ledger)
        with pytest.raises(sa.exc.DBAPIError, match="append-only"):
            raw(statement, guarded=True)
        assert ledger.verify() == []

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("body", '{"wave":9}'),
            ("body", '{ "note":"ü€","wave":1}'),
            ("body", "no json"),
            ("at", "2020-01-01T00:00:00+00:00"),
            ("actor", "mallory"),
            ("kind", "verdict"),
            ("kind", "no_such_kind"),
            ("key", "other"),
            ("target", "a"),
            ("step", "s"),
            ("previous", "0" * 64),
            ("hash", "f" * 64),
        ],
    )
    def test_changed_column_is_found_at_its_entry(self, ledger: SqlLedger, raw: Raw, column: str, value: str) -> None:
        filled(ledger)
        raw(f"UPDATE entry SET {column} = :value WHERE seq = 4", value=value)  # noqa: S608
        problems = ledger.verify()
        assert (R, 4) in {(item.chain, item.seq) for item in problems}
        assert all("changed" in item.message for item in problems)

    def test_removed_entry_is_found(self, ledger: SqlLedger, raw: Raw) -> None:
        filled(ledger)
        raw("DELETE FROM entry WHERE seq = 4")
        assert [(item.seq, item.message.split(":")[0]) for item in ledger.verify(R)] == [
            (5, "entry 4 of this chain are missing")
        ]

    def test_cut_off_end_is_found_even_after_more_was_written(self, ledger: SqlLedger, raw: Raw) -> None:
        filled(ledger)
        raw("DELETE FROM entry WHERE seq > 4")
        (cut,) = ledger.verify(R)
        assert cut.seq == 4
        assert "recorded head is 6: its end was cut off" in cut.message
        ledger.append(entry(K.GATE, "later", wave=1))
        assert any("entries 5 to 6" in item.message for item in ledger.verify(R))

    def test_whole_chain_that_was_removed_with_its_head_is_found(self, ledger: SqlLedger, raw: Raw) -> None:
        filled(ledger)
        opened(ledger, "other")
        raw("DELETE FROM entry WHERE chain = 'other'")
        raw("DELETE FROM chain_head WHERE chain = 'other'")
        (problem,) = ledger.verify()
        assert "8 entries were written in all, 6 are here" in problem.message

    def test_chain_without_its_head_is_found(self, ledger: SqlLedger, raw: Raw) -> None:
        filled(ledger)
        raw("DELETE FROM chain_head")
        assert any("no recorded head" in item.message for item in ledger.verify())

    def test_missing_and_changed_documents_are_found_where_they_are_referred_to(self, ledger, raw) -> None:
        plan = filled(ledger)
        raw("UPDATE document SET body = '{}'")
        (changed,) = ledger.verify()
        assert (changed.seq, "was changed" in changed.message) == (2, True)
        with pytest.raises(LedgerCorrupt, match="do not act"):
            ledger.document(plan)
        raw("DELETE FROM document")
        (missing,) = ledger.verify()
        assert (missing.seq, "is missing" in missing.message) == (2, True)

    def test_rewritten_ledger_is_found_only_by_heads_that_were_kept_elsewhere(self, ledger, raw) -> None:
        """What verify cannot prove alone, said in docs/explanation/ledger.md."""
        ledger.append(entry(K.APPROVAL, "a", actor="eva", decision="approved"))
        (kept,) = ledger.heads()
        for table in ("entry", "chain_head"):
            raw(f"DELETE FROM {table}")  # noqa: S608
        raw("UPDATE ledger_meta SET position = 0")
        ledger.append(entry(K.APPROVAL, "a", actor="mallory", decision="approved"))
        assert ledger.verify() == []
        (found,) = ledger.check_heads([kept])
        assert "another hash" in found.message
        (gone,) = ledger.check_heads([Head(chain=R, seq=9, hash=kept.hash)])
        assert "is gone" in gone.message

    @settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
    @given(sequence=st.lists(acts, max_size=40))
    def test_rebuild_gives_the_same_state_as_writing_did(self, fresh: Callable[[], SqlLedger], sequence) -> None:
        ledger = fresh()
        for wanted in sequence:
            act(ledger, wanted)
        before = projected(ledger)
        ledger.rebuild()
        assert projected(ledger) == before
        assert ledger.verify() == []
        ledger.close()

    def test_rebuild_repairs_state_that_was_altered(self, ledger: SqlLedger, raw: Raw) -> None:
        filled(ledger)
        before = projected(ledger)
        raw("UPDATE rollout SET state = 'completed'")
        raw("DELETE FROM target_row WHERE target = 'b'")
        assert projected(ledger) != before
        ledger.rebuild()
        assert projected(ledger) == before

    def test_writers_at_once_never_fork_a_chain_or_exceed_a_limit(self, ledger: SqlLedger) -> None:
        """Threads share one ledger; each writes its own entries, and all race for two places."""
        start, errors = threading.Barrier(6), []

        def write(name: str) -> None:
            try:
                start.wait()
                for number in range(8):
                    ledger.append(entry(K.GATE, f"{name}:{number}", wave=1))
                ledger.acquire(name, R, name, [claim("domain", "az", 2)], ttl=30)
            except Exception as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=write, args=(f"t{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(ledger.leases()) == 2
        assert [item.seq for item in ledger.entries(R)] == list(range(1, 6 * 8 + 3))
        assert ledger.verify() == []

    def test_times_and_bodies_are_stored_as_they_were_hashed(self, ledger: SqlLedger, raw_rows) -> None:
        written = ledger.append(entry(K.GATE, "g", share=1.0, ü="€"))
        (row,) = raw_rows(sa.select(schema.entry))
        assert row["body"] == '{"share":1,"ü":"€"}'
        assert json.loads(row["body"]) == written.body
        assert row["at"] == written.at.isoformat()
