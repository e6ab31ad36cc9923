"""Recorder: writes entries within one transaction: fence, idempotence, chain, projection, head."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from patching.errors import FenceLost, LedgerConflict, LedgerError
from patching.ledger import projection, schema
from patching.ledger.base import Fence
from patching.ledger.chain import cleaned, same, seal
from patching.ledger.entry import GENESIS, LedgerEntry, NewEntry
from patching.ledger.upsert import insert_or_renew

ENTRY, HEAD, LEASE = schema.entry.c, schema.chain_head.c, schema.lease.c

# Made once: building a statement costs more than running it.
_FIND = sa.select(schema.entry).where(ENTRY.chain == sa.bindparam("in_chain"), ENTRY.key == sa.bindparam("of_key"))
_HEAD = sa.select(HEAD.seq, HEAD.hash).where(HEAD.chain == sa.bindparam("in_chain"))
# All that an append must know, in one question: asked while everybody else waits, each more would cost a round trip.
_NOTHING = sa.select(sa.literal(1).label("one")).subquery()
_LOOK = sa.select(
    schema.entry, HEAD.seq.label("head_seq"), HEAD.hash.label("head_hash"), LEASE.epoch.label("held_epoch")
).select_from(
    _NOTHING.outerjoin(schema.chain_head, HEAD.chain == sa.bindparam("in_chain"))
    .outerjoin(schema.entry, (ENTRY.chain == sa.bindparam("in_chain")) & (ENTRY.key == sa.bindparam("of_key")))
    .outerjoin(schema.lease, (LEASE.id == sa.bindparam("of_lease")) & LEASE.released.is_(sa.false()))
)
_HELD = sa.select(schema.lease).where(LEASE.id == sa.bindparam("of_lease"), LEASE.released.is_(sa.false()))
_INSERT = schema.entry.insert()
_MOVE_HEAD = insert_or_renew(
    schema.chain_head, {column.name: sa.bindparam(f"head_{column.name}") for column in HEAD}, "chain"
)
_MOVE = schema.ledger_meta.update().values(position=sa.bindparam("last_position"))
# Where a statement is a round trip, the last entry, its chain's head and the position are one.
_INSERT_LAST = (
    schema.entry.insert()
    .values({column.name: sa.bindparam(f"new_{column.name}") for column in ENTRY})
    .add_cte(_MOVE_HEAD["postgresql"].cte("head"), _MOVE.cte("moved"))
)


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
    """One writing transaction; ``now`` is its moment by the ledger's clock.

    Its entries are written together at its end; until then it alone knows them.
    """

    def __init__(self, connection: sa.Connection, position: int, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self._position = position
        self._heads: dict[str, tuple[int, str]] = {}
        self._moved: set[str] = set()
        self._unwritten: dict[tuple[str, str], LedgerEntry] = {}
        self._rows: list[dict[str, Any]] = []

    def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry, or give the first that was written under its key.

        The fence is checked first: even a mere repetition would tell a writer that lost its lease to go on.
        Raises FenceLost, LedgerConflict, LedgerError.
        """
        try:
            entry, body = cleaned(entry)
        except LedgerError:
            self._check(fence, entry)
            raise
        first = self._unwritten.get((entry.chain, entry.key))
        if first is not None:
            self._check(fence, entry)
            return _repeated(first, entry)
        names = {"in_chain": entry.chain, "of_key": entry.key, "of_lease": fence.lease if fence else None}
        found = self.connection.execute(_LOOK, names).mappings().one()
        if fence is not None and found["held_epoch"] != fence.epoch:
            self._check(fence, entry)
        if found["seq"] is None:
            head = (found["head_seq"], found["head_hash"]) if found["head_seq"] else (0, GENESIS)
            return self._write(entry, body, *self._heads.get(entry.chain, head))
        return _repeated(entry_from(found), entry)

    def next_seq(self, chain: str) -> int:
        """Give the place that the chain's next entry will have; used for keys that must be unique."""
        return self._head(chain)[0] + 1

    def finish(self) -> None:
        """Write the entries, the heads and the position; call once, before the commit."""
        if not self._rows:
            return
        dialect, position = self.connection.dialect.name, {"last_position": self._position}
        last = self._rows.pop() if dialect == "postgresql" else None
        if self._rows:
            self.connection.execute(_INSERT, self._rows)
        if last is not None:
            self._moved.discard(last["chain"])
            values = {f"new_{name}": value for name, value in last.items()}
            self.connection.execute(_INSERT_LAST, values | self._moved_head(last["chain"]) | position)
        else:
            self.connection.execute(_MOVE, position)
        if self._moved:
            self.connection.execute(_MOVE_HEAD[dialect], [self._moved_head(chain) for chain in sorted(self._moved)])

    def _moved_head(self, chain: str) -> dict[str, Any]:
        seq, hashed = self._heads[chain]
        return {"head_chain": chain, "head_seq": seq, "head_hash": hashed}

    def _write(self, entry: NewEntry, body: str, seq: int, previous: str) -> LedgerEntry:
        sealed = seal(entry, seq=seq + 1, at=self.now, previous=previous)
        position = self._position + 1
        projection.apply(self.connection, sealed, position)
        row = {name: getattr(sealed, name) for name in LedgerEntry.model_fields}
        row |= {
            "kind": sealed.kind.value,
            "at": sealed.at.isoformat(),
            "body": body,
            "position": position,
        }
        self._rows.append(row)
        self._unwritten[sealed.chain, sealed.key] = sealed
        self._position = position
        self._heads[entry.chain] = (sealed.seq, sealed.hash)
        self._moved.add(entry.chain)
        return sealed

    def _head(self, chain: str) -> tuple[int, str]:
        if chain not in self._heads:
            row = self.connection.execute(_HEAD, {"in_chain": chain}).first()
            self._heads[chain] = (row.seq, row.hash) if row else (0, GENESIS)
        return self._heads[chain]

    def _check(self, fence: Fence | None, entry: NewEntry) -> None:
        """Raise FenceLost where the fence does not hold, before anything else that is wrong with the entry."""
        if fence is None:
            return
        held = held_lease(self.connection, fence.lease)
        if held is None or held.epoch != fence.epoch:
            raise FenceLost(lost(fence.lease, fence.epoch, held, f'"{entry.key}" of {entry.chain} was not written'))


def _repeated(first: LedgerEntry, entry: NewEntry) -> LedgerEntry:
    """Give the entry that was written first under a key; raises LedgerConflict where this one says otherwise."""
    if not same(first, entry):
        differs = [name for name in NewEntry.model_fields if getattr(first, name) != getattr(entry, name)]
        raise LedgerConflict(
            f'"{entry.key}" of {entry.chain} is written already (entry {first.seq}) with other '
            f"{', '.join(differs)}: the ledger keeps the first; nothing was written"
        )
    return first


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
