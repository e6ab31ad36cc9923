"""Control of single targets: skip one that has not begun, retry what failed, release what is kept out or kept busy.

As in ``control`` nothing here touches a target: a person's decision is written, and the next run carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from patching.change import Outcome, TargetState
from patching.errors import LedgerError, TransitionRefused
from patching.ledger.base import Busy, Fence, Lease, Ledger, Quarantine, RolloutRow, TargetRow
from patching.ledger.entry import EntryKind, NewEntry
from patching.report.sentences import names
from patching.rollout import quarantine
from patching.rollout.answers import VerdictName
from patching.rollout.by_person import Done, known, move, not_undone, why
from patching.rollout.gates import reopenings, verdict_of, verdicts
from patching.rollout.incidents import refuse_locked
from patching.rollout.states import FINAL, RolloutState

SKIP_TTL = 30.0
KEPT_OUT = timedelta(days=14)
RETRYABLE = (Outcome.FAILED, Outcome.OFFLINE, Outcome.UNKNOWN)
S = RolloutState


def skip(ledger: Ledger, rollout: str, actor: str, reason: str, *, target: str) -> Done:
    """Leave a target that has not begun out of an open rollout, for good.

    Refused once it has begun: a worker and a person take the same lease, so that never both win. Raises
    TransitionRefused, LedgerError.
    """
    said = why(actor, reason)
    row = known(ledger, rollout)
    if row.state in FINAL or row.state is S.UNDOING:
        raise TransitionRefused(f'rollout {rollout} is "{row.state}": nothing begins in it, so nothing is skipped')
    _check_not_begun(ledger, rollout, target)
    lease = ledger.acquire(f"skip by {actor}", rollout, target, [], ttl=SKIP_TTL)
    if isinstance(lease, Busy):
        raise TransitionRefused(f"{target} of {rollout} is being begun at this moment: it was not skipped")
    try:
        found = _known_target(ledger, rollout, target)
        _check_open(found)
        body = {"outcome": Outcome.SKIPPED.value, "reason": f"skipped by {said}", "signature": None, "undo": False}
        key = f"target-outcome:{target}:{found.generation}:change"
        entry = NewEntry(chain=rollout, kind=EntryKind.TARGET_OUTCOME, key=key, target=target, actor=actor, body=body)
        ledger.append(entry, _fence(lease))
    finally:
        ledger.release(lease)
    return Done(row=row, sentence=f"{target} is skipped: {rollout} goes on without it, and it stays as it is")


def retry(ledger: Ledger, rollout: str, actor: str, reason: str, *, target: str | None = None) -> Done:
    """Try one target, or all that failed, once more in the same rollout: each under a new generation.

    Only what failed, was offline, or is unknown with every step settled; done steps are not done again. A wave that
    was judged is judged anew after its retried targets. What this rollout put in quarantine for it is released.
    Refused with every reason where nothing is left to retry. Raises TransitionRefused, LedgerError.
    """
    said = why(actor, reason)
    row = known(ledger, rollout)
    if row.state not in (S.RUNNING, S.WAITING, S.HELD):
        raise TransitionRefused(
            f'rollout {rollout} is "{row.state}": only one that runs, waits or is held tries again; plan anew'
        )
    refuse_locked(ledger, row.policy)
    not_undone(ledger, rollout)
    wanted = _asked(ledger, rollout, target)
    kept = {item.target: item for item in ledger.quarantines(now=ledger.now())}
    against = _against(ledger, rollout, wanted, kept)
    again = [item for item in wanted if item.target not in against]
    if not again:
        because = "; ".join(f"{name}: {text}" for name, text in list(against.items())[:5]) or "no target failed"
        raise TransitionRefused(f"nothing of {rollout} is tried again: {because}")
    held_by = [wave for wave, verdict in verdicts(ledger, rollout) if verdict is not VerdictName.PROMOTE]
    ledger.append_all(_reopening(ledger, rollout, again, kept, actor, said))
    return _after_retry(ledger, row, again, against, bool(held_by), actor, said)


def _after_retry(
    ledger: Ledger,
    row: RolloutRow,
    again: Sequence[TargetRow],
    against: Mapping[str, str],
    held_by_verdict: bool,
    actor: str,
    said: str,
) -> Done:
    """Let a rollout go on that only the verdict of a wave held which is judged anew; a person's hold stays."""
    found = names([item.target for item in again])
    sentence = f"{found} of {row.id} is tried again, from the step that failed"
    if row.state is S.HELD:
        left = [wave for wave, verdict in verdicts(ledger, row.id) if verdict is not VerdictName.PROMOTE]
        if left or not held_by_verdict:
            return Done(row=row, goes_on=False, sentence=f"{sentence} once {row.id} goes on: it is still held")
        row = move(ledger, row.id, S.WAITING, f"{found} is tried again by {said}", actor, (S.HELD,))
    if against:
        sentence += f"; not {'; not '.join(f'{name} ({text})' for name, text in list(against.items())[:5])}"
    return Done(row=row, sentence=sentence)


def release(ledger: Ledger, target: str, actor: str, reason: str) -> Done:
    """Release a target that a person has looked at: first the place that an unknown end keeps, then its quarantine.

    One that keeps a place goes into quarantine, until it is released once more. Raises TransitionRefused (nothing is
    kept), LedgerError.
    """
    said = why(actor, reason)
    lease = kept_by_unknown(ledger, target)
    if lease is not None:
        return _free(ledger, lease, actor, said)
    found = next((item for item in ledger.quarantines(now=ledger.now()) if item.target == target), None)
    if found is None:
        raise TransitionRefused(f"{target} is neither in quarantine nor keeps a place by an unknown end: nothing to do")
    quarantine.release(ledger, target, actor, reason, ledger.now())
    end = f", which would have lasted until {found.until:%Y-%m-%d %H:%MZ}" if found.until else ""
    return Done(
        row=ledger.rollout(found.rollout),
        sentence=f"{target} has left quarantine{end}: the next plan may change it again",
    )


def kept_by(ledger: Ledger, target: str) -> str | None:
    """Name the rollout that keeps a target, by an unknown end or in quarantine; None where nothing does."""
    lease = kept_by_unknown(ledger, target)
    if lease is not None:
        return lease.rollout
    return next((item.rollout for item in ledger.quarantines(now=ledger.now()) if item.target == target), None)


def kept_by_unknown(ledger: Ledger, target: str) -> Lease | None:
    """Find the lease that a target keeps because nobody saw how its change or undo ended, and nobody works on it."""
    for lease in ledger.leases():
        if lease.target != target or lease.expires_at > ledger.now():
            continue
        row = ledger.target(lease.rollout, target)
        if row is not None and Outcome.UNKNOWN in (row.outcome, row.undo_outcome):
            return lease
    return None


def _free(ledger: Ledger, lease: Lease, actor: str, said: str) -> Done:
    row, name = _known_target(ledger, lease.rollout, lease.target), lease.target
    entries = []
    if row.outcome is Outcome.UNKNOWN and row.undo_outcome is None:
        reason = f"its place was released by {said}; nobody saw how its change ended"
        body = {"outcome": Outcome.QUARANTINED.value, "reason": reason, "signature": "unknown", "undo": False}
        key = f"target-outcome:{name}:{row.generation}:released"
        kind = EntryKind.TARGET_OUTCOME
        entries.append(NewEntry(chain=lease.rollout, kind=kind, key=key, target=name, actor=actor, body=body))
    body = {"reason": said, "what": "place"}
    key = f"released:place:{lease.id}"
    entries.append(NewEntry(chain=lease.rollout, kind=EntryKind.RELEASED, key=key, target=name, actor=actor, body=body))
    now = ledger.now()
    kept = next((item for item in ledger.quarantines(now=now) if item.target == name), None)
    until = kept.until if kept is not None else now + KEPT_OUT
    if kept is None:
        body = {"reason": f"nobody saw how its change ended ({said})", "until": (now + KEPT_OUT).isoformat()}
        key = f"quarantined:{name}:place:{lease.id}"
        kind = EntryKind.QUARANTINED
        entries.append(NewEntry(chain=lease.rollout, kind=kind, key=key, target=name, actor=actor, body=body))
    ledger.append_all(entries, _fence(lease))
    ledger.release(lease)
    end = f"until {until:%Y-%m-%d %H:%MZ}, or " if until else ""
    return Done(
        row=ledger.rollout(lease.rollout),
        sentence=f"the place that {name} kept is free; it stays in quarantine {end}until it is released once more",
    )


def _known_target(ledger: Ledger, rollout: str, target: str) -> TargetRow:
    found = ledger.target(rollout, target)
    if found is None:
        raise LedgerError(f"{target} is not in the plan of {rollout}: nothing was written; check the name")
    return found


def _check_not_begun(ledger: Ledger, rollout: str, target: str) -> None:
    _check_open(_known_target(ledger, rollout, target))
    if any(lease.rollout == rollout and lease.target == target for lease in ledger.leases()):
        raise TransitionRefused(f"{target} of {rollout} is at work, so it is not skipped: hold or abort the rollout")


def _check_open(row: TargetRow) -> None:
    if row.outcome is not None:
        raise TransitionRefused(
            f'{row.target} of {row.rollout} has ended as "{row.outcome.value}": nothing is left to skip'
        )
    if row.began_at is not None or row.state not in (TargetState.PENDING, TargetState.WAITING):
        raise TransitionRefused(
            f"{row.target} of {row.rollout} has begun, and half a change is worse than a whole one: it is not skipped. "
            "Let it end, or undo the rollout"
        )


def _asked(ledger: Ledger, rollout: str, target: str | None) -> list[TargetRow]:
    if target is not None:
        return [_known_target(ledger, rollout, target)]
    return [row for row in ledger.targets(rollout) if row.outcome in RETRYABLE]


def _against(ledger: Ledger, rollout: str, rows: Sequence[TargetRow], kept: Mapping[str, Quarantine]) -> dict[str, str]:
    """Say what stands against trying each target again; those that may be tried are not in it."""
    now = ledger.now()
    unsettled = {intent.target for intent in ledger.intents(rollout=rollout)}
    at_work = {lease.target for lease in ledger.leases() if lease.rollout == rollout and lease.expires_at > now}
    judged = {row.wave: verdict_of(ledger, rollout, row.wave) for row in rows}
    found = {}
    for row in rows:
        verdict = judged[row.wave]
        if row.outcome not in RETRYABLE:
            text = f'it is "{row.outcome.value if row.outcome else row.state.value}", and only what failed is retried'
        elif row.undo_outcome in RETRYABLE:
            text = "its undo failed: repair it, and undo it again"
        elif row.state is not TargetState.ENDED or row.target in at_work:
            text = "it is at work"
        elif row.target in unsettled:
            text = "nobody knows how its last step ended: the next run, or patch_reconcile, settles that first"
        elif row.target in kept and kept[row.target].rollout != rollout:
            text = f"rollout {kept[row.target].rollout} put it in quarantine: release it first"
        elif verdict is not None and verdict.body.get("verdict") != "promote" and verdict.body.get("checks"):
            text = f"the verdict of wave {row.wave} rests on its checks, and is never made again: promote it first"
        else:
            continue
        found[row.target] = text
    return found


def _reopening(
    ledger: Ledger, rollout: str, rows: Sequence[TargetRow], kept: Mapping[str, Quarantine], actor: str, said: str
) -> list[NewEntry]:
    entries = []
    for row in rows:
        if row.target in kept:
            entries.append(quarantine.release_entry(kept[row.target], actor, said))
        number = row.generation + 1
        body = {"generation": number, "reason": f"tried again by {said}", "reopen": True}
        key, kind = f"generation:{row.target}:{number}", EntryKind.GENERATION_RAISED
        entries.append(NewEntry(chain=rollout, kind=kind, key=key, target=row.target, actor=actor, body=body))
    for wave in sorted({row.wave for row in rows if verdict_of(ledger, rollout, row.wave) is not None}):
        mine = [row.target for row in rows if row.wave == wave]
        body = {"wave": wave, "targets": mine, "reason": said}
        key = f"wave-reopened:{wave}:{reopenings(ledger, rollout, wave)}"
        entries.append(NewEntry(chain=rollout, kind=EntryKind.WAVE_REOPENED, key=key, actor=actor, body=body))
    return entries


def _fence(lease: Lease) -> Fence:
    return Fence(lease=lease.id, epoch=lease.epoch)
