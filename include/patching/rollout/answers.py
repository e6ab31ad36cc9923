"""What the parts of a rollout answer: small values that Airflow tasks, the CLI and tests show as they are."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from patching.change import Refusal
from patching.value import Value


class Request(Value):
    """What a run was asked for; conf can only tighten a policy, an emergency has a DAG of its own."""

    dag_id: str
    run_id: str
    mode: str = "apply"
    reason: str = ""
    limit_to: tuple[str, ...] = ()
    plan_digest: str | None = None
    requested_by: str | None = None
    scheduled: bool = False
    replan: bool = False
    emergency: bool = False
    advisories: tuple[str, ...] = ()


class Discovered(Value):
    """The rollout that a run works on, whether it was adopted, and one sentence that says which and why.

    ``yields_to`` is the run that is at work on it instead; with ``again_at`` this run waits for that one's end.
    """

    rollout: str
    adopted: bool
    yields_to: str | None = None
    again_at: datetime | None = None
    sentence: str
    online: int = 0
    offline: int = 0
    refusals: tuple[Refusal, ...] = ()


class ApprovalRequest(Value):
    """What people are asked: how many, who may, until when, and the plan as Markdown."""

    rollout: str
    needed: int
    reason: str
    approvers: tuple[str, ...] = ()
    plan_digest: str
    until: datetime | None = None
    subject: str
    body: str


class Answer(Value):
    """One person's answer as Airflow recorded it; ``person`` comes from the login, never from a body."""

    person: str
    approved: bool
    at: datetime
    comment: str = ""


class ApprovalDecision(Value):
    """Whether a plan may go on, and why in one sentence."""

    approved: bool
    decided: bool
    people: tuple[str, ...] = ()
    reason: str


class GateState(StrEnum):
    """A gate is open, waits for something that time or other work will change, or refuses this run."""

    OPEN = "open"
    WAITS = "waits"
    REFUSED = "refused"


class GateAnswer(Value):
    """A gate's answer with its reason; ``again_at`` is when to ask next."""

    state: GateState
    wave: int
    sentence: str
    again_at: datetime | None = None
    shown_as: str = "success"


class WaveSummary(Value):
    """How a shard of a wave went."""

    wave: int
    shard: int
    counts: dict[str, int] = Field(default_factory=dict)
    stopped: str | None = None
    sentence: str
    bad: bool = False
    skipped: bool = False


class VerdictName(StrEnum):
    """What a judge says of a wave."""

    PROMOTE = "promote"
    HOLD = "hold"
    UNDO = "undo"
    INCONCLUSIVE = "inconclusive"


class JudgeAnswer(Value):
    """A wave's verdict, or (``verdict`` None) that it still soaks until ``again_at``."""

    wave: int
    verdict: VerdictName | None
    sentence: str
    again_at: datetime | None = None
    skipped: bool = False


class UndoSummary(Value):
    """What an undo did."""

    wave: int | None
    counts: dict[str, int] = Field(default_factory=dict)
    sentence: str
    bad: bool = False
    skipped: bool = False


class Closing(Value):
    """The end of a run: its colour (``good``), the sentence, and the report's digests."""

    rollout: str | None
    good: bool
    sentence: str
    markdown: str = ""
