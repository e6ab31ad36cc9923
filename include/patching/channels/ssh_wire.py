"""The connections of one SSH session: opened anew when they break, and programs run over them to a seen end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import asyncssh

from patching.channels.remote_job import framed
from patching.channels.ssh_login import Link
from patching.channels.ssh_sudo import RemoteCommand
from patching.errors import LoginRefused, TargetOffline
from patching.target import Member

DIAL_DEADLINE = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

T = TypeVar("T")
Process: TypeAlias = "asyncssh.SSHClientProcess[bytes]"
Dial = Callable[[Member, float], Awaitable[Link]]


@dataclass(frozen=True)
class Ran:
    """The end of one remote command; ``exit_code`` None = ended by a signal that has no number here."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool


class SshWire:
    """One connection to each member that was asked for; ``cap`` bounds what is kept of a command's output."""

    def __init__(self, target: str, dial: Dial, cap: int) -> None:
        self._target = target
        self._dial = dial
        self._cap = cap
        self._links: dict[str, Link] = {}
        self._let_in: set[str] = set()

    @property
    def lost(self) -> bool:
        """Whether no connection stands."""
        return all(link.closed for link in self._links.values())

    async def close(self) -> None:
        """Close every connection; the next use opens anew."""
        for link in self._links.values():
            await link.close()
        self._links.clear()

    async def link(self, member: Member, deadline: float) -> Link:
        """Give the open connection, or open it anew; a host that let us in before and refuses now is booting."""
        link = self._links.get(member.role)
        if link is None or link.closed:
            try:
                link = await self._dial(member, deadline)
            except LoginRefused as error:
                if member.role in self._let_in:
                    raise TargetOffline(f"{error} (it let us in before: it may be booting)") from None
                raise
            self._links[member.role] = link
            self._let_in.add(member.role)
        return link

    async def persist(self, member: Member, seconds: float, work: Callable[[Link, float], Awaitable[T]]) -> T:
        """Do work over the connection; where it is lost, connect again with growing pauses until ``seconds`` passed.

        A changed host key ends it at once.
        """
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + seconds, FIRST_PAUSE
        while True:
            try:
                link = await self.link(member, max(1.0, min(end - loop.time(), DIAL_DEADLINE)))
                return await work(link, max(1.0, end - loop.time()))
            except TargetOffline:
                if end - loop.time() <= pause:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def run(self, link: Link, command: RemoteCommand, program: str) -> Ran:
        """Run one program; raises TargetOffline when the connection breaks before its end is seen."""
        return await self.end(link, await self.begin(link, command, program))

    async def begin(self, link: Link, command: RemoteCommand, program: str) -> Process:
        """Start one program, whose ``end`` the caller asks for; raises TargetOffline."""
        async with self._broken(link):
            process: Process = await link.connection.create_process(command.line, encoding=None)
            # What ended before it took its input (sudo refuses at once) says why on its other streams.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write((command.lead + framed(program)).encode())
                process.stdin.write_eof()
            return process

    async def paragraph(self, link: Link, process: Process) -> bytes:
        """Read what a program says before the first blank line, that included, or all where there is none."""
        async with self._broken(link):
            try:
                said: bytes = await process.stdout.readuntil(b"\n\n")
            except asyncio.IncompleteReadError as error:
                said = error.partial
            return said

    async def end(self, link: Link, process: Process) -> Ran:
        """Wait for the end of a program; raises TargetOffline when the connection breaks before it is seen."""
        async with self._broken(link):
            try:
                (out, cut), (err, cut_too) = await asyncio.gather(
                    self._collect(process.stdout), self._collect(process.stderr)
                )
                await process.wait_closed()
            finally:
                # Nobody waits for this where the caller was cancelled: OpenSSH confirms it when the program has ended.
                process.close()
        if process.exit_status is None:
            await link.close()
            raise TargetOffline(f"the connection to {self._target} broke before the end of a command was seen")
        return Ran(_code(process), out, err, cut or cut_too)

    @contextlib.asynccontextmanager
    async def _broken(self, link: Link) -> AsyncIterator[None]:
        """Leave a connection that breaks meanwhile, in the product's words."""
        try:
            yield
        except (OSError, asyncssh.Error) as error:
            await link.close()
            raise TargetOffline(f"the connection to {self._target} broke: {error}") from None

    async def _collect(self, stream: asyncssh.SSHReader[bytes]) -> tuple[bytes, bool]:
        """Read a stream to its end and keep at most ``read_cap`` bytes."""
        kept, size = [], 0
        while chunk := await stream.read(65536):
            if size < self._cap:
                kept.append(chunk[: self._cap - size])
            size += len(chunk)
        return b"".join(kept), size > self._cap


def _code(process: asyncssh.SSHClientProcess[bytes]) -> int | None:
    """Give the exit code as a shell would: 128 + number for a signal."""
    if process.exit_signal is None:
        return process.exit_status
    name = f"SIG{process.exit_signal[0]}"
    return 128 + signal.Signals[name].value if name in signal.Signals.__members__ else None
