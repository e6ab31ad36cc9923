"""Quarantine: targets that no other rollout touches until it expires or a person releases them, with the evidence.

What is due is decided purely from a target's row and entries, so a sweep that dies half-way is simply done again. The
ledger's ``quarantined`` and ``released`` entries in the rollout's own chain are the only state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from patching.change import Outcome
from patching.diagnostics import did_you_mean
from patching.errors import LedgerConflict, LedgerError
from patching.ledger.base import Ledger, Quarantine, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Plan
from patching.policy import OnFailure
from patching.rollout.causes import cause_of
from patching.rollout.record import Record
from patching.rollout.retries import retries_made
from patching.value import Value

OUTPUT_KEPT = 1000
LONGEST_REASON = 400
RECONCILER = "patch_reconcile"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_BACK = (Outcome.FAILED, Outcome.UNKNOWN, Outcome.STAYS_CHANGED)
_ITS_KINDS = (EntryKind.TARGET_OUTCOME, EntryKind.STEP_OUTCOME, EntryKind.GENERATION_RAISED)


class Evidence(Value):
    """What is known of a failure: its cause, the tries, and the last step that failed with the end of its output."""

    cause: str
    signature: str | None
    tries: int
    step: str = ""
    exit_code: int | None = None
    output: str = ""


class Kept(Value):
    """One target in quarantine, with the evidence that its rollout recorded (None for entries of older versions)."""

    target: str
    rollout: str
    reason: str
    since: datetime
    until: datetime | None
    evidence: Evidence | None = None


def evidence(entries: Sequence[LedgerEntry]) -> Evidence:
    """Gather the evidence of a failure from one target's entries; their output is capped and redacted already."""
    ended = [entry for entry in entries if entry.kind is EntryKind.TARGET_OUTCOME and not entry.body.get("undo")]
    signature = ended[-1].body.get("signature") if ended else None
    before = [entry for entry in entries if not ended or entry.seq < ended[-1].seq]
    bad = [entry for entry in entries if entry.kind is EntryKind.STEP_OUTCOME and not entry.body.get("ok")]
    last = bad[-1].body if bad else {}
    output = str(last.get("stderr") or "") or str(last.get("stdout") or "")
    return Evidence(
        cause=cause_of(signature).value,
        signature=signature,
        tries=retries_made(before) + 1,
        step=str(last.get("step") or ""),
        exit_code=last.get("exit_code"),
        output=output.strip()[-OUTPUT_KEPT:],
    )


def is_due(rules: OnFailure, row: TargetRow) -> bool:
    """Say whether a target belongs into quarantine: its undo did not bring it back, or it failed and needs no undo."""
    if not rules.quarantine:
        return False
    if row.undo_outcome in _NOT_BACK:
        return True
    over = row.undo_outcome is Outcome.UNDONE or rules.undo == "never"
    return row.outcome is Outcome.FAILED and row.began_at is not None and over


def quarantine_entry(rules: OnFailure, row: TargetRow, entries: Sequence[LedgerEntry]) -> NewEntry | None:
    """Make the entry that puts a target into quarantine, None where it is not due or was made already.

    It counts from the target's last outcome, so that making it again makes the same one. ``entries`` are the target's.
    """
    key = f"quarantined:{row.target}:{row.generation}"
    ends = [entry for entry in entries if entry.kind is EntryKind.TARGET_OUTCOME]
    if not ends or not is_due(rules, row) or any(entry.key == key for entry in entries):
        return None
    body = {
        "reason": _reason(row, ends),
        "until": (ends[-1].at + timedelta(seconds=rules.quarantine_for)).isoformat(),
        "evidence": evidence(entries).model_dump(mode="json"),
    }
    return NewEntry(chain=row.rollout, kind=EntryKind.QUARANTINED, key=key, target=row.target, body=body)


def _reason(row: TargetRow, ends: Sequence[LedgerEntry]) -> str:
    change = next((str(entry.body.get("reason")) for entry in reversed(ends) if not entry.body.get("undo")), "")
    undo = next((str(entry.body.get("reason")) for entry in reversed(ends) if entry.body.get("undo")), "")
    if row.undo_outcome in _NOT_BACK:
        return undo if row.undo_outcome is Outcome.STAYS_CHANGED else f"could not be undone: {undo}"
    done = "was undone" if row.undo_outcome is Outcome.UNDONE else "was left as it is"
    return f"failed ({change}) and {done}"


async def keep_failed_apart(record: Record, plan: Plan) -> None:
    """Put every target of a rollout that is due into quarantine, once; raises LedgerUnavailable."""
    rules, ledger = plan.policy.spec.on_failure, record.site.ledger
    for row in await record.call(ledger.targets, plan.rollout):
        if not is_due(rules, row):
            continue
        kinds = (*_ITS_KINDS, EntryKind.QUARANTINED)
        entries = await record.call(ledger.entries, plan.rollout, kinds=kinds, target=row.target)
        entry = quarantine_entry(rules, row, entries)
        if entry is not None:
            await record.append(entry.kind, entry.key, entry.body, target=entry.target)
            record.site.log(f"{row.target} is in quarantine until {entry.body['until']}: {entry.body['reason']}")


async def left_in_quarantine(record: Record, row: TargetRow, kept: Iterable[Quarantine]) -> bool:
    """End a target that has not begun and that another rollout has put into quarantine, without touching it.

    ``kept`` is who is in quarantine now.
    """
    found = None if row.began_at is not None else kept_apart_elsewhere(row, kept)
    if found is None:
        return False
    body = {"outcome": Outcome.QUARANTINED.value, "reason": why_left_out(found), "signature": None, "active": True}
    key = f"target-outcome:{row.target}:{row.generation}:change"
    await record.append(EntryKind.TARGET_OUTCOME, key, {**body, "undo": False}, target=row.target)
    return True


def kept_apart_elsewhere(row: TargetRow, kept: Iterable[Quarantine]) -> Quarantine | None:
    """Find the quarantine into which another rollout has put a target.

    One that its own rollout put there begins only because a person asked for another try.
    """
    return next((item for item in kept if item.target == row.target and item.rollout != row.rollout), None)


def why_left_out(item: Quarantine) -> str:
    """Say why a target is left out, until when, and how a person ends that."""
    until = f"until {item.until:%Y-%m-%d %H:%M} UTC" if item.until else "until it is released"
    return f"{item.reason}; {until}, or `patching release {item.target}` once it is repaired (rollout {item.rollout})"


def quarantined(ledger: Ledger, now: datetime) -> list[Kept]:
    """List every target in quarantine at a moment, by name, with its evidence."""
    return [_with_evidence(ledger, item) for item in ledger.quarantines(now=now)]


def _with_evidence(ledger: Ledger, item: Quarantine) -> Kept:
    entries = ledger.entries(item.rollout, kinds=[EntryKind.QUARANTINED], target=item.target)
    found = entries[-1].body.get("evidence") if entries else None
    return Kept(**item.model_dump(), evidence=Evidence.model_validate(found) if found else None)


def release(ledger: Ledger, target: str, actor: str, reason: str, now: datetime) -> Quarantine:
    """Release a target in a person's name: the next plan takes it in again; gives what it was released from.

    Raises LedgerError (it is not in quarantine; no name or reason).
    """
    words = " ".join(reason.split())[:LONGEST_REASON]
    if not actor.strip() or not words:
        raise LedgerError("a release needs a name and a reason: nothing was written")
    kept = ledger.quarantines(now=now)
    found = next((item for item in kept if item.target == target), None)
    if found is None:
        hint = did_you_mean(target, [item.target for item in kept]) if kept else "; nobody is"
        raise LedgerError(f"{target} is not in quarantine: nothing was written{hint}")
    ledger.append(release_entry(found, actor, f"{actor}: {words}"))
    return found


def end_expired(ledger: Ledger, now: datetime) -> list[str]:
    """Write the end of every quarantine that has expired; one sentence each."""
    said = []
    for item in ledger.quarantines(now=_BEGINNING):
        if item.until is None or item.until > now:
            continue
        reason = f"it ended on {item.until:%Y-%m-%d %H:%M} UTC"
        try:
            ledger.append(release_entry(item, RECONCILER, reason))
        except LedgerConflict:
            continue  # A person released it at the same moment.
        said.append(f"{item.rollout}: the quarantine of {item.target} is over: {reason}; the next plan takes it in")
    return said


def release_entry(item: Quarantine, actor: str, reason: str) -> NewEntry:
    """Make the entry that ends a quarantine; the same one again has the same key."""
    key = f"released:{item.target}:{item.since.isoformat()}"
    kind = EntryKind.RELEASED
    return NewEntry(chain=item.rollout, kind=kind, key=key, target=item.target, actor=actor, body={"reason": reason})
