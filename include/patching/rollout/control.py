"""Control: what a person may do to a rollout that is under way, and the one stop switch; each with who and why.

Nothing here touches a target: each function writes to the ledger what was decided. Jobs read it before they begin
anything, and the next run of the policy's DAG does the rest.
"""

from __future__ import annotations

from patching.change import Outcome
from patching.errors import LedgerConflict, LedgerError, TransitionRefused
from patching.ledger.base import Ledger, RolloutRow, TargetRow
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry, NewEntry
from patching.report.sentences import names
from patching.rollout.answers import VerdictName
from patching.rollout.gates import verdict_of
from patching.rollout.states import FINAL, TRANSITIONS, RolloutState, check_transition, ways
from patching.value import Value

LONGEST_REASON = 400
TRIES = 20
MOST = 1000
S = RolloutState
PROMOTABLE = (VerdictName.HOLD, VerdictName.INCONCLUSIVE)
MAY_ABORT = tuple(state for state, following in TRANSITIONS.items() if S.ABORTED in following)


class Done(Value):
    """What was written down: the rollout afterwards (None: the stop switch), and what that means in one sentence."""

    row: RolloutRow | None = None
    sentence: str


def hold(ledger: Ledger, rollout: str, actor: str, reason: str) -> Done:
    """Hold a rollout that runs or waits: nothing new begins, what is at work on a target ends there.

    Raises TransitionRefused, LedgerError (no such rollout; no reason).
    """
    why = _why(actor, reason)
    row = _move(ledger, rollout, S.HELD, f"held by {why}", actor, (S.RUNNING, S.WAITING))
    _be_quiet(ledger, rollout)
    busy = _in_mid_change(ledger.targets(rollout))
    said = f"; {names(busy)} will end first" if busy else ""
    return Done(row=row, sentence=f"{rollout} is held: nothing new begins{said}")


def resume(ledger: Ledger, rollout: str, actor: str, reason: str) -> Done:
    """Let a held rollout go on where it stopped, with its next run.

    Refused while a wave has a verdict that holds it (only ``promote`` passes that), and once an undo has begun.
    Raises TransitionRefused, LedgerError.
    """
    why = _why(actor, reason)
    _only_held(_known(ledger, rollout), S.WAITING)
    _not_undone(ledger, rollout)
    for wave, verdict in _verdicts(ledger, rollout):
        if verdict is not VerdictName.PROMOTE:
            raise TransitionRefused(
                f'wave {wave} of {rollout} has the verdict "{verdict.value}", which is never made again: resuming '
                f"would change nothing. {_instead(verdict)}"
            )
    row = _move(ledger, rollout, S.WAITING, f"resumed by {why}", actor, (S.HELD,))
    return Done(row=row, sentence=f"{rollout} is resumed: its next run goes on where it stopped")


def promote(ledger: Ledger, rollout: str, actor: str, reason: str, *, wave: int | None = None) -> Done:
    """Promote the one held wave of a rollout in a person's name; the waves after it keep their own gates and verdicts.

    ``wave`` refuses any other than the one that was looked at. The judge's verdict stays as it was recorded: the
    person's is an entry of its own after it. Raises TransitionRefused, LedgerError.
    """
    why = _why(actor, reason)
    _only_held(_known(ledger, rollout), S.WAITING)
    _not_undone(ledger, rollout)
    judged = _held_wave(ledger, rollout, wave)
    number, verdict = int(judged.body["wave"]), str(judged.body["verdict"])
    said = f"promoted by {why}; the judge had said {verdict}: {judged.body.get('reason', '')}"
    body = {
        "wave": number,
        "verdict": VerdictName.PROMOTE.value,
        "reason": said,
        "checks": list(judged.body.get("checks", ())),
        "by": actor,
        "judged": verdict,
    }
    ledger.append(NewEntry(chain=rollout, kind=EntryKind.VERDICT, key=f"verdict:{number}:by:1", actor=actor, body=body))
    row = _move(ledger, rollout, S.WAITING, f"wave {number} was promoted by {why}", actor, (S.HELD,))
    return Done(row=row, sentence=f"wave {number} of {rollout} is promoted: the next run goes on after it")


def abort(ledger: Ledger, rollout: str, actor: str, reason: str) -> Done:
    """End a rollout: nothing new begins, what is at work on a target ends there, what is changed stays changed.

    Raises TransitionRefused, LedgerError.
    """
    why = _why(actor, reason)
    _known(ledger, rollout)
    row = _move(ledger, rollout, S.ABORTED, f"aborted by {why}", actor, MAY_ABORT)
    rows = ledger.targets(rollout)
    changed = [item for item in rows if item.outcome is Outcome.APPLIED and item.undo_outcome is None]
    sentence = f"{rollout} is aborted: nothing new begins, and {len(changed)} changed targets stay as they are"
    busy = _in_mid_change(rows)
    if busy:
        sentence += f"; {names(busy)} had begun and ends, or stays in mid-change and keeps its place until it is undone"
    return Done(row=row, sentence=sentence)


def undo(ledger: Ledger, rollout: str, actor: str, reason: str) -> Done:
    """Ask for everything that a held, aborted or completed rollout changed to be put back by its next run.

    Targets that a later rollout changed are left alone by that run. Refused while another rollout of the policy is
    open, because a policy has one open rollout. Raises TransitionRefused, LedgerError.
    """
    why = _why(actor, reason)
    before = _known(ledger, rollout)
    others = [
        item.id
        for item in ledger.rollouts(policy=before.policy, open_only=True, limit=MOST)
        if item.id != rollout and item.emergency == before.emergency
    ]
    if before.state in FINAL and S.UNDOING in TRANSITIONS[before.state] and others:
        raise TransitionRefused(
            f"rollout {others[0]} of the same policy is open, and a policy has one open rollout: {rollout} is not "
            f"undone. Let {others[0]} end, or abort it, first"
        )
    row = _move(ledger, rollout, S.UNDOING, f"undo asked for by {why}", actor, (S.HELD, S.ABORTED, S.COMPLETED))
    _be_quiet(ledger, rollout)
    return Done(
        row=row, sentence=f"{rollout} is being undone: its next run, or patch_reconcile, puts back what it changed"
    )


def stop_all(ledger: Ledger, actor: str, reason: str, *, on: bool = True) -> Done:
    """Turn the one stop switch on or off: while it is on, no step of a change begins anywhere.

    Steps that run on a target end there; undo and the leaving of hooks go on. Turning it on again is allowed and
    renews the reason; turning off what is off is refused. Raises TransitionRefused, LedgerError.
    """
    why = _why(actor, reason)
    for _ in range(TRIES):
        if not on and ledger.stopped() is None:
            raise TransitionRefused("the stop switch is off already: nothing is stopped by it")
        number = len(ledger.entries(CONTROL, kinds=[EntryKind.STOP_SWITCH])) + 1
        body = {"on": on, "reason": why if on else f"released by {why}", "number": number}
        entry = NewEntry(chain=CONTROL, kind=EntryKind.STOP_SWITCH, key=f"stop:by:{number}", actor=actor, body=body)
        try:
            ledger.append(entry)
        except LedgerConflict:
            # Somebody else turned it at the same moment: what they wrote comes first, then this.
            continue
        break
    else:
        raise LedgerConflict("the stop switch is being turned by others all the time: it was NOT turned; try again")
    if on:
        return Done(sentence="everything is stopped before its next step; what runs on a target ends there")
    return Done(sentence="the stop switch is off: the next run of each policy goes on where it was stopped")


def _why(actor: str, reason: str) -> str:
    words = " ".join(reason.split())
    if not actor.strip() or not words:
        raise LedgerError("a person's decision needs a name and a reason: nothing was written")
    return f"{actor}: {words[:LONGEST_REASON]}"


def _known(ledger: Ledger, rollout: str) -> RolloutRow:
    row = ledger.rollout(rollout)
    if row is None:
        raise LedgerError(f"the ledger has no rollout {rollout}: nothing was written; check the id")
    return row


def _move(
    ledger: Ledger, rollout: str, to: RolloutState, reason: str, actor: str, only_from: tuple[RolloutState, ...]
) -> RolloutRow:
    current = _known(ledger, rollout).state
    if current is to:
        raise TransitionRefused(f'rollout {rollout} is "{to}" already; from there: {ways(to)}')
    return ledger.transition(rollout, to, reason=reason, actor=actor, only_from=only_from)


def _only_held(row: RolloutRow, to: RolloutState) -> None:
    if row.state is S.HELD:
        return
    check_transition(row.id, row.state, to)
    raise TransitionRefused(f'rollout {row.id} is "{row.state}", not held: nobody needs to let it go on')


def _not_undone(ledger: Ledger, rollout: str) -> None:
    moves = ledger.entries(rollout, kinds=[EntryKind.TRANSITION])
    if any(entry.body.get("to") == S.UNDOING for entry in moves):
        raise TransitionRefused(
            f"rollout {rollout} has begun to undo what it changed, so it does not go on: ask for the undo again, or "
            "abort it and plan anew"
        )


def _verdicts(ledger: Ledger, rollout: str) -> list[tuple[int, VerdictName]]:
    """Give the verdict that holds for every judged wave, in order."""
    latest = {int(entry.body["wave"]): entry for entry in ledger.entries(rollout, kinds=[EntryKind.VERDICT])}
    return [(wave, VerdictName(latest[wave].body["verdict"])) for wave in sorted(latest)]


def _instead(verdict: VerdictName) -> str:
    if verdict in PROMOTABLE:
        return "Promote the wave if you answer for it, undo it, or abort and plan anew"
    return "Undo it, or abort and plan anew"


def _held_wave(ledger: Ledger, rollout: str, wave: int | None) -> LedgerEntry:
    """Find the verdict of the one wave that may be promoted; raises TransitionRefused with the reason."""
    open_waves = [item for item in _verdicts(ledger, rollout) if item[1] is not VerdictName.PROMOTE]
    if not open_waves:
        raise TransitionRefused(f"no wave of {rollout} is held by a verdict: resume lets the rollout go on")
    number, verdict = open_waves[0]
    if wave is not None and wave != number:
        raise TransitionRefused(f"the held wave of {rollout} is wave {number}, not {wave}: nothing was promoted")
    if verdict not in PROMOTABLE:
        raise TransitionRefused(
            f'wave {number} of {rollout} has the verdict "{verdict.value}": what was judged bad is not promoted. '
            f"{_instead(verdict)}"
        )
    left = [
        row.target for row in ledger.targets(rollout) if row.wave == number and row.outcome in (None, Outcome.UNKNOWN)
    ]
    if left:
        raise TransitionRefused(
            f"wave {number} of {rollout} is not finished ({names(left)} without an outcome), so nobody knows how it "
            "went: it is not promoted. Undo it, or abort and plan anew"
        )
    found = verdict_of(ledger, rollout, number)
    if found is None:
        raise LedgerError(f"the ledger lost the verdict of wave {number} of {rollout}: nothing was promoted")
    return found


def _in_mid_change(rows: list[TargetRow]) -> list[str]:
    return [row.target for row in rows if row.began_at is not None and row.outcome is None and row.undo_outcome is None]


def _be_quiet(ledger: Ledger, rollout: str) -> None:
    """Take back the sentence of what a rollout waited for: it waits for a person, or for nothing, now."""
    said = [entry for entry in ledger.entries(rollout, kinds=[EntryKind.WAITS]) if entry.target is None]
    if said and said[-1].body.get("sentence"):
        body = {"sentence": ""}
        ledger.append(NewEntry(chain=rollout, kind=EntryKind.WAITS, key=f"waits:quiet:{said[-1].seq}", body=body))
