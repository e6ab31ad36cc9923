"""Emergency runs: a typed request, and the transfer of targets from the rollouts they overlap with."""

from __future__ import annotations

from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.document import Plan
from patching.rollout.site import Site


def supersede_overlap(site: Site, plan: Plan) -> list[str]:
    """Take the emergency's targets over from other open rollouts that have not begun them; says what was taken.

    A target in flight elsewhere is not taken: its lease keeps the emergency waiting until it has settled.
    """
    names = {item.target.name for item in plan.targets}
    said = []
    for row in site.ledger.rollouts(open_only=True):
        if row.id == plan.rollout or row.plan_digest is None:
            continue
        found = [item.target for item in site.ledger.targets(row.id) if item.target in names and item.began_at is None]
        taken = sorted(name for name in found)
        if not taken:
            continue
        body = {"targets": taken, "by": plan.rollout}
        key = f"superseded-by:{plan.rollout}"
        site.ledger.append(NewEntry(chain=row.id, kind=EntryKind.SUPERSEDED_TARGETS, key=key, body=body))
        said.append(f"{len(taken)} targets taken over from rollout {row.id}")
    return said


def record_emergency(site: Site, plan: Plan, reason: str, actor: str | None) -> None:
    """Write down who asked for the emergency, why, and what the policy lets it pass."""
    passes = plan.policy.spec.emergency.ignore
    body = {"reason": reason, "passes": list(passes), "targets": [item.target.name for item in plan.targets]}
    site.ledger.append(NewEntry(chain=plan.rollout, kind=EntryKind.EMERGENCY, key="emergency", actor=actor, body=body))
