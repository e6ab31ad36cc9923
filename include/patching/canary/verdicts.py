"""What verification says: of one probe, of one metric check, of a wave; all of it goes into the ledger as it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from patching.policy import Check
from patching.rollout.answers import VerdictName
from patching.value import Value


class ProbeResult(Value):
    """One probe's answer about one target: ``ok`` None means that nobody knows, which is not a pass."""

    check: str
    target: str
    ok: bool | None
    detail: str


class Numbers(Value):
    """What a comparison counted and concluded; None where there is no such number.

    ``ratio`` is the treated error share over that of the reference; each limit of an interval is one-sided at
    1 − ``alpha`` (None = unbounded). ``p_value`` is for "the increase is at most the tolerated one" and holds at every
    look: 1 over the largest ``evidence`` of all ``looks``. ``alarm_at`` is the first look at which the evidence reached
    ``evidence_needed`` = 1/alpha, ``alpha`` being this metric's and wave's share of the bound. ``spread`` is σ of a
    host's log ratio, ``before_ratio`` the treated error share over the control's before the wave.
    ``seen_ratio`` is the ratio (to the limit, where that is compared with) that such a soak shows in four of five
    rollouts, see ``power``: what is smaller may well have stayed unseen.
    ``treated_per_host`` and ``reference_per_host`` are the requests of a host on each side, where that is the control
    in the same time: how alike their load is.
    Gauges have levels instead of shares, values counted as ``treated_requests``, and ``host_effect``, the
    Hodges-Lehmann factor between hosts. ``rank_p`` is the p-value of the one look at their ranks, which alarms at
    ``rank_alpha``, a share of its own; both are None where ranks are not looked at.
    """

    treated_errors: float
    treated_requests: float
    reference_errors: float | None = None
    reference_requests: float | None = None
    treated_share: float | None = None
    reference_share: float | None = None
    share_low: float | None = None
    share_high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    p_value: float | None = None
    alpha: float
    spread: float | None = None
    evidence: float | None = None
    evidence_needed: float | None = None
    alarm_at: datetime | None = None
    looks: int = 1
    before_ratio: float | None = None
    treated_level: float | None = None
    reference_level: float | None = None
    host_effect: float | None = None
    rank_p: float | None = None
    rank_alpha: float | None = None
    seen_ratio: float | None = None
    treated_per_host: float | None = None
    reference_per_host: float | None = None


@dataclass(frozen=True)
class Finding:
    """What one comparison found: whether it alarms, whether it can be promoted on, and its numbers."""

    comparison: str
    test: str
    alarm: bool
    acceptable: bool
    numbers: Numbers
    sentence: str


class CheckVerdict(Value):
    """One metric check's verdict (promote, undo or inconclusive), how it was reached, and the sentence a person reads.

    ``silent`` names treated targets without data; ``idle`` those that got no request before the change nor after it.
    ``no_data``: a changed target said nothing, or nobody answered at all; such an answer is never waved through (F9).
    ``passed_over`` says of each comparison that was not used why not.
    """

    name: str
    verdict: VerdictName
    comparison: str | None = None
    test: str | None = None
    numbers: Numbers | None = None
    silent: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    no_data: bool = False
    passed_over: tuple[str, ...] = ()
    reason: str

    @classmethod
    def unavailable(cls, check: Check, why: str) -> CheckVerdict:
        """Give the verdict of a check whose source failed: inconclusive, with the source's own words."""
        reason = f"{check.name}: {why}"
        return cls(name=check.name, verdict=VerdictName.INCONCLUSIVE, no_data=True, reason=reason)


class WaveVerdict(Value):
    """A wave's verdict: promote, hold or undo, the sentence, and everything it rests on."""

    verdict: VerdictName
    reason: str
    checks: tuple[CheckVerdict, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
