"""HAProxy's runtime socket: one command a connection, over TCP or a Unix socket, as an admin-level ``stats socket``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from patching.channels.service import ServiceFailed
from patching.hooks.haproxy import ServerState, parse_states, still_busy
from patching.sources.base import Clock, Connection
from patching.value import JsonValue

PAUSE = 0.5


class HaproxySocket:
    """Speaks to the socket of a connection: ``host`` is an absolute path, or host and port.

    Calls: ``states`` (JSON list of ServerState), ``drain`` (waits until the sessions are gone) and ``restore``.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._timeout = 30.0

    async def ask(self, step_id: str, call: dict[str, JsonValue]) -> str:
        """Do what a call says; raises ServiceFailed, HookImpossible."""
        self._timeout = float(call["timeout"])
        if call["op"] == "states":
            return json.dumps([item.model_dump() for item in await self._states()])
        servers = [(str(backend), str(server)) for backend, server in call["servers"]]
        return await (self._drain(servers, call) if call["op"] == "drain" else self._restore(servers))

    async def _drain(self, servers: Sequence[tuple[str, str]], call: dict[str, JsonValue]) -> str:
        if not servers:
            return "out of service already, by somebody else: nothing was drained, and nothing will be given back"
        for backend, server in servers:
            await self._set(backend, server, "drain")
        wait = float(call["wait"])
        until = asyncio.get_running_loop().time() + wait
        while left := still_busy(await self._states(), servers):
            if asyncio.get_running_loop().time() >= until:
                said = ", ".join(f"{count} on {name}" for name, count in left.items())
                if call["fail_on_sessions"]:
                    raise ServiceFailed(
                        f"sessions are left {wait:g} s after draining ({said}), so the target was not touched; wait "
                        "longer (wait), or accept that they break (onSessionsLeft: proceed)"
                    )
                return f"drained; sessions left after {wait:g} s: {said}"
            await asyncio.sleep(PAUSE)
        return f"drained: {_names(servers)}"

    async def _restore(self, servers: Sequence[tuple[str, str]]) -> str:
        now = {(item.backend, item.server): item for item in await self._states()}
        ours = [name for name in servers if name in now and now[name].only_drained]
        for backend, server in ours:
            await self._set(backend, server, "ready")
        return f"ready: {_names(ours)}" if ours else "nothing to give back: no server is as the hook left it"

    async def _set(self, backend: str, server: str, state: str) -> None:
        # Names come from HAProxy's own answer, which separates them by spaces: they hold none, nor a semicolon.
        said = (await self._command(f"set server {backend}/{server} state {state}")).strip()
        if said:
            raise ServiceFailed(f'HAProxy of connection "{self._connection.id}" refused {state} for {server}: {said}')

    async def _states(self) -> list[ServerState]:
        return parse_states(await self._command("show servers state"), await self._command("show stat -1 4 -1"))

    async def _command(self, command: str) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(command)
        except TimeoutError as error:
            raise self._failed(f"did not answer within {self._timeout:g} s") from error
        except OSError as error:
            raise self._failed(f"cannot be reached ({error})") from error

    async def _exchange(self, command: str) -> str:
        reader, writer = await self._open()
        try:
            writer.write(f"{command}\n".encode())
            await writer.drain()
            return (await _rest(reader)).decode(errors="replace")
        finally:
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self._connection.host or ""
        if host.startswith("/"):
            return await asyncio.open_unix_connection(host)
        if not host or not self._connection.port:
            raise self._failed("has no host and port, and no path of a Unix socket as its host")
        return await asyncio.open_connection(host, self._connection.port)

    def _failed(self, what: str) -> ServiceFailed:
        return ServiceFailed(f'HAProxy of connection "{self._connection.id}" {what}')


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """Read to the end: HAProxy closes the connection after its answer."""
    parts = []
    while part := await reader.read(65536):
        parts.append(part)
    return b"".join(parts)


def _names(servers: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{backend}/{server}" for backend, server in servers)
