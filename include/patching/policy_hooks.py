"""The parts of a policy around a change: hooks on both sides of it, and who is told what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from patching.quantity import Duration
from patching.value import CamelValue

ConnectionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]+$", max_length=200)]


class CommandHook(CamelValue):
    """A command that runs on the target before the change and one after it, whatever happened."""

    name: str
    enter: str
    leave: str = ""
    on_error: Literal["fail", "ignore"] = "fail"
    timeout: Duration = 300.0


class HttpCall(CamelValue):
    """One HTTP request of a hook: a path under the hook's connection, or a whole URL where it has none."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    url: str
    body: dict[str, Any] | None = None
    status: tuple[int, ...] = (200, 201, 202, 204)


class HttpHook(CamelValue):
    """An HTTP request that the worker sends before the change and one after it, whatever happened."""

    name: str
    enter: HttpCall | None = None
    leave: HttpCall | None = None
    on_error: Literal["fail", "ignore"] = "fail"
    timeout: Duration = 30.0


class Hook(CamelValue):
    """Something done around the change of each target: exactly one of command, http, drain, silence."""

    command: CommandHook | None = None
    http: HttpHook | None = None
    drain: Literal["haproxy"] | None = None
    silence: Literal["alertmanager"] | None = None
    connection: ConnectionId | None = None
    backend: str | None = None
    server: str = "{name}"
    wait: Duration = 60.0
    on_sessions_left: Literal["fail", "proceed"] = "fail"
    matchers: dict[str, str] = Field(default_factory=dict)
    at_most: Duration = 7200.0
    on_error: Literal["fail", "ignore"] = "fail"
    timeout: Duration = 30.0
    backup: bool = False

    @property
    def named(self) -> CommandHook | HttpHook | None:
        """The part that has a name, an onError and a timeout of its own; None for drain and silence."""
        return self.command or self.http

    @property
    def title(self) -> str:
        """Name of the hook within its policy: its own, or its kind and connection."""
        kind = "drain" if self.drain else "silence"
        return self.named.name if self.named is not None else f"{kind}-{self.connection}"

    @property
    def must(self) -> bool:
        """Whether the target fails where this hook does."""
        return (self.on_error if self.named is None else self.named.on_error) == "fail"


class Notify(CamelValue):
    """Which events are told over which connection; each is told once."""

    events: tuple[
        Literal[
            "approval",
            "held",
            "failed",
            "undone",
            "window-missed",
            "scheduler-silent",
            "emergency-suggested",
            "quarantined",
            "incident",
        ],
        ...,
    ]
    connection: ConnectionId
