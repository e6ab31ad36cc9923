"""A PostgreSQL server for tests: own data folder, a Unix socket, loopback when asked, never root, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from servers.absent import not_installed


def binaries() -> Path | None:
    """Find the newest installed server's folder of binaries."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresServer:
    """One server; databases are made one by one, so that every test has its own.

    Its socket is in a folder that only its owner enters; on loopback (with ``port``) it asks for a password.
    Only a ``durable`` one waits for the disk.
    """

    def __init__(
        self, folder: Path, binary: Path, owner: str = "patching", port: int | None = None, *, durable: bool = False
    ) -> None:
        self.folder = folder
        self.binary = binary
        self.owner = owner
        self.port = port
        self.fsync = "on" if durable else "off"
        self._made = 0

    def initialise(self) -> None:
        trusted = ("--auth-local=trust", "--auth-host=scram-sha-256")
        self._run("initdb", "-D", f"{self.folder}/data", "-U", self.owner, *trusted, "-E", "UTF8", "-N")

    def start(self) -> None:
        listen = f"-c listen_addresses=127.0.0.1 -c port={self.port}" if self.port else "-c listen_addresses=''"
        options = f"{listen} -k {self.folder} -c fsync={self.fsync} -c max_connections=100"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")

    def processes(self, kind: str) -> list[int]:
        """List the server's processes of a kind (``walwriter``, ``client backend``)."""
        return [pid for (pid,) in self.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = :kind", kind=kind)]

    def lose_memory(self) -> None:
        """End the server as a crash of its machine would: what it had not handed to the disk is gone; start it anew."""
        os.kill(self.processes("walwriter")[0], signal.SIGKILL)
        self.stop()
        self.start()

    def fresh(self, template: str = "template1") -> str:
        """Make a database, empty or as ``template`` is; gives its URL."""
        self._made += 1
        name = f"ledger{self._made}"
        self.ask(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def ask(self, statement: str, database: str = "postgres", **values: str) -> list[tuple[Any, ...]]:
        """Run one statement with its values (``:name``) as the server's owner; gives its rows."""
        engine = sa.create_engine(self.url(database), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            done = connection.execute(sa.text(statement), values)
            return [tuple(row) for row in done] if done.returns_rows else []

    @property
    def environment(self) -> dict[str, str]:
        """What PostgreSQL's own programs need to find this server."""
        return {"PGHOST": str(self.folder), "PGPORT": str(self.port or 5432)}

    def url(self, database: str) -> str:
        port = f"&port={self.port}" if self.port else ""
        return f"postgresql+psycopg://{self.owner}@/{database}?host={self.folder}{port}"

    def _run(self, program: str, *arguments: str) -> None:
        user = unprivileged() if os.geteuid() == 0 else None
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        # Output goes to a file: the server would inherit a pipe and keep it open.
        with (self.folder / f"{program}.out").open("w") as out:
            done = subprocess.run(
                [str(self.binary / program), *arguments],
                stdout=out,
                stderr=out,
                cwd=self.folder,
                check=False,
                **identity,
            )
        if done.returncode:
            said = "\n".join(path.read_text() for path in self.folder.glob("*.out"))
            raise RuntimeError(f"{program} failed with {done.returncode}:\n{said}")


def unprivileged() -> pwd.struct_passwd:
    """Give the user as whom a server runs where root starts it, which it refuses to run as."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


@contextmanager
def postgres_server(
    owner: str = "patching", port: int | None = None, *, durable: bool = False
) -> Iterator[PostgresServer]:
    """Run a server; skips with the reason where there is none, fails under CI."""
    binary = binaries()
    if binary is None:
        not_installed("no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="patching-pg-"))
    if os.geteuid() == 0:
        user = unprivileged()
        os.chown(folder, user.pw_uid, user.pw_gid)
    server = PostgresServer(folder, binary, owner, port, durable=durable)
    try:
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder)
