"""The direct way of an append: what nothing stands against needs no questions, so nobody waits for their answers.

Everything that can be made before the lock is held is made before. Whatever is not ordinary (a key that is written
already, a lease that was lost, another ledger, an entry that changes more than its own step) writes nothing here and
goes the way of ``recorder``, which finds out what the matter is and says it. Both ways write the same rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from patching.errors import LedgerError
from patching.ledger import projection
from patching.ledger.base import Fence
from patching.ledger.chain import cleaned
from patching.ledger.entry import GENESIS, EntryKind, Frame, LedgerEntry, NewEntry, framed, hashed
from patching.ledger.sqlite_file import begin_looking

_STATE = (
    "SELECT m.position, h.seq, h.hash FROM ledger_meta m LEFT JOIN chain_head h ON h.chain = ?2 "
    "WHERE m.ledger_id = ?1 AND NOT EXISTS (SELECT 1 FROM entry WHERE chain = ?2 AND key = ?3) "
    "AND (?4 IS NULL OR EXISTS (SELECT 1 FROM lease WHERE id = ?4 AND epoch = ?5 AND NOT released))"
)
_ENTRY = (
    'INSERT INTO entry (chain, seq, position, at, kind, "key", target, step, actor, body, previous, hash) '
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HEAD = (
    "INSERT INTO chain_head (chain, seq, hash) VALUES (?, ?, ?) "
    "ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash"
)
_POSITION = "UPDATE ledger_meta SET position = ?"
_INTENT = (
    "INSERT INTO intent (rollout, step_id, target, step, generation, handle, open, at, position) VALUES "
    "(:rollout, :step_id, :target, :step, :generation, :handle, :open, :at, :position)"
)
_CLOSE = "UPDATE intent SET open = 0 WHERE rollout = ? AND step_id = ?"

_CALL = f"CALL patching_append({', '.join(['%s'] * 13)}, %s::jsonb, %s, %s::timestamptz)"


class Ordinary(NamedTuple):
    """An entry that is ready to be written, and what it changes of its own step."""

    entry: NewEntry
    body: str
    frame: Frame
    lease: str | None
    epoch: int | None
    intent: dict[str, Any] | None
    closes: bool


def ordinary(entry: NewEntry, fence: Fence | None) -> Ordinary | None:
    """Make an entry ready; None where something is wrong with it, or it changes more than its own step."""
    closes, opens = entry.kind is EntryKind.STEP_OUTCOME, entry.kind is EntryKind.INTENT
    if projection.projected(entry.kind) and not (closes or opens):
        return None
    try:
        clean, body = cleaned(entry)
        intent = projection.intent_row(clean) if opens else None
    except (LedgerError, KeyError, TypeError, ValueError):
        return None
    lease, epoch = (fence.lease, fence.epoch) if fence else (None, None)
    return Ordinary(clean, body, framed(clean, body), lease, epoch, intent, closes)


def write_to_file(
    file: sqlite3.Connection, item: Ordinary, ledger_id: str, clock: Callable[[], datetime] | None
) -> LedgerEntry | None:
    """Write an entry in one transaction; None, and nothing written, where something stands against it.

    The connection must have no timeout of its own.
    """
    begin_looking(file)
    try:
        written = _write(file, item, ledger_id, clock)
        file.execute("ROLLBACK" if written is None else "COMMIT")
    except BaseException as error:
        with suppress(sqlite3.Error):
            file.execute("ROLLBACK")
        if isinstance(error, sqlite3.IntegrityError):
            return None
        raise
    return written


def _write(
    file: sqlite3.Connection, item: Ordinary, ledger_id: str, clock: Callable[[], datetime] | None
) -> LedgerEntry | None:
    entry = item.entry
    found = file.execute(_STATE, (ledger_id, entry.chain, entry.key, item.lease, item.epoch)).fetchone()
    if found is None:
        return None
    position, seq, previous = found[0] + 1, (found[1] or 0) + 1, found[2] or GENESIS
    moment = clock().astimezone(UTC) if clock else datetime.now(UTC)
    at = moment.isoformat()
    new = hashed(previous, item.frame.stamped(seq, at))
    names = (entry.kind.value, entry.key, entry.target, entry.step, entry.actor)
    file.execute(_ENTRY, (entry.chain, seq, position, at, *names, item.body, previous, new))
    if item.intent is not None:
        file.execute(_INTENT, {**item.intent, "at": at, "position": position})
    if item.closes:
        file.execute(_CLOSE, (entry.chain, entry.step))
    file.execute(_HEAD, (entry.chain, seq, new))
    file.execute(_POSITION, (position,))
    return LedgerEntry(**dict(entry), seq=seq, at=moment, previous=previous, hash=new)


def write_to_server(server: Any, item: Ordinary, ledger_id: str, moment: datetime | None) -> LedgerEntry | None:
    """Write an entry by one call on a psycopg connection in autocommit mode; on disk when it returns.

    None, and nothing written, where something stands against it. The procedure is in migration 0004.
    """
    entry = item.entry
    names = (entry.chain, entry.kind.value, entry.key, entry.target, entry.step, entry.actor)
    intent = None if item.intent is None else json.dumps(item.intent)
    values = (ledger_id, *names, item.body, *item.frame, item.lease, item.epoch, intent, item.closes, moment)
    seq, at, previous, new = server.execute(_CALL, values).fetchone()
    if seq is None:
        return None
    return LedgerEntry(**dict(entry), seq=seq, at=datetime.fromisoformat(at), previous=previous, hash=new)
