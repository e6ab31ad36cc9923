"""Shares of the bound: how many a wave's judgement has to share with, also when a retry has reopened the wave."""

from __future__ import annotations

from patching.canary.weights import guarded, reopened_looks
from patching.ledger.base import Ledger
from patching.ledger.entry import EntryKind
from patching.plan.document import Plan


def looks_for(ledger: Ledger, plan: Plan, wave: int) -> int:
    """Give k of the share 1/k that each judgement of a wave has now: soak, guard and every dependent service.

    A wave that is judged anew after a retry has spent its own share; it takes from the plan's reserve for retries.
    """
    number = last_reopening(ledger, plan.rollout, wave)
    found = plan.wave(wave)
    if not number or found is None:
        return plan.looks
    parts = 1 + guarded(plan.policy.spec.verify, len(found.targets)) + len(plan.dependents(wave))
    return reopened_looks(plan.looks, number, parts)


def last_reopening(ledger: Ledger, rollout: str, wave: int) -> int:
    """Give the number of a wave's last reopening among all of its rollout, from 1; 0 where it was never reopened."""
    entries = ledger.entries(rollout, kinds=[EntryKind.WAVE_REOPENED])
    return max((number for number, entry in enumerate(entries, 1) if entry.body.get("wave") == wave), default=0)
