"""A Redis for tests: on loopback, with a password, nothing on disk but its own folder, gone at the end."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import ConnectionError as NotConnected

from servers.absent import not_installed


@dataclass(frozen=True)
class RedisServer:
    """Where it listens and what it asks for."""

    port: int
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def client(self) -> Redis:
        """Give a connection to it."""
        return Redis(host="127.0.0.1", port=self.port, password=self.password)


@contextmanager
def redis_server(port: int) -> Iterator[RedisServer]:
    """Run a server; skips with the reason where there is none, fails under CI."""
    binary = shutil.which("redis-server")
    if binary is None:
        not_installed("no redis-server: apt-get install redis-server")
    server = RedisServer(port)
    with tempfile.TemporaryDirectory(prefix="patching-redis-") as folder:
        settings = f'bind 127.0.0.1\nport {port}\ndir {folder}\nlogfile log\nsave ""\nrequirepass {server.password}\n'
        process = subprocess.Popen([binary, "-"], cwd=folder, stdin=subprocess.PIPE, text=True)
        assert process.stdin is not None
        try:
            process.stdin.write(settings)
            process.stdin.close()
            _ready(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(20)


def _ready(server: RedisServer, process: subprocess.Popen[str], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            server.client().ping()
            return
        except NotConnected:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.05)
