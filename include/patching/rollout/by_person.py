"""By a person: what every decision of a person shares: a name and a reason, a rollout that exists, one allowed move."""

from __future__ import annotations

from patching.errors import LedgerError, TransitionRefused
from patching.ledger.base import Ledger, RolloutRow
from patching.ledger.entry import EntryKind
from patching.rollout.states import RolloutState, ways
from patching.value import Value

LONGEST_REASON = 400


class Done(Value):
    """What was written down: the rollout afterwards (None: it is about no rollout), and what that means in a sentence.

    ``goes_on`` says whether a run should be triggered to carry it out.
    """

    row: RolloutRow | None = None
    sentence: str
    goes_on: bool = True


def why(actor: str, reason: str) -> str:
    """Give ``who: why`` as it is kept; raises LedgerError where either is missing, and then nothing was written."""
    words = " ".join(reason.split())
    if not actor.strip() or not words:
        raise LedgerError("a person's decision needs a name and a reason: nothing was written")
    return f"{actor}: {words[:LONGEST_REASON]}"


def known(ledger: Ledger, rollout: str) -> RolloutRow:
    """Read a rollout that must exist; raises LedgerError."""
    row = ledger.rollout(rollout)
    if row is None:
        raise LedgerError(f"the ledger has no rollout {rollout}: nothing was written; check the id")
    return row


def move(
    ledger: Ledger, rollout: str, to: RolloutState, reason: str, actor: str, only_from: tuple[RolloutState, ...]
) -> RolloutRow:
    """Change a rollout's state in a person's name; raises TransitionRefused, also where it is there already."""
    current = known(ledger, rollout).state
    if current is to:
        raise TransitionRefused(f'rollout {rollout} is "{to}" already; from there: {ways(to)}')
    return ledger.transition(rollout, to, reason=reason, actor=actor, only_from=only_from)


def not_undone(ledger: Ledger, rollout: str) -> None:
    """Refuse to let a rollout go on that has begun to undo what it changed; raises TransitionRefused."""
    moves = ledger.entries(rollout, kinds=[EntryKind.TRANSITION])
    if any(entry.body.get("to") == RolloutState.UNDOING for entry in moves):
        raise TransitionRefused(
            f"rollout {rollout} has begun to undo what it changed, so it does not go on: ask for the undo again, or "
            "abort it and plan anew"
        )
