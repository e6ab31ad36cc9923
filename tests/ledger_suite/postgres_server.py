"""A PostgreSQL server for tests: own data folder, a Unix socket only, never as root, gone when the tests end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa


def binaries() -> Path | None:
    """Find the newest installed server's folder of binaries."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresServer:
    """One server; databases are made one by one, so that every test has its own."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self.folder = folder
        self.binary = binary
        self._made = 0

    def initialise(self) -> None:
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "patching", "-A", "trust", "-E", "UTF8", "-N")

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.folder} -c fsync=off -c max_connections=60"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")

    def fresh(self) -> str:
        """Make an empty database; gives its URL."""
        self._made += 1
        name = f"ledger{self._made}"
        with sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://patching@/{database}?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        user = _unprivileged() if os.geteuid() == 0 else None
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


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server; skips with the reason where there is none, fails under CI."""
    binary = binaries()
    if binary is None:
        reason = "no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="patching-pg-"))
    if os.geteuid() == 0:
        owner = _unprivileged()
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    server = PostgresServer(folder, binary)
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
