"""Channel: the only place where a target is touched; one session a target, steps are detached and attachable."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from patching.change import Reply, Step
from patching.target import Target
from patching.value import Value


class Attach(StrEnum):
    """What a started step is doing, as the target itself shows it (docs/explanation/attach-table.md)."""

    ABSENT = "absent"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"
    REBOOTED = "rebooted"
    FORBIDDEN = "forbidden"


class Handle(Value):
    """Where to find a started step again: plain JSON, stored in the ledger."""

    step_id: str
    target: str
    member: str
    directory: str
    boot_id: str


class Progress(Value):
    """What is known of a step: its state on the target and, once ended, its reply."""

    attach: Attach
    reply: Reply | None = None
    boot_id: str | None = None


class Session(Protocol):
    """One open connection to one target; reconnects by itself within the step's deadline."""

    @property
    def lost(self) -> bool:
        """Whether the connection is known to be gone; False says only that nobody has noticed."""
        ...

    async def read(self, step: Step) -> Reply:
        """Run a reading step at once, attached to the connection; raises ChannelError."""
        ...

    async def start(self, step_id: str, step: Step) -> Handle:
        """Start a detached step, or attach to it if the step id exists on the target: never a second run."""
        ...

    async def wait(self, handle: Handle, step: Step) -> Progress:
        """Wait for the pushed end of a step, at most its deadline; survives a lost connection and a reboot."""
        ...

    async def look(self, step_id: str, step: Step) -> Progress:
        """Say what became of a step id without starting it (ABSENT if the target never heard of it)."""
        ...

    async def forbid(self, step_id: str, step: Step) -> Progress:
        """Give a step id up for ever: unless it has begun, no later start will run it, whoever asks.

        The answer comes from the target: FORBIDDEN, or what the step is doing because its start came first. Where
        this raises ChannelError nothing is known, and the step must not be counted as given up.
        """
        ...

    async def cancel(self, handle: Handle) -> None:
        """End a running step's process group; its exit is recorded as any other."""
        ...

    async def close(self) -> None:
        """Close the connection; started steps go on."""
        ...


class Channel(Protocol):
    """Opens sessions; one per transport and connection id."""

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        """Connect and log in; raises TargetOffline, LoginRefused, HostKeyUnknown or HostKeyChanged."""
        ...
