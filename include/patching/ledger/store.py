"""SqlLedger: the ledger in SQLite or PostgreSQL, and ``open_ledger``, which finds, makes or migrates it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from patching.errors import LedgerCorrupt, LedgerError, LedgerUnavailable
from patching.ledger import heartbeat, lease_queue, leases, projection, reading, schema, verify
from patching.ledger.base import (
    Beat,
    Busy,
    Claim,
    Fence,
    Head,
    Intent,
    Known,
    Lease,
    LedgerTransaction,
    OutcomeCount,
    PastJob,
    Problem,
    Quarantine,
    RolloutRow,
    Standing,
    TargetRow,
    Waiter,
)
from patching.ledger.database import Database, translated
from patching.ledger.dialects import Dialect, PostgresDialect, SqliteDialect
from patching.ledger.direct import ordinary
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.ledger.migrate import migrate, ready_id
from patching.ledger.recorder import Recorder, entry_from, find_entry
from patching.ledger.sqlite_file import SqliteFile
from patching.ledger.transaction import SqlTransaction
from patching.rollout.states import RolloutState, check_origin, check_transition
from patching.value import JsonValue

T = TypeVar("T")


def open_ledger(url: str, *, clock: Callable[[], datetime] | None = None, create: bool = True) -> SqlLedger:
    """Open a ledger, making or migrating its tables first where that is needed (one process at a time).

    ``url``: ``sqlite:////absolute/ledger.db`` or ``postgresql+psycopg://user@host/name``. ``clock`` replaces the
    database's clock (tests). ``create`` False refuses a database that holds no ledger yet.
    Raises LedgerUnavailable, LedgerError.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(SqliteFile(Path(str(parsed.database))), clock, create)
    dialect = PostgresDialect(parsed.set(drivername="postgresql+psycopg"))
    return SqlLedger(Database(dialect, _prepare(dialect, create), clock))


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except sa.exc.ArgumentError as error:
        raise LedgerError(
            "the ledger's URL is no database URL; expected sqlite:////… or postgresql+psycopg://…"
        ) from error
    if backend not in ("sqlite", "postgresql"):
        raise LedgerError(f'the ledger cannot live in "{backend}": use sqlite:////… or postgresql+psycopg://…')
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise LedgerError("the ledger needs a file, it must outlive its process: use sqlite:////absolute/path.db")
    return parsed


def _open_sqlite(file: SqliteFile, clock: Callable[[], datetime] | None, create: bool) -> SqlLedger:
    dialect = SqliteDialect(file)
    with translated(dialect.name):
        if not create and file.known_id() is None and not file.path.exists():
            raise LedgerUnavailable(
                f"there is no ledger at {file.path}: nothing was created and nothing new is launched; check the "
                "URL, or restore it (docs/runbooks/ledger-unavailable.md)"
            )
        with file.creating():
            ledger_id = _prepare(dialect, create)
            file.remember(ledger_id)
    return SqlLedger(Database(dialect, ledger_id, clock))


def _prepare(dialect: Dialect, create: bool) -> str:
    with translated(dialect.name):
        with dialect.engine.connect() as connection, connection.begin():
            found = ready_id(connection)
        if found is not None:
            return found
        with dialect.engine.connect() as connection, connection.execution_options(ledger_writing=True).begin():
            return migrate(connection, create=create)


class SqlLedger:
    """The append-only record of everything decided and done (the port is ``ledger.base.Ledger``)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._database.dialect.dispose()

    @property
    def ledger_id(self) -> str:
        """Id that was given to this ledger when it was made."""
        return self._database.ledger_id

    @contextmanager
    def _recording(self) -> Iterator[Recorder]:
        with self._database.writing() as (connection, position, now):
            recorder = Recorder(connection, position, now)
            yield recorder
            recorder.finish()

    # Writing

    def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry and its projection in one transaction; the same key and body again returns the first."""
        item = ordinary(entry, fence)
        written = None if item is None else self._database.write(item)
        return written or self._one(lambda transaction: transaction.append(entry, fence))

    def append_all(self, entries: Sequence[NewEntry], fence: Fence | None = None) -> list[LedgerEntry]:
        """Write several entries in one transaction, all or none."""
        return self._one(lambda transaction: [transaction.append(entry, fence) for entry in entries])

    def group(self, work: Sequence[Callable[[LedgerTransaction], T]]) -> list[T]:
        """Do the work of several writers in one transaction, all or none; gives what each returned."""
        with self._recording() as recorder:
            transaction = SqlTransaction(recorder)
            return [item(transaction) for item in work]

    def _one(self, work: Callable[[LedgerTransaction], T]) -> T:
        return self.group([work])[0]

    def transition(
        self,
        rollout: str,
        to: RolloutState,
        *,
        reason: str,
        actor: str | None = None,
        only_from: Collection[RolloutState] = (),
    ) -> RolloutRow:
        """Change a rollout's state if the table allows it (already there: no change); raises TransitionRefused.

        With ``only_from`` it must be in one of these states, checked in the same transaction.
        """
        with self._recording() as recorder:
            row = _known(recorder.connection, rollout)
            check_origin(rollout, row.state, to, only_from)
            if row.state is to:
                return row
            check_transition(rollout, row.state, to)
            body = {"from": row.state.value, "to": to.value, "reason": reason}
            key = f"transition:{recorder.next_seq(rollout)}"
            recorder.append(NewEntry(chain=rollout, kind=EntryKind.TRANSITION, key=key, actor=actor, body=body))
            return _known(recorder.connection, rollout)

    def store_document(self, kind: str, document: JsonValue) -> str:
        """Keep a large document by the digest of what is stored (idempotent); returns the digest.

        Secrets are redacted; a plan or policy that has any is refused (LedgerError), because others know its digest.
        """
        return self._one(lambda transaction: transaction.store_document(kind, document))

    # Leases

    def acquire(self, owner: str, rollout: str, target: str, claims: Sequence[Claim], *, ttl: float) -> Lease | Busy:
        """Take the whole set of claims in one transaction, or none; a renewal, a takeover, or Busy."""
        return self._one(lambda transaction: transaction.acquire(owner, rollout, target, claims, ttl=ttl))

    def extend(self, lease: Lease, claims: Sequence[Claim]) -> Lease | Busy:
        """Add claims (a reboot's) to a held lease; raises FenceLost."""
        return self._one(lambda transaction: transaction.extend(lease, claims))

    def heartbeat(self, lease: Lease, *, ttl: float) -> Lease:
        """Prolong a lease; raises FenceLost."""
        return self._one(lambda transaction: transaction.heartbeat(lease, ttl=ttl))

    def release(self, lease: Lease) -> None:
        """End a lease and free its capacity; raises FenceLost if somebody else holds it now."""
        self._one(lambda transaction: transaction.release(lease))

    def leave_queue(self, rollout: str, target: str) -> None:
        """Take a target that wants its lease no more out of the queue."""
        self._one(lambda transaction: transaction.leave_queue(rollout, target))

    def leases(self) -> list[Lease]:
        """List all held leases, expired ones too: they still count."""
        with self._database.reading() as connection:
            return leases.all_held(connection)

    def waiters(self) -> list[Waiter]:
        """List who waits for a lease now, the earliest first."""
        with self._database.reading() as connection:
            return lease_queue.waiting(connection, self._database.clock(connection))

    def held_since(self) -> dict[str, datetime]:
        """Say since when each held lease is held, by its id."""
        with self._database.reading() as connection:
            return lease_queue.since(connection)

    # Reading

    def entries(
        self,
        chain: str,
        *,
        after: int = 0,
        kinds: Sequence[EntryKind] = (),
        target: str | None = None,
        limit: int | None = None,
    ) -> list[LedgerEntry]:
        """Read a chain in order."""
        with self._database.reading() as connection:
            return reading.entries(connection, chain, after, kinds, target, limit)

    def find(self, chain: str, key: str) -> LedgerEntry | None:
        """Find one entry by its key."""
        with self._database.reading() as connection:
            return find_entry(connection, chain, key)

    def chains(self) -> list[str]:
        """List all chains."""
        with self._database.reading() as connection:
            return verify.known_chains(connection)

    def document(self, digest: str) -> JsonValue:
        """Read a document back; raises LedgerError if it is unknown, LedgerCorrupt if it was changed."""
        query = sa.select(schema.document.c.body).where(schema.document.c.digest == digest)
        with self._database.reading() as connection:
            text = connection.execute(query).scalar()
        if text is None:
            raise LedgerError(
                f"the ledger has no document {digest}: it was never stored, or an old backup was restored"
            )
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise LedgerCorrupt(
                f"document {digest} was changed after it was stored: do not act on it; see "
                "docs/runbooks/ledger-does-not-verify.md"
            )
        return json.loads(text)

    def rollout(self, rollout: str) -> RolloutRow | None:
        """Read one rollout."""
        with self._database.reading() as connection:
            return reading.rollout_row(connection, rollout)

    def rollouts(self, *, policy: str | None = None, open_only: bool = False, limit: int = 100) -> list[RolloutRow]:
        """List rollouts, newest first."""
        with self._database.reading() as connection:
            return reading.rollout_rows(connection, policy, open_only, limit)

    def rollout_of(self, run: str) -> str | None:
        """Find the rollout that a run (as named in ``run_began``) works or worked on last."""
        with self._database.reading() as connection:
            return reading.rollout_of_run(connection, run)

    def targets(self, rollout: str) -> list[TargetRow]:
        """List the targets of a rollout in plan order (wave, then name)."""
        with self._database.reading() as connection:
            return reading.target_rows(connection, rollout)

    def target(self, rollout: str, target: str) -> TargetRow | None:
        """Read one target of a rollout; None where the plan does not have it."""
        with self._database.reading() as connection:
            return reading.one_target(connection, rollout, target)

    def down(self, rollout: str) -> list[TargetRow]:
        """List the targets that count as unavailable though no job holds their place."""
        with self._database.reading() as connection:
            return reading.down_rows(connection, rollout)

    def outcomes(self, rollout: str) -> list[OutcomeCount]:
        """Count a rollout's targets by wave, outcome and signature."""
        with self._database.reading() as connection:
            return reading.outcome_counts(connection, rollout)

    def standing(self, rollout: str, *, now: datetime) -> Standing:
        """Read together what decides whether a rollout may begin more."""
        with self._database.reading() as connection:
            return reading.standing(connection, rollout, now)

    def known(self, rollout: str, target: str) -> Known:
        """Read together what a change job must know of its target once it holds the lease."""
        with self._database.reading() as connection:
            return reading.known(connection, rollout, target)

    def past_jobs(self, policy: str, *, limit: int = 500) -> list[PastJob]:
        """List the latest change jobs of a policy that ended well, in all its rollouts."""
        with self._database.reading() as connection:
            return reading.past_jobs(connection, policy, limit)

    def holding(self, target: str, *, other_than: str | None = None) -> list[TargetRow]:
        """List the rows of a target in open rollouts where it has begun and not ended."""
        with self._database.reading() as connection:
            return reading.holding(connection, target, other_than)

    def later_rollouts(self, rollout: str, target: str) -> list[str]:
        """List rollouts that changed (or may have changed) the target after this one did, latest first."""
        with self._database.reading() as connection:
            return reading.later_rollouts(connection, rollout, target)

    def intents(self, *, rollout: str | None = None, target: str | None = None, open_only: bool = True) -> list[Intent]:
        """List intents in the order of writing; open ones have no outcome."""
        with self._database.reading() as connection:
            return reading.intents(connection, rollout, target, open_only)

    def quarantines(self, *, now: datetime) -> list[Quarantine]:
        """List targets in quarantine at a moment."""
        with self._database.reading() as connection:
            return reading.quarantines(connection, now)

    def stopped(self) -> str | None:
        """Reason of the stop switch that is on for everything, None when it is off."""
        with self._database.reading() as connection:
            return reading.stopped(connection)

    def beat(self, name: str) -> Beat | None:
        """Write down that ``name`` is alive now; gives the beat before, None at the first."""
        with self._database.writing() as (connection, _, now):
            return heartbeat.beat(connection, name, now)

    def beats(self) -> list[Beat]:
        """List when each was last heard of, by name."""
        with self._database.reading() as connection:
            return heartbeat.beats(connection)

    def now(self) -> datetime:
        """Give the ledger's clock."""
        with self._database.reading() as connection:
            return self._database.clock(connection)

    # Proving and repairing

    def verify(self, chain: str | None = None) -> list[Problem]:
        """Check the hash chains and that every referenced document is there and unchanged."""
        with self._database.reading(stable=True) as connection:
            return verify.verify(connection, chain)

    def heads(self) -> list[Head]:
        """List where every chain ends, to be kept elsewhere: a head that a crash took back would accuse somebody."""
        with self._database.reading(lasting=True) as connection:
            return verify.heads(connection)

    def check_heads(self, kept: Sequence[Head]) -> list[Problem]:
        """Check that the ledger still contains heads that were kept elsewhere."""
        with self._database.reading(stable=True) as connection:
            return verify.check_heads(connection, kept)

    def rebuild(self) -> None:
        """Build all projections anew from the entries, in their one order over all chains.

        Heartbeats are no entries: a lease that is held now keeps the end that its last heartbeat gave it.
        """
        columns = schema.lease.c
        with self._database.writing() as (connection, _, _now):
            beats = connection.execute(sa.select(columns.id, columns.epoch, columns.expires_at)).all()
            projection.clear(connection)
            for position, entry in _all_entries(connection):
                projection.apply(connection, entry, position)
            for beat in beats:
                same = (columns.id == beat.id, columns.epoch == beat.epoch)
                connection.execute(schema.lease.update().where(*same).values(expires_at=beat.expires_at))


def _all_entries(connection: sa.Connection, page: int = 1000) -> Iterator[tuple[int, LedgerEntry]]:
    column, after = schema.entry.c.position, 0
    while True:
        query = sa.select(schema.entry).where(column > after).order_by(column).limit(page)
        rows = connection.execute(query).mappings().all()
        for row in rows:
            yield row["position"], entry_from(row)
        if len(rows) < page:
            return
        after = rows[-1]["position"]


def _known(connection: sa.Connection, rollout: str) -> RolloutRow:
    row = reading.rollout_row(connection, rollout)
    if row is None:
        raise LedgerError(f"rollout {rollout} was never opened: its state cannot change; check the id")
    return row
