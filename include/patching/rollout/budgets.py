"""Failure budgets: when a wave stops launching, decided from counts alone; offline targets count apart."""

from __future__ import annotations

from collections.abc import Iterable

from patching.change import Outcome
from patching.ledger.base import OutcomeCount, TargetRow
from patching.policy import StopWhen
from patching.quantity import fraction
from patching.value import Value

PERCENT_FROM = 5


class Counts(Value):
    """Outcomes of a set of targets, counted."""

    total: int = 0
    pending: int = 0
    applied: int = 0
    failed: int = 0
    offline: int = 0
    other: int = 0

    @property
    def finished(self) -> int:
        """Targets that ended one way or another, offline ones apart."""
        return self.applied + self.failed + self.other


BAD = frozenset({Outcome.FAILED, Outcome.UNKNOWN, Outcome.DRIFTED, Outcome.QUARANTINED})


class Stop(Value):
    """A budget is spent: which rule, and the numbers."""

    rule: str
    sentence: str
    offline: bool = False


def count(rows: Iterable[TargetRow]) -> Counts:
    """Count rows by how they ended."""
    return counted(OutcomeCount(wave=row.wave, outcome=row.outcome, targets=1) for row in rows)


def counted(groups: Iterable[OutcomeCount]) -> Counts:
    """Add up what the ledger has counted."""
    tally = {"pending": 0, "applied": 0, "failed": 0, "offline": 0, "other": 0}
    for group in groups:
        tally[_bucket(group.outcome)] += group.targets
    return Counts(total=sum(tally.values()), **tally)


def _bucket(outcome: Outcome | None) -> str:
    if outcome is None:
        return "pending"
    if outcome is Outcome.OFFLINE:
        return "offline"
    if outcome in BAD:
        return "failed"
    return "applied" if outcome is Outcome.APPLIED else "other"


def spent(rules: StopWhen, counts: Counts) -> Stop | None:
    """Say which budget is spent, None while launching may go on.

    ``failedPercent`` is of those finished, and only from the fifth finished target on; ``offlinePercent`` is of all
    targets of the wave. Drifted and unknown targets count as failed.
    """
    if rules.failed_targets is not None and counts.failed >= rules.failed_targets:
        return Stop(rule="failedTargets", sentence=f"{counts.failed} failed, the limit is {rules.failed_targets}")
    share = fraction(rules.failed_percent) if rules.failed_percent is not None else None
    if share is not None and counts.finished >= PERCENT_FROM and counts.failed > share * counts.finished:
        sentence = f"{counts.failed} of {counts.finished} finished have failed, the limit is {rules.failed_percent}"
        return Stop(rule="failedPercent", sentence=sentence)
    share = fraction(rules.offline_percent) if rules.offline_percent is not None else None
    if share is not None and counts.total and counts.offline > share * counts.total:
        sentence = f"{counts.offline} of {counts.total} are offline, the limit is {rules.offline_percent}"
        return Stop(rule="offlinePercent", sentence=sentence, offline=True)
    return None
