"""The ledger's database: one engine, its transactions, its clock, and what its errors mean.

SQLite: WAL, synchronous FULL, every write begins with ``BEGIN IMMEDIATE``. PostgreSQL: every write locks the one row of
``ledger_meta`` first. Both give the entries one order over all chains, which the projections are replayed in.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import exc

from patching.errors import LedgerConflict, LedgerError, LedgerUnavailable
from patching.ledger import schema
from patching.ledger.sqlite_file import SqliteFile, begin_alone

LOCK_SECONDS = 20.0
_MEANS = "nothing new is launched until it is back; docs/runbooks/ledger-unavailable.md says what to do"
_WRITING = "ledger_writing"
_META = sa.select(schema.ledger_meta)
# A query that locks is carried out before the one around it, so the clock is read when the lock is held: a moment from
# before the wait would be earlier than that of the entry before.
_LOCKED = _META.with_for_update().cte("locked")
_META_ALONE = sa.select(_LOCKED, sa.func.clock_timestamp().label("moment"))


class Dialect(Protocol):
    """What differs between the two databases."""

    engine: sa.Engine
    name: str

    def check(self) -> None:
        """Raise LedgerUnavailable if the database is not the one that was opened; called around transactions."""
        ...

    def clock(self, connection: sa.Connection) -> datetime:
        """Read the database's clock."""
        ...

    def alone(self, connection: sa.Connection) -> tuple[sa.RowMapping | None, datetime]:
        """Wait until no other transaction writes; give the row of ``ledger_meta`` and the moment by the clock."""
        ...


class SqliteDialect:
    """One file on this machine; its clock is this machine's."""

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        self.name = str(file.path)
        self.engine = sa.create_engine("sqlite://", creator=file.connect, poolclass=sa.QueuePool, max_overflow=20)
        sa.event.listen(self.engine, "begin", _begin_sqlite)

    def check(self) -> None:
        """Raise LedgerUnavailable if the file is gone; a file that replaced it is used only if it is this ledger."""
        if self.file.moved():
            self.engine.dispose()
            self.file.adopt()

    def clock(self, connection: sa.Connection) -> datetime:
        """Give this machine's clock."""
        return datetime.now(UTC)

    def alone(self, connection: sa.Connection) -> tuple[sa.RowMapping | None, datetime]:
        """Read the row: the transaction began by waiting for the others."""
        return connection.execute(_META).mappings().first(), self.clock(connection)


class PostgresDialect:
    """A PostgreSQL server; connections that broke are replaced before they are used."""

    def __init__(self, url: sa.URL) -> None:
        self.name = url.render_as_string(hide_password=True)
        # A writer that hangs (SIGSTOP, a lost machine) must not hold the ledger's lock for ever.
        options = f"-c lock_timeout={int(LOCK_SECONDS * 1000)} -c idle_in_transaction_session_timeout=60000"
        keepalives = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        self.engine = sa.create_engine(
            url,
            pool_pre_ping=True,
            pool_timeout=LOCK_SECONDS,
            max_overflow=20,
            connect_args={"connect_timeout": 5, "options": options, "application_name": "patching", **keepalives},
        )

    def check(self) -> None:
        """Do nothing: every write reads the ledger's id under its lock."""

    def clock(self, connection: sa.Connection) -> datetime:
        """Read the server's clock, not the transaction's start, which may have waited for the lock."""
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def alone(self, connection: sa.Connection) -> tuple[sa.RowMapping | None, datetime]:
        """Lock the row, and read it and the clock in one round trip."""
        meta = connection.execute(_META_ALONE).mappings().first()
        return meta, meta["moment"].astimezone(UTC) if meta else self.clock(connection)


class Database:
    """Transactions on the ledger's database; everything that goes wrong becomes a LedgerError that says its meaning."""

    def __init__(self, dialect: Dialect, ledger_id: str, clock: Callable[[], datetime] | None = None) -> None:
        self.dialect = dialect
        self.ledger_id = ledger_id
        self._clock = clock
        self._process = os.getpid()

    @contextmanager
    def reading(self, *, stable: bool = False) -> Iterator[sa.Connection]:
        """Open a transaction that only reads; ``stable``: all its reads see one moment."""
        self._before()
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if stable and self._is_postgres else {}
        with self._transaction(**options) as connection:
            self._check_id(connection.execute(_META).mappings().first())
            yield connection

    @contextmanager
    def writing(self) -> Iterator[tuple[sa.Connection, int, datetime]]:
        """Open a transaction that writes, alone; gives the connection, the last entry's position and the moment."""
        self._before()
        with self._transaction(**{_WRITING: True}) as connection:
            meta, moment = self.dialect.alone(connection)
            self._check_id(meta)
            now = self._clock().astimezone(UTC) if self._clock else moment
            yield connection, meta["position"] if meta else 0, now
        # A file that was deleted in between took the commit with it.
        self.dialect.check()

    def clock(self, connection: sa.Connection) -> datetime:
        """Give the moment by the ledger's clock, in UTC."""
        return self._clock().astimezone(UTC) if self._clock else self.dialect.clock(connection)

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[sa.Connection]:
        with (
            translated(self.dialect.name),
            self.dialect.engine.connect() as connection,
            connection.execution_options(**options).begin(),
        ):
            yield connection

    @property
    def _is_postgres(self) -> bool:
        return isinstance(self.dialect, PostgresDialect)

    def _before(self) -> None:
        if os.getpid() != self._process:
            # A forked child must not speak on its parent's connections.
            self.dialect.engine.dispose(close=False)
            self._process = os.getpid()
        self.dialect.check()

    def _check_id(self, meta: sa.RowMapping | None) -> None:
        found = meta["ledger_id"] if meta else "none"
        if found != self.ledger_id:
            raise LedgerUnavailable(
                f"the database at {self.dialect.name} holds another ledger ({found}) than the one that was opened "
                f"({self.ledger_id}): {_MEANS}"
            )


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn the database's errors into those of the ledger, which say their meaning; statements and values stay out."""
    try:
        yield
    except exc.IntegrityError as error:
        raise LedgerConflict(
            f"the ledger {name} refused a row ({_said(error)}): two writers raced, or something tried to change what "
            "is written; nothing was written"
        ) from error
    except exc.DataError as error:
        raise LedgerError(f"the ledger {name} cannot hold a value ({_said(error)}); nothing was written") from error
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error, OSError) as error:
        raise LedgerUnavailable(f"the ledger {name} is unavailable ({_said(error)}): {_MEANS}") from error


def _said(error: Exception) -> str:
    """First line of the driver's own words: the rest may hold values."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return lines[0] if lines else type(original).__name__


def _begin_sqlite(connection: sa.Connection) -> None:
    file = connection.connection.driver_connection
    if file is not None and connection.get_execution_options().get(_WRITING):
        begin_alone(file)
    else:
        connection.exec_driver_sql("BEGIN")
