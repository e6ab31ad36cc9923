"""Past jobs: what the ledger knows of how long jobs take, of the policy itself and of others with its driver."""

from __future__ import annotations

from patching.ledger.base import Ledger
from patching.plan.durations import ENOUGH, Known
from patching.policy import Policy

LATEST = 200
"""Rollouts in which other policies with the same driver are looked for."""


def known_jobs(ledger: Ledger, policy: Policy) -> Known:
    """Give the policy's own past jobs, and those of other policies with its driver while its own are too few.

    Raises LedgerUnavailable.
    """
    own = tuple(ledger.past_jobs(policy.name))
    if min(sum(job.rebooted for job in own), sum(not job.rebooted for job in own)) >= ENOUGH:
        return Known(own=own)
    others: dict[str, str] = {}
    for row in ledger.rollouts(limit=LATEST):
        if row.policy != policy.name:
            others.setdefault(row.policy, row.id)
    alike = [name for name, rollout in others.items() if _driver(ledger, rollout) == policy.spec.driver.name]
    return Known(own=own, alike=tuple(job for name in alike for job in ledger.past_jobs(name)))


def _driver(ledger: Ledger, rollout: str) -> str | None:
    entry = ledger.find(rollout, "policy")
    if entry is None:
        return None
    return str(ledger.document(entry.body["policy"])["spec"]["driver"]["name"])
