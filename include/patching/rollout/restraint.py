"""Restraint: what a bad verdict may not do by itself: undo against the policy, or what cannot be undone."""

from __future__ import annotations

from patching.canary.verdicts import WaveVerdict
from patching.ledger.base import RolloutRow
from patching.ledger.entry import LedgerEntry
from patching.plan.document import Plan
from patching.rollout.answers import VerdictName
from patching.rollout.incidents import open_incident
from patching.rollout.reversibility import RUNBOOK, changed, told, what_stays
from patching.rollout.site import Site


def restrained(site: Site, plan: Plan, verdict: WaveVerdict) -> tuple[WaveVerdict, dict[str, str]]:
    """Turn an undo into a hold where the policy wants a person to decide, or where targets cannot be undone.

    Gives those targets, too, with the reasons. With ``onFailure.irreversible: undo-others`` it stays an undo as long as
    there is any other target.
    """
    if verdict.verdict is not VerdictName.UNDO:
        return verdict, {}
    rules = plan.policy.spec.on_failure
    if rules.undo == "never":
        return _held_for(verdict, "the policy says onFailure.undo: never, so a person must decide"), {}
    stays = what_stays(site.ledger, plan)
    if not stays:
        return verdict, {}
    if rules.irreversible == "undo-others" and len(stays) < len(changed(site.ledger, plan.rollout)):
        return verdict.model_copy(update={"reason": f"{verdict.reason}; not undone: {told(stays)}"}), stays
    return _held_for(verdict, f"nothing is undone, because {told(stays)} ({RUNBOOK})"), stays


def _held_for(verdict: WaveVerdict, why: str) -> WaveVerdict:
    return verdict.model_copy(update={"verdict": VerdictName.HOLD, "reason": f"{verdict.reason}; {why}"})


def lock_irreversible(site: Site, row: RolloutRow, written: LedgerEntry) -> None:
    """Open the incident of a bad verdict on what cannot be undone, before the state follows: a crash opens it again."""
    stays: dict[str, str] = dict(written.body.get("irreversible") or {})
    if stays:
        open_incident(
            site.ledger,
            f"irreversible-{row.id}-{written.seq}",
            rollout=row.id,
            policy=row.policy,
            cause=f"wave {written.body['wave']} was judged bad, and {told(stays)}",
            targets=sorted(stays),
            runbook=RUNBOOK,
        )
