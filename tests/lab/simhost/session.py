"""Carries one command over SSH to a simulated host."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncssh

from lab.layout import SSH_USER
from lab.simhost.hosts import SimulatedHost


def session(host: SimulatedHost) -> Callable[[asyncssh.SSHServerProcess[bytes]], Any]:
    """Give what carries one command over SSH."""

    async def carry(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.get_extra_info("username") != SSH_USER:
            process.stderr.write(f"log in as {SSH_USER}\n".encode())
            process.exit(255)
            return
        command = process.command or "exec sh"
        child = await host.start(["/bin/sh", "-c", command])
        feeding = asyncio.create_task(feed(host, process, child))
        await asyncio.gather(drain(child.stdout, process.stdout), drain(child.stderr, process.stderr))
        code = await child.wait()
        feeding.cancel()
        with suppress(OSError, asyncssh.Error):
            if code < 0:
                process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                process.exit(code)

    return carry


async def feed(
    host: SimulatedHost, process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process
) -> None:
    """Pass standard input on, line by line, with its places changed to the host's own."""
    assert child.stdin is not None
    with suppress(OSError, asyncssh.Error, asyncssh.SignalReceived):
        while line := await process.stdin.readline():
            child.stdin.write(host.rewrite(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape"))
            await child.stdin.drain()
    child.stdin.close()


async def drain(source: asyncio.StreamReader | None, sink: asyncssh.SSHWriter[bytes]) -> None:
    """Pass output on until its end; a caller that went away does not stop the command."""
    assert source is not None
    while data := await source.read(65536):
        with suppress(OSError, asyncssh.Error):
            sink.write(data)
            await sink.drain()
