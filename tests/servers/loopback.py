"""Ports and waiting for servers on loopback."""

from __future__ import annotations

import socket
import subprocess
import threading
import time


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listening(port: int, process: subprocess.Popen[bytes], within: float = 30) -> None:
    """Wait until a process takes connections; raises where it ends or takes too long."""
    deadline = time.monotonic() + within
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        threading.Event().wait(0.05)
