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


def entry_from(row: sa.RowMapping) -> LedgerEntry:
    """Read an entry back from its row."""
    fields: dict[str, Any] = {name: row[name] for name in LedgerEntry.model_fields}
    fields["body"] = json.loads(row["body"])
    fields["at"] = datetime.fromisoformat(row["at"])
    return LedgerEntry(**fields)


def find_entry(connection: sa.Connection, chain: str, key: str) -> LedgerEntry | None:
    """Find one entry by its key."""
    row = connection.execute(sa.select(schema.entry).where(ENTRY.chain == chain, ENTRY.key == key)).mappings().first()
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
        self.connection.execute(schema.ledger_meta.update().values(position=self._position))
        for chain, (seq, hashed) in self._heads.items():
            row = {"chain": chain, "seq": seq, "hash": hashed}
            updated = self.connection.execute(schema.chain_head.update().where(HEAD.chain == chain).values(row))
            if seq and not updated.rowcount:
                self.connection.execute(schema.chain_head.insert().values(row))

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
        self.connection.execute(schema.entry.insert().values(row))
        self._position = position
        self._heads[entry.chain] = (sealed.seq, sealed.hash)
        return sealed

    def _head(self, chain: str) -> tuple[int, str]:
        if chain not in self._heads:
            row = self.connection.execute(sa.select(HEAD.seq, HEAD.hash).where(HEAD.chain == chain)).first()
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
    query = sa.select(schema.lease).where(LEASE.id == lease, LEASE.released.is_(sa.false()))
    return connection.execute(query).first()


def lost(lease: str, epoch: int, held: sa.Row[Any] | None, consequence: str) -> str:
    """Say why a fence does not hold any more."""
    if held is None:
        return f"lease {lease} was released: {consequence}; stop this work at once"
    return (
        f"lease {lease} on {held.target} has epoch {held.epoch} and owner {held.owner}, this writer has epoch {epoch}: "
        f"somebody took over; {consequence}; stop this work at once"
    )
