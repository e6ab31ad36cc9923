"""The ledger's database: one engine, its transactions, its clock, and what its errors mean.

SQLite: WAL, synchronous FULL, every write begins with ``BEGIN IMMEDIATE``. PostgreSQL: every write locks the one row of
``ledger_meta`` first. Both give the entries one order over all chains, which the projections are replayed in. On
PostgreSQL the lock is freed before the disk is waited for (docs/decisions/0005-lock-freed-before-the-disk.md).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from patching.errors import LedgerConflict, LedgerError, LedgerUnavailable
from patching.ledger.dialects import META, WRITING, Dialect, PostgresDialect
from patching.ledger.direct import Ordinary
from patching.ledger.entry import LedgerEntry

T = TypeVar("T")
_Begun: TypeAlias = tuple[sa.Connection, sa.RootTransaction, T]

_MEANS = "nothing new is launched until it is back; docs/runbooks/ledger-unavailable.md says what to do"


class Database:
    """Transactions on the ledger's database; everything that goes wrong becomes a LedgerError that says its meaning."""

    def __init__(self, dialect: Dialect, ledger_id: str, clock: Callable[[], datetime] | None = None) -> None:
        self.dialect = dialect
        self.ledger_id = ledger_id
        self._clock = clock
        self._process = os.getpid()

    @contextmanager
    def reading(self, *, stable: bool = False, lasting: bool = False) -> Iterator[sa.Connection]:
        """Open a transaction that only reads; ``stable``: all its reads see one moment.

        ``lasting``: no crash takes back what was read. Who writes before acting needs no such reading.
        """
        self._before()
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if stable and self._is_postgres else {}
        with self._transaction(_meta, **options) as (connection, meta):
            self._check_id(meta)
            yield connection
            if lasting:
                self.dialect.commit(connection)

    @contextmanager
    def writing(self) -> Iterator[tuple[sa.Connection, int, datetime]]:
        """Open a transaction that writes, alone; gives the connection, the last entry's position and the moment."""
        self._before()
        with self._transaction(self.dialect.alone, **{WRITING: True}) as (connection, (meta, moment)):
            self._check_id(meta)
            now = self._clock().astimezone(UTC) if self._clock else moment
            yield connection, meta["position"] if meta else 0, now
            self.dialect.commit(connection)
        # A file that was deleted in between took the commit with it.
        self.dialect.check()

    def write(self, item: Ordinary) -> LedgerEntry | None:
        """Write one entry the direct way, on disk when this returns; None where something stands against it."""
        self._before()
        with translated(self.dialect.name):
            written = self.dialect.write(item, self.ledger_id, self._clock)
        self.dialect.check()
        return written

    def clock(self, connection: sa.Connection) -> datetime:
        """Give the moment by the ledger's clock, in UTC."""
        return self._clock().astimezone(UTC) if self._clock else self.dialect.clock(connection)

    @contextmanager
    def _transaction(self, first: Callable[[sa.Connection], T], **options: Any) -> Iterator[tuple[sa.Connection, T]]:
        """Open a transaction; gives what its first statement says."""
        with translated(self.dialect.name):
            connection, transaction, said = self._begun(first, options)
            with connection, transaction:
                yield connection, said

    def _begun(self, first: Callable[[sa.Connection], T], options: dict[str, Any]) -> _Begun[T]:
        """Begin on a connection that works: one that broke while nobody used it is found by its first statement."""
        try:
            return self._try(first, options)
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._try(first, options)

    def _try(self, first: Callable[[sa.Connection], T], options: dict[str, Any]) -> _Begun[T]:
        connection = self.dialect.engine.connect()
        try:
            transaction = connection.execution_options(**options).begin()
            return connection, transaction, first(connection)
        except BaseException:
            connection.close()
            raise

    @property
    def _is_postgres(self) -> bool:
        return isinstance(self.dialect, PostgresDialect)

    def _before(self) -> None:
        if os.getpid() != self._process:
            # A forked child must not speak on its parent's connections.
            self.dialect.dispose(close=False)
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


def _meta(connection: sa.Connection) -> sa.RowMapping | None:
    return connection.execute(META).mappings().first()


def _said(error: Exception) -> str:
    """First line of the driver's own words: the rest may hold values."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return lines[0] if lines else type(original).__name__
