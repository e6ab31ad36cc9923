"""Control: what a person may do to a rollout that is under way, and the one stop switch; each with who and why.

Nothing here touches a target: each function writes to the ledger what was decided. Jobs read it before they begin
anything, and the next run of the policy's DAG does the rest. ``control_targets`` has what is about single targets.
"""

from __future__ import annotations

from collections.abc import Sequence

from patching.change import Outcome, Phase
from patching.errors import LedgerConflict, LedgerError, PlanRefused, TransitionRefused
from patching.ledger.base import Ledger, RolloutRow, TargetRow
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry, NewEntry
from patching.report.sentences import names
from patching.rollout.abort_now import ABORT_NOW_KEY
from patching.rollout.answers import VerdictName
from patching.rollout.by_person import LONGEST_REASON, Done, known, move, not_undone, why
from patching.rollout.gates import verdict_of, verdicts
from patching.rollout.incidents import refuse_locked
from patching.rollout.record import plan_in
from patching.rollout.reversibility import RUNBOOK, changed, proof, staying, told
from patching.rollout.states import FINAL, TRANSITIONS, RolloutState, check_transition

__all__ = ["LONGEST_REASON", "Done", "abort", "hold", "promote", "resume", "stop_all", "undo"]

TRIES = 20
MOST = 1000
S = RolloutState
PROMOTABLE = (VerdictName.HOLD, VerdictName.INCONCLUSIVE)
MAY_ABORT = tuple(state for state, following in TRANSITIONS.items() if S.ABORTED in following)
NOT_UNDONE = (Outcome.FAILED, Outcome.UNKNOWN, Outcome.STAYS_CHANGED)


def hold(ledger: Ledger, rollout: str, actor: str, reason: str) -> Done:
    """Hold a rollout that runs or waits: nothing new begins, what is at work on a target ends there.

    Raises TransitionRefused, LedgerError (no such rollout; no reason).
    """
    row = move(ledger, rollout, S.HELD, f"held by {why(actor, reason)}", actor, (S.RUNNING, S.WAITING))
    _be_quiet(ledger, rollout)
    busy = _in_mid_change(ledger.targets(rollout))
    more = f"; {names(busy)} will end first" if busy else ""
    return Done(row=row, sentence=f"{rollout} is held: nothing new begins{more}")


def resume(ledger: Ledger, rollout: str, actor: str, reason: str) -> Done:
    """Let a held rollout go on where it stopped, with its next run.

    Refused while a wave has a verdict that holds it (only ``promote`` passes that), once an undo has begun, and while
    an incident locks the policy. Raises TransitionRefused, LedgerError.
    """
    said = why(actor, reason)
    row = known(ledger, rollout)
    _only_held(row, S.WAITING)
    refuse_locked(ledger, row.policy)
    not_undone(ledger, rollout)
    for wave, verdict in verdicts(ledger, rollout):
        if verdict is not VerdictName.PROMOTE:
            raise TransitionRefused(
                f'wave {wave} of {rollout} has the verdict "{verdict.value}", which is never made again: resuming '
                f"would change nothing. {_instead(verdict)}"
            )
    row = move(ledger, rollout, S.WAITING, f"resumed by {said}", actor, (S.HELD,))
    return Done(row=row, sentence=f"{rollout} is resumed: its next run goes on where it stopped")


def promote(ledger: Ledger, rollout: str, actor: str, reason: str, *, wave: int | None = None) -> Done:
    """Promote the one held wave of a rollout in a person's name; the waves after it keep their own gates and verdicts.

    ``wave`` refuses any other than the one that was looked at. The judge's verdict stays as it was recorded: the
    person's is an entry of its own after it. Raises TransitionRefused, LedgerError.
    """
    why_said = why(actor, reason)
    row = known(ledger, rollout)
    _only_held(row, S.WAITING)
    refuse_locked(ledger, row.policy)
    not_undone(ledger, rollout)
    judged = _held_wave(ledger, rollout, wave)
    number, verdict = int(judged.body["wave"]), str(judged.body["verdict"])
    body = {
        "wave": number,
        "verdict": VerdictName.PROMOTE.value,
        "reason": f"promoted by {why_said}; the judge had said {verdict}: {judged.body.get('reason', '')}",
        "checks": list(judged.body.get("checks", ())),
        "by": actor,
        "judged": verdict,
    }
    earlier = [entry for entry in ledger.entries(rollout, kinds=[EntryKind.VERDICT]) if entry.body.get("by")]
    key = f"verdict:{number}:by:{sum(entry.body['wave'] == number for entry in earlier) + 1}"
    ledger.append(NewEntry(chain=rollout, kind=EntryKind.VERDICT, key=key, actor=actor, body=body))
    row = move(ledger, rollout, S.WAITING, f"wave {number} was promoted by {why_said}", actor, (S.HELD,))
    return Done(row=row, sentence=f"wave {number} of {rollout} is promoted: the next run goes on after it")


def abort(ledger: Ledger, rollout: str, actor: str, reason: str, *, now: bool = False) -> Done:
    """End a rollout: nothing new begins, what is at work on a target ends there, what is changed stays changed.

    With ``now`` targets that still read or download are cancelled, within seconds; one that installs, restarts or
    reboots is never cancelled: its job goes to its end. A rollout that was aborted without ``now`` may be aborted so
    afterwards. Raises TransitionRefused, LedgerError.
    """
    said = why(actor, reason)
    row = known(ledger, rollout)
    if not (now and row.state is S.ABORTED and ledger.find(rollout, ABORT_NOW_KEY) is None):
        row = move(ledger, rollout, S.ABORTED, f"aborted by {said}", actor, MAY_ABORT)
    if now:
        body = {"reason": said}
        ledger.append(NewEntry(chain=rollout, kind=EntryKind.ABORTED_NOW, key=ABORT_NOW_KEY, actor=actor, body=body))
    rows = ledger.targets(rollout)
    changed = [item for item in rows if item.outcome is Outcome.APPLIED and item.undo_outcome is None]
    sentence = f"{rollout} is aborted: nothing new begins, and {len(changed)} changed targets stay as they are"
    busy = _in_mid_change(rows)
    changing = _changing(ledger, rollout, busy) if now else busy
    cancelled = [name for name in busy if name not in changing]
    if cancelled:
        sentence += f"; {names(cancelled)} only read or downloaded and is cancelled"
    if changing:
        sentence += f"; {names(changing)} had begun and ends, or stays in mid-change and keeps its place until it is "
        sentence += "undone"
    return Done(row=row, sentence=sentence)


def undo(
    ledger: Ledger, rollout: str, actor: str, reason: str, *, others: bool = False, restored: Sequence[str] = ()
) -> Done:
    """Ask for everything that a held, aborted or completed rollout changed to be put back by its next run.

    Undos that failed are tried once more, each under a new generation. Targets that a later rollout changed are left
    alone by that run. Refused while another rollout of the policy is open, because a policy has one open rollout, and
    where changed targets cannot be undone: ``others`` undoes the rest, ``restored`` names those that the person has
    brought back, which the run looks at before it believes that. Raises TransitionRefused, LedgerError.
    """
    said = why(actor, reason)
    before = known(ledger, rollout)
    at_work = [
        item.id
        for item in ledger.rollouts(policy=before.policy, open_only=True, limit=MOST)
        if item.id != rollout and item.emergency == before.emergency
    ]
    if before.state in FINAL and S.UNDOING in TRANSITIONS[before.state] and at_work:
        raise TransitionRefused(
            f"rollout {at_work[0]} of the same policy is open, and a policy has one open rollout: {rollout} is not "
            f"undone. Let {at_work[0]} end, or abort it, first"
        )
    stays = _refuse_irreversible(ledger, rollout, restored, others=others)
    row = move(ledger, rollout, S.UNDOING, f"undo asked for by {said}", actor, (S.HELD, S.ABORTED, S.COMPLETED))
    ledger.append_all([_restored(ledger, rollout, name, actor, said) for name in restored])
    again = [item for item in ledger.targets(rollout) if item.undo_outcome in NOT_UNDONE and item.target not in stays]
    if again:
        ledger.append_all([_undo_again(item, actor, said) for item in again])
    _be_quiet(ledger, rollout)
    more = f"; the failed undo of {names([item.target for item in again])} is tried once more" if again else ""
    left = f"; {names(sorted(stays))} stays changed, because it cannot be undone" if stays else ""
    return Done(
        row=row,
        sentence=f"{rollout} is being undone: its next run, or patch_reconcile, puts back what it changed{more}{left}",
    )


def _refuse_irreversible(ledger: Ledger, rollout: str, restored: Sequence[str], *, others: bool) -> dict[str, str]:
    """Give the changed targets that stay as they are, with the reasons; raises TransitionRefused, LedgerError."""
    try:
        plan = plan_in(ledger, rollout)
    except PlanRefused as error:
        raise TransitionRefused(f"nothing was undone: {error}") from error
    if plan is None:
        return {}
    moved = {item.target for item in changed(ledger, rollout)}
    wrong = sorted(set(restored) - moved)
    if wrong:
        raise LedgerError(f"{names(wrong)} is no target that {rollout} has changed: nothing was written")
    known = proof(ledger, plan)
    stays = staying(plan, moved, known.model_copy(update={"restored": known.restored | set(restored)}))
    if stays and not (others and len(stays) < len(moved)):
        rest = "undo only the rest (--others), or " if len(stays) < len(moved) else ""
        raise TransitionRefused(
            f"nothing was undone: {told(stays)}. There is no proof that it can be: {rest}restore those targets from "
            f"their backup and name them (--restored TARGET) ({RUNBOOK})"
        )
    return stays


def _restored(ledger: Ledger, rollout: str, name: str, actor: str, said: str) -> NewEntry:
    number = len(ledger.entries(rollout, kinds=[EntryKind.RESTORED], target=name)) + 1
    return NewEntry(
        chain=rollout,
        kind=EntryKind.RESTORED,
        key=f"restored:{name}:{number}",
        target=name,
        actor=actor,
        body={"reason": f"restored, as {said}"},
    )


def _undo_again(row: TargetRow, actor: str, said: str) -> NewEntry:
    number = row.generation + 1
    body = {"generation": number, "reason": f"undo tried again by {said}", "reopen": False, "reopen_undo": True}
    key = f"generation:{row.target}:{number}"
    return NewEntry(
        chain=row.rollout, kind=EntryKind.GENERATION_RAISED, key=key, target=row.target, actor=actor, body=body
    )


def stop_all(ledger: Ledger, actor: str, reason: str, *, on: bool = True) -> Done:
    """Turn the one stop switch on or off: while it is on, no step of a change begins anywhere.

    Steps that run on a target end there; undo and the leaving of hooks go on. Turning it on again is allowed and
    renews the reason; turning off what is off is refused. Raises TransitionRefused, LedgerError.
    """
    said = why(actor, reason)
    for _ in range(TRIES):
        if not on and ledger.stopped() is None:
            raise TransitionRefused("the stop switch is off already: nothing is stopped by it")
        number = len(ledger.entries(CONTROL, kinds=[EntryKind.STOP_SWITCH])) + 1
        body = {"on": on, "reason": said if on else f"released by {said}", "number": number}
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


def _only_held(row: RolloutRow, to: RolloutState) -> None:
    if row.state is S.HELD:
        return
    check_transition(row.id, row.state, to)
    raise TransitionRefused(f'rollout {row.id} is "{row.state}", not held: nobody needs to let it go on')


def _instead(verdict: VerdictName) -> str:
    if verdict in PROMOTABLE:
        return "Promote the wave if you answer for it, undo it, or abort and plan anew"
    return "Undo it, or abort and plan anew"


def _held_wave(ledger: Ledger, rollout: str, wave: int | None) -> LedgerEntry:
    """Find the verdict of the one wave that may be promoted; raises TransitionRefused with the reason."""
    open_waves = [item for item in verdicts(ledger, rollout) if item[1] is not VerdictName.PROMOTE]
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


def _changing(ledger: Ledger, rollout: str, busy: list[str]) -> list[str]:
    """Name those of the busy targets on which more than reading, entering hooks and downloading has begun."""
    harmless = (Phase.PROBE.value, Phase.ENTER.value, Phase.PREPARE.value, Phase.LEAVE.value)
    begun = {
        intent.target
        for intent in ledger.intents(rollout=rollout, open_only=False)
        if intent.step["phase"] not in harmless
    }
    return [name for name in busy if name in begun]


def _be_quiet(ledger: Ledger, rollout: str) -> None:
    """Take back the sentence of what a rollout waited for: it waits for a person, or for nothing, now."""
    said = [entry for entry in ledger.entries(rollout, kinds=[EntryKind.WAITS]) if entry.target is None]
    if said and said[-1].body.get("sentence"):
        body = {"sentence": ""}
        ledger.append(NewEntry(chain=rollout, kind=EntryKind.WAITS, key=f"waits:quiet:{said[-1].seq}", body=body))
