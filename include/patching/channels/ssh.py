"""Channel ``ssh``: one connection a target, detached steps that survive it, an end that is pushed, not polled for."""

from __future__ import annotations

import asyncio
import getpass
from dataclasses import replace

from patching.change import Phase, Reply, Step
from patching.channels.attach import attach
from patching.channels.base import Attach, Handle, Progress, Session
from patching.channels.remote_job import (
    OUTPUT_CAP,
    STATE_DIR,
    JobPaths,
    Look,
    cancel_program,
    forbid_program,
    look_program,
    parse_look,
    start_program,
    wait_program,
)
from patching.channels.ssh_login import DEFAULT_PORT, Address, Link, log_in
from patching.channels.ssh_sudo import RemoteCommand, command, sudo_password
from patching.channels.ssh_wire import DIAL_DEADLINE, Process, Ran, SshWire
from patching.errors import ChannelError, ConnectionMissing, LoginRefused, TargetOffline
from patching.sources.base import Connection, ConnectionSource
from patching.target import Member, Target

READ_CAP = 8 * 1024 * 1024
CONTROL_DEADLINE = 60.0
LATE = 15.0
"""Seconds that a program may live on the target beyond the time that it waits for, to say what it saw."""


class SshChannel:
    """Opens sessions over SSH with one connection's credentials; ``jump`` is the connection of a jump host."""

    def __init__(
        self,
        connection: Connection,
        *,
        jump: Connection | None = None,
        state_dir: str = STATE_DIR,
        output_cap: int = OUTPUT_CAP,
        read_cap: int = READ_CAP,
    ) -> None:
        self.connection = connection
        self.jump = jump or _written_jump(connection)
        self.state_dir = state_dir
        self.output_cap = output_cap
        self.read_cap = read_cap

    @classmethod
    def named(cls, connection_id: str, source: ConnectionSource) -> SshChannel:
        """Build a channel from a connection id; ``jump_host`` may be a connection id too. Raises ConnectionMissing."""
        connection = source.get(connection_id)
        wanted = connection.extra.get("jump_host")
        if not wanted or "@" in str(wanted):
            return cls(connection)
        try:
            return cls(connection, jump=source.get(str(wanted)))
        except ConnectionMissing:
            return cls(connection)

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        """Connect and log in; raises TargetOffline, LoginRefused, HostKeyUnknown or HostKeyChanged."""
        session = SshSession(self, target)
        await session.connect(deadline)
        return session

    def address(self, target: Target, member: Member) -> Address:
        """Give where to log in: the member's own port and user come before the connection's."""
        user = member.user or self.connection.login or getpass.getuser()
        port = member.port or self.connection.port or DEFAULT_PORT
        aliases = (target.name,) if len(target.members) == 1 else ()
        return Address(member.address, port, user, aliases)

    async def dial(self, address: Address, deadline: float) -> Link:
        """Open the connection to a target, through the jump host where there is one."""
        if self.jump is None:
            return Link(await log_in(address, self.connection, deadline=deadline))
        hop = Address(
            self.jump.host or "", self.jump.port or DEFAULT_PORT, self.jump.login or address.user, (self.jump.id,)
        )
        tunnel = await log_in(hop, self.jump, deadline=deadline)
        try:
            return Link(await log_in(address, self.connection, deadline=deadline, tunnel=tunnel, via=hop), tunnel)
        except ChannelError:
            tunnel.close()
            raise


def _written_jump(connection: Connection) -> Connection | None:
    """Read a jump host that is written as ``[user@]host[:port]``: the same credentials, but a host key of its own."""
    text = str(connection.extra.get("jump_host") or "")
    if not text:
        return None
    user, _, place = text.rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal():
        host, port = place, ""
    return connection.model_copy(
        update={
            "host": host,
            "port": int(port) if port else None,
            "login": user or connection.login,
            "extra": {name: value for name, value in connection.extra.items() if name != "host_key"},
        }
    )


class SshSession:
    """One open connection to one target; reconnects by itself within a step's deadline."""

    def __init__(self, channel: SshChannel, target: Target) -> None:
        self.channel = channel
        self.target = target
        self._wire = SshWire(target.name, self._dial, channel.read_cap)
        self._at_work: dict[str, tuple[Link, Process, float]] = {}

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone: the server closed it, or its keepalive was not answered."""
        return self._wire.lost

    async def connect(self, deadline: float) -> None:
        """Open the connection to the target's first member; raises ChannelError."""
        await self._wire.link(self.target.members[0], deadline)

    async def read(self, step: Step) -> Reply:
        """Run a reading step at once; a lost connection is opened anew and the reading begun again, once.

        Raises ChannelError; a reading step over its deadline has exit code 124.
        """
        member = self._member(step.member)
        line, script = self._command(member, bool(step.call.get("sudo")), step.deadline), str(step.call["script"])
        try:
            ran = await self._wire.run(await self._wire.link(member, DIAL_DEADLINE), line, script)
        except TargetOffline:
            ran = await self._wire.run(await self._wire.link(member, DIAL_DEADLINE), line, script)
        return Reply(
            step=step.name,
            exit_code=ran.exit_code,
            stdout=ran.stdout.decode("utf-8", "replace"),
            stderr=ran.stderr.decode("utf-8", "replace"),
            truncated=ran.truncated,
        )

    async def start(self, step_id: str, step: Step) -> Handle:
        """Start a detached step, or attach to it if the step id exists on the target: never a second run.

        The program that starts it stays, and says so when the step has ended: ``wait`` needs no other one.
        """
        paths, member = self._paths(step_id), self._member(step.member)
        address = self.channel.address(self.target, member)
        run_as = None if step.call.get("sudo") or address.user == "root" else address.user
        cap = self.channel.output_cap
        script = str(step.call["script"])
        program = start_program(paths, script, run_as=run_as, output_cap=cap, wait=step.deadline)
        line = self._command(member, True, step.deadline + LATE)
        look = await self._wire.persist(
            member, CONTROL_DEADLINE, lambda link, _: self._begun(link, member, step_id, step, line, program)
        )
        return Handle(
            step_id=step_id,
            target=self.target.name,
            member=member.role,
            directory=paths.directory,
            boot_id=look.recorded_boot_id,
        )

    async def _begun(
        self, link: Link, member: Member, step_id: str, step: Step, line: RemoteCommand, program: str
    ) -> Look:
        """Run the program that starts a step until it has looked; it is kept while the step runs."""
        if (earlier := self._at_work.pop(step_id, None)) is not None:
            earlier[1].close()
        process = await self._wire.begin(link, line, program)
        keep = False
        try:
            async with asyncio.timeout(CONTROL_DEADLINE):
                said = await self._wire.paragraph(link, process)
            look = parse_look(said)
            if look is None:
                ran = await self._wire.end(link, process)
                return self._understood(replace(ran, stdout=said + ran.stdout), member)
            keep = attach(look.evidence) is Attach.RUNNING
            if keep:
                self._at_work[step_id] = link, process, step.deadline
            return look
        except TimeoutError:
            raise ChannelError(
                f"{self.target.name} did not say within {CONTROL_DEADLINE:g} s that step {step.name} was started"
            ) from None
        finally:
            if not keep:
                process.close()

    async def wait(self, handle: Handle, step: Step) -> Progress:
        """Wait for the pushed end of a step, at most its deadline; survives a lost connection and a reboot.

        RUNNING without a reply means that the deadline passed. Raises TargetOffline if the target is not back by then.
        """
        paths, member = self._paths(handle.step_id), self._member(handle.member)
        end = asyncio.get_running_loop().time() + step.deadline

        async def once(link: Link, left: float) -> Look:
            line = self._command(member, True, left + LATE)
            return self._understood(await self._wire.run(link, line, wait_program(paths, left)), member)

        look = await self._pushed(handle, step, member)
        while True:
            if look is None:
                left = end - asyncio.get_running_loop().time()
                look = await self._wire.persist(member, max(left, CONTROL_DEADLINE if left <= 0 else 1.0), once)
            progress = self._progress(look, step)
            if progress.attach is not Attach.RUNNING or end <= asyncio.get_running_loop().time():
                await self._log_in_anew_after(step)
                return progress
            look = None

    async def _pushed(self, handle: Handle, step: Step, member: Member) -> Look | None:
        """Wait for what the program that started the step says of its end; None where it says nothing."""
        kept = self._at_work.pop(handle.step_id, None)
        if kept is None:
            return None
        link, process, deadline = kept
        if deadline != step.deadline:
            process.close()
            return None
        try:
            return parse_look((await self._wire.end(link, process)).stdout)
        except TargetOffline:
            return None

    async def _log_in_anew_after(self, step: Step) -> None:
        """Leave a connection whose server process still runs the files that an activation has replaced.

        Otherwise our own session would make the host look as if its SSH service had not been restarted.
        """
        if step.phase in (Phase.ACTIVATE, Phase.UNDO):
            await self.close()

    async def look(self, step_id: str, step: Step) -> Progress:
        """Say what became of a step id without starting it (ABSENT if the target never heard of it)."""
        look = await self._look(self._member(step.member), look_program(self._paths(step_id)))
        return self._progress(look, step)

    async def forbid(self, step_id: str, step: Step) -> Progress:
        """Give a step id up on the target unless it has begun there; raises ChannelError where that is not known."""
        look = await self._look(self._member(step.member), forbid_program(self._paths(step_id)))
        return self._progress(look, step)

    async def cancel(self, handle: Handle) -> None:
        """End a running step's process group; its exit is recorded as any other."""
        await self._look(self._member(handle.member), cancel_program(self._paths(handle.step_id)))

    async def close(self) -> None:
        """Close the connection; started steps go on."""
        self._at_work.clear()
        await self._wire.close()

    async def _dial(self, member: Member, deadline: float) -> Link:
        return await self.channel.dial(self.channel.address(self.target, member), deadline)

    def _paths(self, step_id: str) -> JobPaths:
        return JobPaths(step_id, self.channel.state_dir)

    def _member(self, role: str) -> Member:
        for member in self.target.members:
            if member.role == role:
                return member
        if role == "main":
            return self.target.members[0]
        raise ChannelError(f"target {self.target.name} has no member with role {role!r}")

    def _command(self, member: Member, as_root: bool, seconds: float) -> RemoteCommand:
        sudo = as_root and self.channel.address(self.target, member).user != "root"
        return command(sudo=sudo, seconds=seconds, password=sudo_password(self.channel.connection))

    async def _look(self, member: Member, program: str) -> Look:
        line = self._command(member, True, CONTROL_DEADLINE)
        ran = await self._wire.persist(member, CONTROL_DEADLINE, lambda link, _: self._wire.run(link, line, program))
        return self._understood(ran, member)

    def _understood(self, ran: Ran, member: Member) -> Look:
        look = parse_look(ran.stdout)
        if look is not None:
            return look
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        last = said[-1] if said else f"exit code {ran.exit_code}"
        address = self.channel.address(self.target, member)
        if "sudo:" in last:
            raise LoginRefused(
                f"{address.user} may not become root on {self.target.name} ({last}): add {address.user} ALL=(root) "
                f"NOPASSWD: /bin/sh to its sudoers, or set sudo_password in connection {self.channel.connection.id} "
                f"(docs/how-to/add-hosts.md)"
            )
        raise ChannelError(f"{self.target.name} cannot keep steps in {self.channel.state_dir}: {last}")

    def _progress(self, look: Look, step: Step) -> Progress:
        found = attach(look.evidence)
        if found is not Attach.ENDED:
            return Progress(attach=found, boot_id=look.boot_id)
        cap = self.channel.output_cap // 512 * 512
        reply = Reply(
            step=step.name,
            exit_code=look.exit_code,
            stdout=look.stdout.decode("utf-8", "replace"),
            stderr=look.stderr.decode("utf-8", "replace"),
            truncated=max(len(look.stdout), len(look.stderr)) >= cap,
        )
        return Progress(attach=found, reply=reply, boot_id=look.boot_id)
