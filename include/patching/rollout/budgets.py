"""Failure budgets: when launching stops, decided from counts alone; each kind of trouble is counted apart.

Only failures that speak against the patch let a stop undo what was applied (``Stop.accuses``). Unknown, drifted and
offline targets, and failures of networks, hooks and logins hold: they are missing evidence, not evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from pydantic import Field

from patching.change import Outcome
from patching.ledger.base import OutcomeCount, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.policy import FleetBudget, SequentialTest, StopWhen
from patching.quantity import fraction
from patching.rollout import sequential
from patching.rollout.causes import LOST_IN_REBOOT, meaning_of
from patching.value import JsonValue, Value

PERCENT_FROM = 5


class Counts(Value):
    """Outcomes of a set of targets, counted."""

    total: int = 0
    pending: int = 0
    applied: int = 0
    failed: int = 0
    unknown: int = 0
    drifted: int = 0
    offline: int = 0
    other: int = 0

    @property
    def finished(self) -> int:
        """Targets that ended one way or another, offline and unknown ones apart."""
        return self.applied + self.failed + self.drifted + self.other


_BUCKETS = {
    None: "pending",
    Outcome.APPLIED: "applied",
    Outcome.FAILED: "failed",
    Outcome.UNKNOWN: "unknown",
    Outcome.DRIFTED: "drifted",
    Outcome.OFFLINE: "offline",
}


class Stop(Value):
    """Launching stops: which rule, the numbers in words and as data, and whether they speak against the patch."""

    rule: str
    sentence: str
    accuses: bool = False
    numbers: dict[str, JsonValue] = Field(default_factory=dict)


def count(rows: Iterable[TargetRow]) -> Counts:
    """Count rows by how they ended."""
    return counted(OutcomeCount(wave=row.wave, outcome=row.outcome, targets=1) for row in rows)


def counted(groups: Iterable[OutcomeCount]) -> Counts:
    """Add up what the ledger has counted."""
    tally: Counter[str] = Counter()
    for group in groups:
        tally[_BUCKETS.get(group.outcome, "other")] += group.targets
    return Counts(total=tally.total(), **tally)


def grouped(rows: Iterable[TargetRow]) -> list[OutcomeCount]:
    """Group rows as the ledger groups them."""
    found = Counter((row.wave, row.outcome, row.signature) for row in rows)
    return [
        OutcomeCount(wave=wave, outcome=outcome, signature=signature, targets=targets)
        for (wave, outcome, signature), targets in found.items()
    ]


def answered_for(verdicts: Iterable[LedgerEntry]) -> frozenset[int]:
    """Give the waves that a person promoted: their failures are known and count in no later wave's budget."""
    return frozenset(
        int(entry.body["wave"])
        for entry in verdicts
        if entry.kind is EntryKind.VERDICT and entry.body.get("verdict") == "promote" and entry.body.get("by")
    )


def spent(rules: StopWhen, wave: int, groups: Sequence[OutcomeCount], answered: Collection[int] = ()) -> Stop | None:
    """Say which budget of a wave, or of the whole rollout, is spent; None while launching may go on.

    ``groups`` are all targets of the rollout; those of ``answered`` waves count only in their own wave. Targets that
    were lost in a reboot have a rule of their own (``rollout.losses``) and count in no budget here.
    """
    mine = [group for group in groups if group.wave == wave]
    fleet = [group for group in groups if group.wave == wave or group.wave not in answered]
    here = counted(mine)
    failures = (
        _same_cause(rules, fleet)
        or _failed(rules.failed_targets, rules.failed_percent, mine, "")
        or _sequential(rules.sequential, mine)
        or _fleet(rules, rules.fleet, fleet)
    )
    return failures or _unknown(rules, mine) or _drifted(rules, here) or _offline(rules, here)


def _accuses(groups: Iterable[OutcomeCount]) -> bool:
    return any(group.outcome is Outcome.FAILED and meaning_of(group.signature).accuses for group in groups)


def _failed(limit: int | None, percent: int | str | None, groups: Sequence[OutcomeCount], scope: str) -> Stop | None:
    counts, accuses = counted(groups), _accuses(groups)
    where = " in the whole rollout" if scope else ""
    if limit is not None and counts.failed >= limit:
        sentence = f"{counts.failed} failed{where}, the limit is {limit}"
        numbers: dict[str, JsonValue] = {"failed": counts.failed, "limit": limit}
        return Stop(rule=f"{scope}failedTargets", sentence=sentence, accuses=accuses, numbers=numbers)
    if _above(percent, counts.failed, counts.finished, PERCENT_FROM):
        sentence = f"{counts.failed} of {counts.finished} finished{where} have failed, the limit is {percent}"
        numbers = {"failed": counts.failed, "finished": counts.finished, "limit": percent}
        return Stop(rule=f"{scope}failedPercent", sentence=sentence, accuses=accuses, numbers=numbers)
    return None


def _fleet(rules: StopWhen, fleet: FleetBudget, groups: Sequence[OutcomeCount]) -> Stop | None:
    limit = fleet.failed_targets
    if limit is None and rules.failed_targets is not None:
        limit = 2 * rules.failed_targets
    return _failed(limit, fleet.failed_percent, groups, "fleet.")


def _same_cause(rules: StopWhen, groups: Sequence[OutcomeCount]) -> Stop | None:
    if rules.same_cause is None:
        return None
    causes: Counter[str] = Counter()
    for group in groups:
        if group.outcome is Outcome.FAILED and group.signature is not None:
            causes[group.signature] += group.targets
    # Of several the one that accuses: another that does not must not hide it.
    full = [cause for cause, number in causes.most_common() if number >= rules.same_cause]
    full.sort(key=lambda cause: not meaning_of(cause).accuses)
    if not full:
        return None
    number = causes[full[0]]
    return Stop(
        rule="sameCause",
        sentence=f"{number} failed in the same way ({full[0]}), the limit is {rules.same_cause}",
        accuses=meaning_of(full[0]).accuses,
        numbers={"failed": number, "cause": full[0], "limit": rules.same_cause},
    )


def _sequential(rules: SequentialTest | None, groups: Sequence[OutcomeCount]) -> Stop | None:
    counts = counted(groups)
    if rules is None or not counts.failed:
        return None
    point = sequential.look(rules, counts.applied + counts.failed, counts.failed)
    if point.decision is not sequential.Decision.STOP:
        return None
    numbers = {**point.model_dump(mode="json"), **rules.model_dump(mode="json")}
    said = sequential.sentence(rules, point)
    return Stop(rule="sequential", sentence=said, accuses=_accuses(groups), numbers=numbers)


def _unknown(rules: StopWhen, groups: Iterable[OutcomeCount]) -> Stop | None:
    number = sum(
        group.targets for group in groups if group.outcome is Outcome.UNKNOWN and group.signature != LOST_IN_REBOOT
    )
    if number < rules.unknown_targets:
        return None
    sentence = f"nobody knows how {number} ended, the limit is {rules.unknown_targets}"
    return Stop(rule="unknownTargets", sentence=sentence, numbers={"unknown": number, "limit": rules.unknown_targets})


def _drifted(rules: StopWhen, counts: Counts) -> Stop | None:
    if not _above(rules.drifted_percent, counts.drifted, counts.finished, PERCENT_FROM):
        return None
    limit = rules.drifted_percent
    sentence = f"{counts.drifted} of {counts.finished} finished were changed by somebody else, the limit is {limit}"
    numbers: dict[str, JsonValue] = {"drifted": counts.drifted, "finished": counts.finished, "limit": limit}
    return Stop(rule="driftedPercent", sentence=sentence, numbers=numbers)


def _offline(rules: StopWhen, counts: Counts) -> Stop | None:
    if not _above(rules.offline_percent, counts.offline, counts.total, 1):
        return None
    sentence = f"{counts.offline} of {counts.total} are offline, the limit is {rules.offline_percent}"
    numbers: dict[str, JsonValue] = {
        "offline": counts.offline, "targets": counts.total, "limit": rules.offline_percent,
    }  # fmt: skip
    return Stop(rule="offlinePercent", sentence=sentence, numbers=numbers)


def _above(percent: int | str | None, part: int, whole: int, from_: int) -> bool:
    share = fraction(percent) if percent is not None else None
    return share is not None and whole >= from_ and part > share * whole
