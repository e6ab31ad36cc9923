"""What stays changed when a rollout is undone: targets whose patches cannot be taken back, and what hangs on them.

An undo walks back the way that the rollout came, and stops where it cannot go on. Proof lifts what people declared: a
rollback drill with the same patches in the same rollout (``drill``), or a person who has restored the target
(``restored``); that one is looked at before anything is believed. Nothing lifts what the driver found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from patching.change import Irreversible, Outcome, Phase
from patching.ledger.base import Ledger, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry
from patching.plan.document import Plan, PlannedTarget
from patching.plan.order import CLUSTER, SERVICE, pair_of
from patching.plan.reversibility import sentence
from patching.policy import RolloutRules
from patching.report.sentences import names
from patching.target import Target
from patching.value import Value

RUNBOOK = "docs/runbooks/cannot-be-undone.md"
PROVEN = "drill:proven"
PROOFS = (EntryKind.DRILL, EntryKind.RESTORED)
BACK = (Outcome.UNDONE, Outcome.SKIPPED)
_CHANGING = (Phase.APPLY.value, Phase.ACTIVATE.value)


class Proof(Value):
    """What the ledger has for an undo: patches that a drill has brought back, and targets that a person restored."""

    drilled: frozenset[tuple[str, str | None, str | None]] = frozenset()
    restored: frozenset[str] = frozenset()

    def obstacles(self, planned: PlannedTarget) -> tuple[Irreversible, ...]:
        """Give what still speaks against undoing a target, were it changed; a restored one has to show it."""
        changes = {patch.component: (patch.component, patch.before, patch.after) for patch in planned.patches}
        return tuple(
            item
            for item in planned.undo.irreversible
            if not (item.declared and all(changes.get(name) in self.drilled for name in item.components))
        )


def proof(ledger: Ledger, plan: Plan) -> Proof:
    """Read the proof that a rollout has by now; raises LedgerUnavailable."""
    return proof_in(ledger.entries(plan.rollout, kinds=PROOFS), plan)


def proof_in(entries: Sequence[LedgerEntry], plan: Plan) -> Proof:
    """Find the proof in entries of a rollout's chain; those of other kinds than ``PROOFS`` are ignored."""
    drilled = [plan.planned(str(entry.target)) for entry in entries if entry.key == PROVEN]
    return Proof(
        drilled=frozenset(
            (patch.component, patch.before, patch.after) for one in drilled if one is not None for patch in one.patches
        ),
        restored=frozenset(entry.target for entry in entries if entry.kind is EntryKind.RESTORED and entry.target),
    )


def changed(ledger: Ledger, rollout: str) -> list[TargetRow]:
    """Give the targets on which a step of the change itself began and that are not back."""
    rows = [row for row in ledger.targets(rollout) if row.began_at is not None and row.undo_outcome not in BACK]
    rows = [row for row in rows if row.outcome in (None, Outcome.APPLIED, Outcome.FAILED, Outcome.UNKNOWN)]
    # Whoever holds a lease may begin to change its target at any moment.
    at_work = {lease.target for lease in ledger.leases() if lease.rollout == rollout}
    return [
        row
        for row in rows
        if row.outcome is Outcome.APPLIED or (row.outcome is None and row.target in at_work) or _acted(ledger, row)
    ]


def _acted(ledger: Ledger, row: TargetRow) -> bool:
    """Say whether anything after the last undo changed the target; a failed backup leaves it untouched."""
    phases = [item.step["phase"] for item in ledger.intents(rollout=row.rollout, target=row.target, open_only=False)]
    since = len(phases) - phases[::-1].index(Phase.UNDO.value) if Phase.UNDO.value in phases else 0
    return any(phase in _CHANGING for phase in phases[since:])


def staying(plan: Plan, targets: Collection[str], found: Proof) -> dict[str, str]:
    """Say which of the changed targets must stay as they are when the rest is undone, and why.

    Those that cannot be undone; all others of their service and of their cluster, because nobody tried half of one;
    and what a service that stays depends on, because it never ran with the old one. Pure.
    """
    planned = [item for item in plan.targets if item.target.name in targets]
    own = {
        item.target.name: said
        for item in planned
        if item.target.name not in found.restored and (said := "; ".join(map(sentence, found.obstacles(item))))
    }
    rules = plan.policy.spec.rollout
    stuck: dict[str, str] = {}
    for item in planned:
        if item.target.name in own:
            for part in _parts(rules, item.target):
                stuck.setdefault(part, item.target.name)
    _spread(rules, stuck)
    mates = {
        item.target.name: f"{part} is not undone by half, and {stuck[part]} cannot be undone"
        for item in planned
        for part in reversed(_parts(rules, item.target))
        if part in stuck
    }
    return {**mates, **own}


def _parts(rules: RolloutRules, target: Target) -> list[str]:
    """Name what a target is a part of, as far as the policy or the target's labels say."""
    label = rules.service or (SERVICE if rules.depends_on else None)
    service = target.labels.get(label) if label else None
    cluster = pair_of(target)
    found = [f"service {service}"] if service else []
    return found + ([f"{CLUSTER} {cluster}"] if cluster else [])


def _spread(rules: RolloutRules, stuck: dict[str, str]) -> None:
    """Let what a stuck service depends on be stuck too, through every service in between."""
    queue = [part for part in stuck if part.startswith("service ")]
    while queue:
        part = queue.pop()
        for name in rules.depends_on.get(part.removeprefix("service "), ()):
            if (needed := f"service {name}") not in stuck:
                stuck[needed] = stuck[part]
                queue.append(needed)


def what_stays(ledger: Ledger, plan: Plan) -> dict[str, str]:
    """Say which changed targets of a rollout would stay as they are if it were undone now, each with the reason."""
    if not any(item.undo.irreversible for item in plan.targets):
        return {}
    return staying(plan, {row.target for row in changed(ledger, plan.rollout)}, proof(ledger, plan))


def told(stays: Mapping[str, str], most: int = 4) -> str:
    """Name targets with their reasons, the same reason once."""
    groups: dict[str, list[str]] = {}
    for name, reason in sorted(stays.items()):
        groups.setdefault(reason, []).append(name)
    said = [f"{names(found)}: {reason}" for reason, found in list(groups.items())[:most]]
    more = len(groups) - most
    return "; ".join(said) + (f"; and {more} more reasons" if more > 0 else "")
