"""Recorder: writes entries within one transaction: fence, idempotence, chain, projection, head."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from patching.errors import FenceLost, LedgerConflict
from patching.ledger import projection, schema
from patching.ledger.base import Fence
from patching.ledger.chain import cleaned, same, seal
from patching.ledger.entry import GENESIS, LedgerEntry, NewEntry
from patching.value import canonical

ENTRY, HEAD, LEASE = schema.entry.c, schema.chain_head.c, schema.lease.c

# Made once: building a statement costs more than running it.
_FIND = sa.select(schema.entry).where(ENTRY.chain == sa.bindparam("in_chain"), ENTRY.key == sa.bindparam("of_key"))
_HEAD = sa.select(HEAD.seq, HEAD.hash).where(HEAD.chain == sa.bindparam("in_chain"))
_HELD = sa.select(schema.lease).where(LEASE.id == sa.bindparam("of_lease"), LEASE.released.is_(sa.false()))
_INSERT, _INSERT_HEAD = schema.entry.insert(), schema.chain_head.insert()
_MOVE_HEAD = (
    schema.chain_head.update()
    .where(HEAD.chain == sa.bindparam("in_chain"))
    .values(seq=sa.bindparam("new_seq"), hash=sa.bindparam("new_hash"))
)
_MOVE = schema.ledger_meta.update().values(position=sa.bindparam("new_position"))


def entry_from(row: sa.RowMapping) -> LedgerEntry:
    """Read an entry back from its row."""
    fields: dict[str, Any] = {name: row[name] for name in LedgerEntry.model_fields}
    fields["body"] = json.loads(row["body"])
    fields["at"] = datetime.fromisoformat(row["at"])
    return LedgerEntry(**fields)


def find_entry(connection: sa.Connection, chain: str, key: str) -> LedgerEntry | None:
    """Find one entry by its key."""
    row = connection.execute(_FIND, {"in_chain": chain, "of_key": key}).mappings().first()
    return entry_from(row) if row else None


class Recorder:
    """One writing transaction; ``now`` is its moment by the ledger's clock."""

    def __init__(self, connection: sa.Connection, position: int, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self._position = position
        self._began_at = position
        self._heads: dict[str, tuple[int, str]] = {}
        self._fenced: set[tuple[str, int]] = set()

    def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry, or give the first that was written under its key.

        The fence is checked first: even a mere repetition would tell a writer that lost its lease to go on.
        Raises FenceLost, LedgerConflict, LedgerError.
        """
        if fence is not None:
            self._check(fence, entry)
        entry = cleaned(entry)
        first = find_entry(self.connection, entry.chain, entry.key)
        if first is None:
            return self._write(entry)
        if not same(first, entry):
            differs = [name for name in NewEntry.model_fields if getattr(first, name) != getattr(entry, name)]
            raise LedgerConflict(
                f'"{entry.key}" of {entry.chain} is written already (entry {first.seq}) with other '
                f"{', '.join(differs)}: the ledger keeps the first; nothing was written"
            )
        return first

    def forget_fences(self) -> None:
        """Check fences anew from here on: who holds what is about to change within this transaction."""
        self._fenced.clear()

    def next_seq(self, chain: str) -> int:
        """Give the place that the chain's next entry will have; used for keys that must be unique."""
        return self._head(chain)[0] + 1

    def finish(self) -> None:
        """Write the position of the last entry; call once, before the commit."""
        if self._position == self._began_at:
            return
        self.connection.execute(_MOVE, {"new_position": self._position})
        for chain, (seq, hashed) in self._heads.items():
            moved = {"in_chain": chain, "new_seq": seq, "new_hash": hashed}
            if seq and not self.connection.execute(_MOVE_HEAD, moved).rowcount:
                self.connection.execute(_INSERT_HEAD, {"chain": chain, "seq": seq, "hash": hashed})

    def _write(self, entry: NewEntry) -> LedgerEntry:
        seq, previous = self._head(entry.chain)
        sealed = seal(entry, seq=seq + 1, at=self.now, previous=previous)
        position = self._position + 1
        projection.apply(self.connection, sealed, position)
        row = {name: getattr(sealed, name) for name in LedgerEntry.model_fields}
        row |= {
            "kind": sealed.kind.value,
            "at": sealed.at.isoformat(),
            "body": canonical(sealed.body).decode(),
            "position": position,
        }
        self.connection.execute(_INSERT, row)
        self._position = position
        self._heads[entry.chain] = (sealed.seq, sealed.hash)
        return sealed

    def _head(self, chain: str) -> tuple[int, str]:
        if chain not in self._heads:
            row = self.connection.execute(_HEAD, {"in_chain": chain}).first()
            self._heads[chain] = (row.seq, row.hash) if row else (0, GENESIS)
        return self._heads[chain]

    def _check(self, fence: Fence, entry: NewEntry) -> None:
        if (fence.lease, fence.epoch) in self._fenced:
            return
        held = held_lease(self.connection, fence.lease)
        if held is None or held.epoch != fence.epoch:
            raise FenceLost(lost(fence.lease, fence.epoch, held, f'"{entry.key}" of {entry.chain} was not written'))
        self._fenced.add((fence.lease, fence.epoch))


def held_lease(connection: sa.Connection, lease: str) -> sa.Row[Any] | None:
    """Find the row of a lease that was not released."""
    return connection.execute(_HELD, {"of_lease": lease}).first()


def lost(lease: str, epoch: int, held: sa.Row[Any] | None, consequence: str) -> str:
    """Say why a fence does not hold any more."""
    if held is None:
        return f"lease {lease} was released: {consequence}; stop this work at once"
    return (
        f"lease {lease} on {held.target} has epoch {held.epoch} and owner {held.owner}, this writer has epoch {epoch}: "
        f"somebody took over; {consequence}; stop this work at once"
    )
