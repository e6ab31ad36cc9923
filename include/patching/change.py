"""Patch, Step, Outcome: one change on one target, the steps that carry it out, and how it ended."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

from patching.value import JsonValue, Value


class Patch(Value):
    """One component's change on one target; None before = new, None after = removed."""

    component: str
    before: str | None
    after: str | None
    origin: str | None = None
    advisories: tuple[str, ...] = ()
    reason: str = ""


class Phase(StrEnum):
    """The part of a change job that a step belongs to, in the order in which they happen."""

    PROBE = "probe"
    ENTER = "enter"
    PREPARE = "prepare"
    APPLY = "apply"
    ACTIVATE = "activate"
    VERIFY = "verify"
    LEAVE = "leave"
    UNDO = "undo"


class StepKind(StrEnum):
    """What a step does to the target: only reading is free of an intent."""

    READ = "read"
    ACT = "act"
    ACTIVATE = "activate"
    AWAIT = "await"


class IfInterrupted(StrEnum):
    """How a step counts whose end nobody saw: probe the target again, or (a reboot) take it as done."""

    REPROBE = "reprobe"
    SUCCESS = "success"


class Step(Value):
    """One act on one member of a target; ``call`` is in the channel's own words, ``deadline`` in seconds.

    For channel ``ssh``, ``call`` is ``{"script": str, "sudo": bool}``, run by ``/bin/sh``.
    """

    name: str
    phase: Phase
    kind: StepKind
    call: dict[str, JsonValue]
    member: str = "main"
    channel: str = "ssh"
    deadline: float = 300.0
    if_interrupted: IfInterrupted = IfInterrupted.REPROBE
    expects_reboot: bool = False


def step_id(rollout: str, target: str, phase: Phase, name: str, generation: int) -> str:
    """Name one step for ever: no randomness and no try number, only a generation that a ledger entry raises."""
    text = "\x1f".join((rollout, target, phase.value, name, str(generation)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Reply(Value):
    """What came back from one step; ``exit_code`` None means that the end was not seen, which is never success."""

    step: str
    exit_code: int | None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """Whether the step ended, and ended with exit code 0."""
        return self.exit_code == 0


class Outcome(StrEnum):
    """How a change job ended; an undo that was not even tried, because it must not be, ends as ``stays_changed``."""

    APPLIED = "applied"
    NOTHING_TO_DO = "nothing_to_do"
    FAILED = "failed"
    UNDONE = "undone"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"
    OFFLINE = "offline"
    STAYS_CHANGED = "stays_changed"


class TargetState(StrEnum):
    """What a target of a rollout is doing now, until it has an outcome."""

    PENDING = "pending"
    WAITING = "waiting"
    RUNNING = "running"
    UNDOING = "undoing"
    ENDED = "ended"


class JobResult(Value):
    """The end of a change job: outcome, the reason in one sentence, and the error signature for budgets."""

    outcome: Outcome
    reason: str
    signature: str | None = None
    active: bool = True


class Refusal(Value):
    """A gate's or check's no: a stable code, the sentence a person reads, and what to do about it."""

    code: str
    message: str
    remedy: str = ""
    blocking: bool = True


class Irreversible(Value):
    """Components of one change whose old version does not bring back what was before, or cannot be had, and why.

    Found by the policy that declares it, by an advisory, or by the driver on the target; a drill proves nothing
    against what the driver found.
    """

    components: tuple[str, ...]
    found_by: Literal["policy", "advisory", "driver"]
    reason: str

    @property
    def declared(self) -> bool:
        """Whether people say so: then backup and drill are asked for before it is begun."""
        return self.found_by != "driver"


class Undo(Value):
    """Undo is possible: how many of the components can be brought back, from where, and what speaks against it."""

    possible: bool
    covered: int = 0
    total: int = 0
    reason: str = ""
    irreversible: tuple[Irreversible, ...] = ()
