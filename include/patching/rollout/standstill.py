"""Standstill: places that are held by targets whose outcome is unknown are not given back until a person looks."""

from __future__ import annotations

from collections.abc import Iterable

from patching.change import Outcome
from patching.ledger.base import Claim
from patching.rollout.record import Record


async def held_for_good(record: Record, claims: Iterable[Claim]) -> str | None:
    """Say which of these resources is full of targets whose outcome is unknown: waiting for it would never end.

    None where waiting can help. Raises LedgerUnavailable.
    """
    ledger = record.site.ledger
    leases = await record.call(ledger.leases)
    for claim in claims:
        holders = [
            lease
            for lease in leases
            if any((item.kind, item.name) == (claim.kind, claim.name) for item in lease.claims)
        ]
        if len(holders) < claim.limit:
            continue
        rows = [await record.call(ledger.target, lease.rollout, lease.target) for lease in holders]
        unknown = [row.target for row in rows if row is not None and row.outcome is Outcome.UNKNOWN]
        if len(unknown) >= claim.limit:
            return (
                f"{claim.kind} {claim.name} has no place left: nobody knows what became of {', '.join(unknown[:4])}, "
                "and a person must look before more begins"
            )
    return None
