"""Forwards loopback addresses of this machine into the lab's network, and plays dead for hosts that are cut off."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

CHUNK = 65536
REFUSE = "refuse"
SILENT = "silent"
PATIENCE = 120.0


@dataclass(frozen=True)
class Route:
    """One forwarded port; ``owner`` is the host's name, or the lab itself."""

    owner: str
    listen: tuple[str, int]
    target: tuple[str, int] | str


class Sockets(Protocol):
    """Where connections to hosts are made."""

    def socket(self) -> socket.socket:
        """Make a socket that reaches hosts."""
        ...


class Forwarder:
    """All routes of a lab."""

    def __init__(self, network: Sockets, routes: list[Route]) -> None:
        self.network = network
        self.routes = routes
        self.cut: dict[str, str] = {}
        self.healed = asyncio.Event()
        self.open: dict[str, set[asyncio.StreamWriter]] = {}
        self.servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Listen everywhere.

        Raises:
            OSError: when an address is taken.
        """
        for route in self.routes:
            self.servers.append(await asyncio.start_server(self.accept(route), *route.listen, backlog=256))

    def accept(self, route: Route) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        """Give the callback that carries one connection of a route."""

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peers = self.open.setdefault(route.owner, set())
            peers.add(writer)
            try:
                await self.carry(route, reader, writer)
            except OSError:
                abort(writer)
            finally:
                peers.discard(writer)
                writer.close()

        return carry

    async def carry(self, route: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until both sides have said all, or nobody is there."""
        far_reader, far_writer = await self.reach(route)
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()

    async def reach(self, route: Route) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a host, trying as long as TCP would while nobody answers.

        Raises:
            OSError: when the host refuses, or does not answer for long.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while loop.time() < deadline:
            mode = self.cut.get(route.owner)
            if mode == REFUSE:
                raise ConnectionRefusedError
            if mode == SILENT:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.healed.wait(), deadline - loop.time())
                continue
            sock = self.network.socket()
            try:
                await asyncio.wait_for(loop.sock_connect(sock, route.target), 5)
                return await asyncio.open_connection(sock=sock)
            except (OSError, TimeoutError) as error:
                sock.close()
                if getattr(error, "errno", None) not in (None, errno.EHOSTUNREACH, errno.ETIMEDOUT):
                    raise
        raise TimeoutError

    def cut_off(self, owner: str, mode: str) -> None:
        """Let nobody reach a host from now on; ``refuse`` also resets what is open."""
        self.cut[owner] = mode
        self.healed.clear()
        if mode == REFUSE:
            for writer in list(self.open.get(owner, ())):
                abort(writer)

    def restore(self, owner: str) -> None:
        """Let a host be reached again."""
        self.cut.pop(owner, None)
        self.healed.set()
        self.healed = asyncio.Event()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction, and pass on its end."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def abort(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, as a closed port does, instead of ending it politely."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
