"""Losses: after a target that did not come back from its reboot, none of its hardware class begins (F2, F6). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patching.change import Outcome
from patching.ledger.base import TargetRow
from patching.plan.document import Plan
from patching.report.sentences import names
from patching.rollout.budgets import Stop
from patching.rollout.causes import LOST_IN_REBOOT
from patching.target import Target


def lost_targets(rows: Iterable[TargetRow]) -> list[str]:
    """Name the targets that were lost in their reboot and are not settled."""
    return [row.target for row in rows if row.outcome is Outcome.UNKNOWN and row.signature == LOST_IN_REBOOT]


def loss_in_the_way(plan: Plan, target: Target, lost: Sequence[str]) -> Stop | None:
    """Say which loss keeps a target from beginning: one of its class, or one that nobody can tell from its class.

    A target without the label may be of any class, and so may be a lost one without it.
    """
    label = plan.policy.spec.reboot.loss_class
    own = target.labels.get(label)
    for name in lost:
        planned = plan.planned(name)
        other = planned.target.labels.get(label) if planned else None
        if own is None or other is None or own == other:
            return loss_stop(plan, [name])
    return None


def loss_stop(plan: Plan, lost: Sequence[str]) -> Stop:
    """Say that targets were lost, what of which class, and what that stops."""
    label = plan.policy.spec.reboot.loss_class
    found = {name: planned.target.labels.get(label) for name in lost if (planned := plan.planned(name))}
    classes = sorted({kind for kind in found.values() if kind is not None})
    scope = f"{label} {', '.join(classes)}" if classes and None not in found.values() else "this wave"
    verb = "has" if len(lost) == 1 else "have"
    sentence = f"{names(list(lost))} {verb} not come back from a reboot: no other of {scope} begins"
    return Stop(rule="reboot.lossClass", sentence=sentence, numbers={"lost": list(lost), "classes": classes})
