"""The two databases that a ledger may be in: how a transaction begins alone, ends, and is short-cut for one entry."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import exc

from patching.ledger import schema
from patching.ledger.direct import Ordinary, write_to_file, write_to_server
from patching.ledger.entry import LedgerEntry
from patching.ledger.sqlite_file import SqliteFile, begin_alone

LOCK_SECONDS = 20.0
WRITING = "ledger_writing"
META = sa.select(schema.ledger_meta)
# A query that locks is carried out before the one around it, so the clock is read when the lock is held: a moment from
# before the wait would be earlier than that of the entry before.
_LOCKED = META.with_for_update().cte("locked")
_META_ALONE = sa.select(
    _LOCKED,
    sa.func.clock_timestamp().label("moment"),
    sa.func.set_config("synchronous_commit", "off", True).label("unsynced"),
)
# Two transactions in one round trip. The log is written in order, so the second is on disk only after the first is. A
# standby, which may only be read, has nothing that is not on a disk.
_COMMIT = "COMMIT; SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(true, 'patching', '') END"
_LOCK_NOT_AVAILABLE = "55P03"
# Connections of the process that this one was forked from: SQLite allows nothing with them here, not even closing.
_OTHERS: list[deque[sqlite3.Connection]] = []


class Dialect(Protocol):
    """What differs between the two databases."""

    engine: sa.Engine
    name: str

    def check(self) -> None:
        """Raise LedgerUnavailable if the database is not the one that was opened; called around transactions."""
        ...

    def dispose(self, *, close: bool = True) -> None:
        """Forget all connections that are not in use; ``close`` False: they are another process's."""
        ...

    def clock(self, connection: sa.Connection) -> datetime:
        """Read the database's clock."""
        ...

    def alone(self, connection: sa.Connection) -> tuple[sa.RowMapping | None, datetime]:
        """Wait until no other transaction writes; give the row of ``ledger_meta`` and the moment by the clock."""
        ...

    def commit(self, connection: sa.Connection) -> None:
        """End a transaction; all that it wrote *and read* is on disk when its context is left."""
        ...

    def write(self, item: Ordinary, ledger_id: str, clock: Callable[[], datetime] | None) -> LedgerEntry | None:
        """Write one entry the direct way, on disk when this returns; None where something stands against it."""
        ...


class SqliteDialect:
    """One file on this machine; its clock is this machine's."""

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        self.name = str(file.path)
        self.engine = sa.create_engine("sqlite://", creator=file.connect, poolclass=sa.QueuePool, max_overflow=20)
        sa.event.listen(self.engine, "begin", _begin_sqlite)
        # For the direct way, whose time is worth more than a pool's services; never given back across a ``dispose``.
        self._spare: deque[sqlite3.Connection] = deque()

    def check(self) -> None:
        """Raise LedgerUnavailable if the file is gone; a file that replaced it is used only if it is this ledger."""
        if self.file.moved():
            self.dispose()
            self.file.adopt()

    def dispose(self, *, close: bool = True) -> None:
        """Forget all connections that are not in use; one that is in use is not used again."""
        self.engine.dispose(close=close)
        spare, self._spare = self._spare, deque()
        if close:
            while spare:
                spare.pop().close()
        else:
            _OTHERS.append(spare)

    def clock(self, connection: sa.Connection) -> datetime:
        """Give this machine's clock."""
        return datetime.now(UTC)

    def alone(self, connection: sa.Connection) -> tuple[sa.RowMapping | None, datetime]:
        """Read the row: the transaction began by waiting for the others."""
        return connection.execute(META).mappings().first(), self.clock(connection)

    def commit(self, connection: sa.Connection) -> None:
        """Do nothing: what a commit wrote is on disk before anybody reads it."""

    def write(self, item: Ordinary, ledger_id: str, clock: Callable[[], datetime] | None) -> LedgerEntry | None:
        """Write one entry on a connection that does nothing else; after any error it is closed."""
        spare = self._spare
        try:
            file = spare.pop()
        except IndexError:
            file = self.file.connect(timeout=0)
        try:
            written = write_to_file(file, item, ledger_id, clock)
        except BaseException:
            file.close()
            raise
        spare.append(file)
        return written


class PostgresDialect:
    """A PostgreSQL server; connections that broke while nobody used them are replaced (``Database`` tries twice)."""

    def __init__(self, url: sa.URL) -> None:
        self.name = url.render_as_string(hide_password=True)
        # A writer that hangs (SIGSTOP, a lost machine) must not hold the ledger's lock for ever.
        options = f"-c lock_timeout={int(LOCK_SECONDS * 1000)} -c idle_in_transaction_session_timeout=60000"
        keepalives = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        self.engine = sa.create_engine(
            url,
            pool_timeout=LOCK_SECONDS,
            max_overflow=20,
            connect_args={"connect_timeout": 5, "options": options, "application_name": "patching", **keepalives},
        )

    def check(self) -> None:
        """Do nothing: every write reads the ledger's id under its lock."""

    def dispose(self, *, close: bool = True) -> None:
        """Forget all connections that are not in use."""
        self.engine.dispose(close=close)

    def clock(self, connection: sa.Connection) -> datetime:
        """Read the server's clock, not the transaction's start, which may have waited for the lock."""
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def alone(self, connection: sa.Connection) -> tuple[sa.RowMapping | None, datetime]:
        """Lock the row, and read it and the clock in one round trip."""
        meta = connection.execute(_META_ALONE).mappings().first()
        return meta, meta["moment"].astimezone(UTC) if meta else self.clock(connection)

    def commit(self, connection: sa.Connection) -> None:
        """Commit, which frees the lock, and then wait for the disk (and for replicas, as the server is set)."""
        connection.exec_driver_sql(_COMMIT, execution_options={"no_parameters": True})

    def write(self, item: Ordinary, ledger_id: str, clock: Callable[[], datetime] | None) -> LedgerEntry | None:
        """Write one entry by one call; what goes wrong is left to the other way, which can say it."""
        moment = clock().astimezone(UTC) if clock else None
        errors = self.engine.dialect.loaded_dbapi.Error
        try:
            with _lent(self.engine) as server:
                server.autocommit = True
                written = write_to_server(server, item, ledger_id, moment)
                server.autocommit = False
                return written
        except errors as error:
            if error.sqlstate == _LOCK_NOT_AVAILABLE:
                # Not a second time: whoever holds the lock hangs.
                raise exc.OperationalError(None, None, error) from error
            return None


@contextmanager
def _lent(engine: sa.Engine) -> Iterator[Any]:
    """Lend the driver's own connection; after any error it is closed, whatever state it was left in."""
    lent = engine.raw_connection()
    try:
        yield lent.driver_connection
    except BaseException as error:
        lent.invalidate(error)
        raise
    finally:
        lent.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    file = connection.connection.driver_connection
    if file is not None and connection.get_execution_options().get(WRITING):
        begin_alone(file)
    else:
        connection.exec_driver_sql("BEGIN")
