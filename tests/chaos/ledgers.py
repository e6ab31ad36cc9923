"""Where the ledger of a run lives: a file, or a database of a PostgreSQL server; each goes and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from chaos.parent import die_with_parent
from patching.ledger import schema
from patching.ledger.store import open_ledger
from servers.postgres import PostgresServer, binaries, unprivileged

LONGEST_START = 30.0
Repair = Callable[[], None]


class LedgerPlace(Protocol):
    """The place of one run's ledger, as the harness makes it and takes it away."""

    url: str

    def make(self) -> None:
        """Make an empty ledger."""
        ...

    def gone(self, *, at_once: bool) -> Repair:
        """Take the database away, ``at_once`` or with its last words; gives what brings it back."""
        ...

    def locked(self) -> Repair:
        """Hold the lock of those who write; gives what lets go."""
        ...

    def over(self, *, keep: bool) -> None:
        """Leave nothing in the server; ``keep``: what was in it goes to the run's folder."""
        ...


class LedgerFile:
    """SQLite: a copy of the file with empty tables, for making them anew is slow."""

    def __init__(self, folder: Path, template: Path | None) -> None:
        self.path = folder / "ledger.sqlite"
        self.url = f"sqlite:///{self.path}"
        self._template = template

    def make(self) -> None:
        for part in ("", ".id"):
            if self._template is not None:
                shutil.copy(f"{self._template}{part}", f"{self.path}{part}")

    def gone(self, *, at_once: bool) -> Repair:
        away = self.path.with_suffix(".away")
        self.path.rename(away)
        return lambda: _renamed(away, self.path)

    def locked(self) -> Repair:
        lock = sqlite3.connect(self.path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        return lock.close

    def over(self, *, keep: bool) -> None:
        """Do nothing: the file is in the run's folder."""


def _renamed(away: Path, here: Path) -> None:
    away.rename(here)


class LedgerServer(PostgresServer):
    """A PostgreSQL server whose postmaster is this process's own child, to be killed and started again."""

    def start(self) -> None:
        """Start it and wait until it answers, also where the processes of a killed one are just ending."""
        end = time.monotonic() + LONGEST_START
        while not self._answers():
            if time.monotonic() > end:
                raise RuntimeError(f"the server is not up after {LONGEST_START:g} s: {self.folder}/log")
            if self._postmaster is None or self._postmaster.poll() is not None:
                self._postmaster = self._started()
            time.sleep(0.02)

    _postmaster: subprocess.Popen[bytes] | None = None

    def _started(self) -> subprocess.Popen[bytes]:
        user = unprivileged() if os.geteuid() == 0 else None
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        settings = ("listen_addresses=", f"fsync={self.fsync}", "max_connections=100", "shared_buffers=16MB")
        command = [str(self.binary / "postgres"), "-D", f"{self.folder}/data", "-k", str(self.folder)]
        command += [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            # Whatever ends the harness, the server ends with it.
            return subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, preexec_fn=die_with_parent, **identity
            )

    def _answers(self) -> bool:
        command = [str(self.binary / "pg_isready"), "-q", "-h", str(self.folder), "-d", "postgres"]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self, mode: str = "immediate") -> None:
        """End it: ``immediate`` without a checkpoint, ``kill`` as the kernel would (-9)."""
        if self._postmaster is not None:
            self._postmaster.send_signal(signal.SIGKILL if mode == "kill" else signal.SIGQUIT)
            self._postmaster.wait(LONGEST_START)

    def drop(self, database: str) -> None:
        """Delete a database."""
        self.ask(f"DROP DATABASE {database} WITH (FORCE)")


class LedgerDatabase:
    """PostgreSQL: a copy of the database with empty tables."""

    url = ""

    def __init__(self, folder: Path, server: LedgerServer, template: str) -> None:
        self.server = server
        self._folder = folder
        self._template = template

    def make(self) -> None:
        self.url = self.server.fresh(self._template)

    def gone(self, *, at_once: bool) -> Repair:
        self.server.stop("kill" if at_once else "immediate")
        return self.server.start

    def locked(self) -> Repair:
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        connection = engine.connect()
        connection.execute(sa.select(schema.ledger_meta).with_for_update())
        return connection.close

    def over(self, *, keep: bool) -> None:
        name = str(sa.make_url(self.url).database)
        if keep:
            command = [str(self.server.binary / "pg_dump"), "-h", str(self.server.folder), "-U", self.server.owner]
            with (self._folder / "ledger.sql").open("wb") as dump:
                subprocess.run([*command, name], stdout=dump, check=True)
        self.server.drop(name)


@contextmanager
def ledger_server() -> Iterator[tuple[LedgerServer, str]]:
    """Run a server for the ledgers of many runs; gives it and the name of its database with empty tables."""
    binary = binaries()
    if binary is None:
        raise SystemExit(
            "some seeds keep their ledger in PostgreSQL, and there is no server: apt-get install postgresql"
        )
    folder = Path(tempfile.mkdtemp(prefix="chaos-pg-"))
    if os.geteuid() == 0:
        os.chown(folder, unprivileged().pw_uid, unprivileged().pw_gid)
    server = LedgerServer(folder, binary)
    try:
        server.initialise()
        server.start()
        url = server.fresh()
        open_ledger(url).close()
        yield server, str(sa.make_url(url).database)
    finally:
        with suppress(subprocess.TimeoutExpired):
            server.stop()
        shutil.rmtree(folder)
