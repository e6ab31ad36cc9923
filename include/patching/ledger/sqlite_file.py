"""The SQLite file of a ledger: made once on purpose, never again by accident.

Beside ``ledger.db`` lies ``ledger.db.id`` with the ledger's id. Where that is and the database is not, the database was
lost: an empty new one in its place would forget every open rollout and patch hosts twice, so it is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from patching.errors import LedgerUnavailable

BUSY_SECONDS = 20.0
# An append holds the lock for about a millisecond; SQLite's own waiting grows to a tenth of a second between two looks,
# in which the lock is free most of the time.
_SHORTEST_LOOK, _LONGEST_LOOK = 0.0005, 0.004
_WHAT_TO_DO = "docs/runbooks/ledger-unavailable.md says how to restore it"


class SqliteFile:
    """One database file, its identity on disk, and its connections."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._name = str(self.path)
        self.id_path = Path(f"{self.path}.id")
        self._inode: tuple[int, int] | None = None

    def connect(self, *, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
        """Open the existing file; it is never created here. Transactions are begun by hand."""
        uri = f"file:{quote(str(self.path))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextlib.contextmanager
    def creating(self) -> Iterator[None]:
        """Make the folder and an empty file (mode 0600) where there was none, alone on this machine.

        Raises LedgerUnavailable where a ledger was and its database is gone.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._create()
            yield
        finally:
            os.close(lock)

    def _create(self) -> None:
        known = self.known_id()
        if known is not None and not self._has_content():
            raise LedgerUnavailable(
                f"the ledger {self.path} is gone or empty, but {self.id_path.name} shows that ledger {known} was here: "
                f"nothing new is launched, because an empty one would forget every open rollout; {_WHAT_TO_DO}"
            )
        if not self.path.exists():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(self.connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")

    def _has_content(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def known_id(self) -> str | None:
        """Read the id of the ledger that was made here, None where none was."""
        try:
            return self.id_path.read_text().strip() or None
        except FileNotFoundError:
            return None

    def remember(self, ledger_id: str) -> None:
        """Write the id beside the database, durably; remember which file was opened."""
        if self.known_id() != ledger_id:
            fresh = Path(f"{self.id_path}.new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(ledger_id + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.id_path)
        self._inode = self._look()

    def moved(self) -> bool:
        """Whether the path leads to another file than the one that was opened, or to none."""
        return self._look() != self._inode

    def adopt(self) -> None:
        """Go on with the file that is there now (a restored backup); raises LedgerUnavailable if there is none.

        Whether it is the same ledger is checked by the id within it when a transaction begins.
        """
        found = self._look()
        if found is None:
            raise LedgerUnavailable(
                f"the ledger {self.path} is gone while it was in use: nothing new is launched, and what was written "
                f"in the last moment may be lost; {_WHAT_TO_DO}"
            )
        self._inode = found

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._name)  # noqa: PTH116 - asked twice for each append, and half as fast by a Path
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino)


def begin_alone(connection: sqlite3.Connection) -> None:
    """Begin the writing transaction as ``begin_looking`` does, on a connection whose other statements may wait."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        begin_looking(connection)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def begin_looking(connection: sqlite3.Connection) -> None:
    """Begin the writing transaction, looking often whether the lock is free; raises sqlite3.OperationalError (busy).

    The connection must have no timeout of its own.
    """
    until, pause = time.monotonic() + BUSY_SECONDS, _SHORTEST_LOOK
    while not _began(connection, time.monotonic() >= until):
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_LOOK)


def _began(connection: sqlite3.Connection, last: bool) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
