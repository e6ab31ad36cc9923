"""A database that is only read: connection fields → one query in a read-only transaction, with a time limit."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from patching.errors import MetricQueryRefused, MetricSourceUnavailable
from patching.sources.base import Connection

KINDS = ("postgres", "sqlite")
MOST_ROWS = 200_000
CONNECT_SECONDS = 5
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_STEPS_BETWEEN_LOOKS = 10_000
_QUERY_AT_FAULT = ("22", "25006", "42", "0A")
"""SQLSTATE: wrong data, writing in a read-only transaction, syntax and unknown names, what is not supported."""


class ReadOnlyDatabase:
    """A PostgreSQL or SQLite database of an Airflow connection; ``timeout`` is seconds a query.

    The connection of a query is its own and is closed after it, and its transaction is never committed.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    @property
    def id(self) -> str:
        """Name of the connection."""
        return self._connection.id

    @property
    def lacks(self) -> str | None:
        """Say why the connection cannot be used, None where it can."""
        found = self._connection
        if found.type not in KINDS:
            return f'connection "{found.id}" is of type "{found.type}"; a query needs one of type {" or ".join(KINDS)}'
        if not found.host:
            what = "the path of the file" if found.type == "sqlite" else "the server"
            return f'connection "{found.id}" has no host; write {what} there'
        return None

    @property
    def moments_are_numbers(self) -> bool:
        """Whether a moment is given to a query as seconds since 1970: SQLite has no type for it."""
        return self._connection.type == "sqlite"

    def rows(self, statement: sa.TextClause) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Run one statement; gives the names of its columns and its rows.

        Raises MetricQueryRefused for a statement that will never work, MetricSourceUnavailable for anything else.
        """
        if self.lacks is not None:
            raise MetricQueryRefused(self.lacks)
        try:
            with self._reading() as open_:
                result = open_.execution_options(stream_results=True).execute(statement)
                rows = [tuple(row) for row in result.fetchmany(MOST_ROWS + 1)]
                names = tuple(result.keys())
        except sa.exc.ResourceClosedError as error:
            raise MetricQueryRefused("the query gives no rows; write a SELECT") from error
        except sa.exc.DBAPIError as error:
            raise _told(error, self.id) from error
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise MetricQueryRefused(f"the query cannot be asked: {_first_line(error)}") from error
        if len(rows) > MOST_ROWS:
            raise MetricQueryRefused(f"the query gives more than {MOST_ROWS:,} rows; aggregate them, such as by minute")
        return names, rows

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        engine = sa.create_engine(self._url(), poolclass=sa.NullPool, connect_args=self._arguments())
        with engine.connect() as open_:
            if self._connection.type == "postgres":
                open_.execute(sa.text("SET TRANSACTION READ ONLY"))
                open_.execute(sa.text(f"SET LOCAL statement_timeout = {round(self._timeout * 1000)}"))
            else:
                _limit(open_.connection.driver_connection, self._timeout)
            yield open_
            open_.rollback()

    def _url(self) -> sa.URL:
        found = self._connection
        if found.type == "sqlite":
            place = {"mode": "ro", "uri": "true"}
            return sa.URL.create("sqlite+pysqlite", database=f"file:{quote(str(found.host))}", query=place)
        return sa.URL.create(
            "postgresql+psycopg", found.login, found.password, found.host, found.port, found.schema_ or None
        )

    def _arguments(self) -> dict[str, Any]:
        if self._connection.type == "sqlite":
            return {"timeout": self._timeout}
        given = {name: str(self._connection.extra[name]) for name in _TLS if self._connection.extra.get(name)}
        waits = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": round(self._timeout * 1000)}
        return {**given, **waits, "application_name": "patching"}


def _limit(driver: Any, seconds: float) -> None:
    """Let SQLite, which has no statement timeout, look at the time now and then."""
    until = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)


def _told(error: sa.exc.DBAPIError, connection: str) -> MetricSourceUnavailable:
    """Tell a query that is wrong from a database that does not answer."""
    said = _first_line(error.orig or error)
    if isinstance(error.orig, sqlite3.Error):
        wrong = isinstance(error.orig, sqlite3.ProgrammingError)
        wrong = wrong or getattr(error.orig, "sqlite_errorname", "") in ("SQLITE_ERROR", "SQLITE_READONLY")
    else:
        wrong = str(getattr(error.orig, "sqlstate", None) or "").startswith(_QUERY_AT_FAULT)
    if wrong:
        return MetricQueryRefused(f'the database of "{connection}" refuses the query: {said}')
    return MetricSourceUnavailable(
        f'the database of "{connection}" gave no answer: {said}. No data is never a pass: the check is inconclusive'
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
