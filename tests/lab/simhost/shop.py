"""The simulated hosts' shop: the same answers and metrics as the real one gives, from one event loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from lab.packages import Release
from lab.shop.counters import Counters
from lab.simhost.hosts import SimulatedHost

PAUSE = 0.4
"""Seconds that a slow answer of the real shop takes."""


class Shop:
    """The service of one host."""

    def __init__(self, host: SimulatedHost) -> None:
        self.host = host
        self.version = ""
        self.counters = Counters()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection; a service that does not run closes it."""
        with suppress(OSError, EOFError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                release = self.host.serving()
                if release is None:
                    break
                if release.version != self.version:
                    # A restarted process counts from zero, and so must this.
                    self.version, self.counters = release.version, Counters()
                code, body = await self.answer(head.split(b" ", 2)[1].decode("latin-1"), release)
                start = f"HTTP/1.1 {code} X\r\nContent-Type: text/plain; version=0.0.4\r\n"
                writer.write(f"{start}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
                if b"connection: close" in head.lower():
                    break
        writer.close()

    async def answer(self, path: str, release: Release) -> tuple[int, str]:
        """Answer one request."""
        if path == "/metrics":
            return 200, self.counters.text(self.version)
        if path == "/healthz":
            return 200, "ok\n"
        began = time.monotonic()
        digit = self.counters.begin() % 10
        await asyncio.sleep(PAUSE if digit in release.slow else 0.0)
        code = 500 if digit in release.failing else 200
        self.counters.end(code, time.monotonic() - began)
        return code, f"{self.version}\n"
