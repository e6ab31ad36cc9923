"""Retries: whether a failed change job is tried again, when, and the sentence that is shown while it waits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from patching.change import JobResult, Outcome
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.policy import Retry
from patching.quantity import format_duration
from patching.rollout.causes import meaning_of
from patching.value import JsonValue, Value

MAY_FAIL_AGAIN = frozenset({Outcome.FAILED, Outcome.OFFLINE, Outcome.UNKNOWN})
_ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class TryLater(Value):
    """A change job that is tried again at ``not_before``; ``number`` of the try that comes, from 2."""

    number: int
    not_before: datetime
    sentence: str
    reason: str


def pause(rules: Retry, earlier: int) -> float:
    """Give the seconds before the next try after ``earlier`` retries: doubling, at most the longest."""
    return float(min(rules.wait * 2**earlier, max(rules.longest, rules.wait)))


def worth_another(result: JobResult) -> bool:
    """Say whether time can mend how a change job ended."""
    return result.outcome in MAY_FAIL_AGAIN and meaning_of(result.signature).again


def next_try(rules: Retry, result: JobResult, earlier: int, now: datetime) -> TryLater | None:
    """Decide about another try after ``earlier`` retries; None where it would not help or enough were made."""
    if not worth_another(result) or earlier >= rules.times:
        return None
    meaning = meaning_of(result.signature)
    seconds = pause(rules, earlier)
    sentence = f"waits {format_duration(seconds)} before its {_ORDINALS[earlier]} try: {meaning.words}"
    return TryLater(
        number=earlier + 2,
        not_before=now + timedelta(seconds=seconds),
        sentence=sentence,
        reason=f"try {earlier + 2} of {rules.times + 1}: {result.reason}",
    )


def bounded(due: datetime, rules: Retry, now: datetime) -> datetime:
    """Give when a try is due by this clock: after the longest pause at most, however wrong its writer's clock was."""
    return min(due, now + timedelta(seconds=max(rules.wait, rules.longest)))


def retry_body(later: TryLater) -> dict[str, JsonValue]:
    """Give what the ledger's ``generation_raised`` entry says of a retry, beside generation and reason."""
    return {"try": later.number, "not_before": later.not_before.isoformat()}


def retries_made(entries: Iterable[LedgerEntry]) -> int:
    """Count the retries of one target since its last outcome, or since a person reopened it, from its entries."""
    made = 0
    for entry in entries:
        reopened = entry.kind is EntryKind.GENERATION_RAISED and bool(entry.body.get("reopen"))
        if entry.kind is EntryKind.TARGET_OUTCOME or reopened:
            made = 0
        elif entry.kind is EntryKind.GENERATION_RAISED and "try" in entry.body:
            made += 1
    return made


def not_before(entries: Iterable[LedgerEntry]) -> datetime | None:
    """Give when the try that comes may begin, from one target's entries: whoever resumes it waits as long."""
    due: datetime | None = None
    for entry in entries:
        if entry.kind is EntryKind.TARGET_OUTCOME:
            due = None
        elif entry.kind is EntryKind.GENERATION_RAISED:
            due = datetime.fromisoformat(entry.body["not_before"]) if "not_before" in entry.body else None
    return due
