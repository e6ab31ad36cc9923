"""Services beside a target (a load balancer, an Alertmanager, any HTTP service) as a session that runs steps.

Whatever is done there is done by this process, so a step that was interrupted left nothing to attach to. It is begun
again under its own id where that does no harm (``repeatable`` in its call); else nobody knows, and that is never
success. A worker that slept can still finish one exchange that it had begun: no service knows our leases.
"""

from __future__ import annotations

import asyncio
import contextlib
from importlib import import_module
from typing import Protocol, cast

from patching.change import Reply, Step
from patching.channels.base import Attach, Handle, Progress
from patching.errors import PatchingError
from patching.sources.base import Clock, Connection, ConnectionSource
from patching.value import JsonValue

SERVICES: dict[str, str] = {
    "haproxy": "patching.channels.haproxy:HaproxySocket",
    "alertmanager": "patching.channels.alertmanager:AlertmanagerApi",
    "http": "patching.channels.http_call:HttpCaller",
}


class ServiceFailed(PatchingError):
    """A service refused, or did not answer; the message says which one and what it means."""


class Service(Protocol):
    """One service of one connection."""

    async def ask(self, step_id: str, call: dict[str, JsonValue]) -> str:
        """Do or read what ``call`` says and give what came back; raises ServiceFailed."""
        ...


class ServiceSession:
    """Runs the steps of hooks whose channel is one of ``SERVICES``; raises no error of its own: a failure is exit 1."""

    def __init__(self, connections: ConnectionSource, clock: Clock, target: str) -> None:
        self._connections = connections
        self._clock = clock
        self._target = target
        self._running: dict[str, asyncio.Task[Reply]] = {}

    @property
    def lost(self) -> bool:
        """Say no: each act asks its service anew."""
        return False

    async def read(self, step: Step) -> Reply:
        """Ask at once."""
        return await self._answer("", step)

    async def start(self, step_id: str, step: Step) -> Handle:
        """Begin the act, or attach to it where this process has begun it already."""
        if step_id not in self._running:
            self._running[step_id] = asyncio.create_task(self._answer(step_id, step))
        return Handle(step_id=step_id, target=self._target, member=step.member, directory="", boot_id="")

    async def wait(self, handle: Handle, step: Step) -> Progress:
        """Wait for the act's end, at most the step's deadline."""
        await asyncio.wait({self._running[handle.step_id]}, timeout=step.deadline)
        return await self.look(handle.step_id, step)

    async def look(self, step_id: str, step: Step) -> Progress:
        """Say what this process knows; of what another one did, only whether it may be begun again."""
        task = self._running.get(step_id)
        if task is None or task.cancelled():
            return Progress(attach=Attach.ABSENT if step.call.get("repeatable") else Attach.LOST)
        return Progress(attach=Attach.ENDED, reply=task.result()) if task.done() else Progress(attach=Attach.RUNNING)

    async def forbid(self, step_id: str, step: Step) -> Progress:
        """Give a step id up: nothing at the service stands for it, only our leases keep others from beginning it."""
        return Progress(attach=Attach.FORBIDDEN)

    async def cancel(self, handle: Handle) -> None:
        """Stop waiting for the service."""
        task = self._running[handle.step_id]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def close(self) -> None:
        """Stop whatever still waits."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _answer(self, step_id: str, step: Step) -> Reply:
        try:
            said = await self._service(step).ask(step_id, step.call)
        except PatchingError as error:
            return Reply(step=step.name, exit_code=1, stderr=str(error))
        return Reply(step=step.name, exit_code=0, stdout=said)

    def _service(self, step: Step) -> Service:
        name = step.call.get("connection")
        connection = self._connections.get(str(name)) if name else Connection(id="")
        module, _, attribute = SERVICES[step.channel].partition(":")
        return cast("Service", getattr(import_module(module), attribute)(connection, self._clock))
