"""Standstill: places that nobody will give back while a job waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patching.change import Outcome
from patching.ledger.base import Claim, Lease
from patching.rollout.record import Record
from patching.rollout.states import RolloutState


async def held_for_good(record: Record, claims: Iterable[Claim]) -> str | None:
    """Say which of these resources is full of targets that nobody will free: waiting for it would never end.

    Those are targets whose outcome is unknown until a person looks (of another rollout: where nobody works on them any
    more), and, once the rollout no longer runs, those on
    which nobody works any more: they wait for their next try, which only the next run begins. None where waiting can
    help. Raises LedgerUnavailable.
    """
    leases = await record.call(record.site.ledger.leases)
    for claim in claims:
        holders = [
            lease
            for lease in leases
            if any((item.kind, item.name) == (claim.kind, claim.name) for item in lease.claims)
        ]
        if len(holders) < claim.limit:
            continue
        unknown = await _unknown(record, holders)
        if len(unknown) >= claim.limit:
            return (
                f"{claim.kind} {claim.name} has no place left: nobody knows what became of {', '.join(unknown[:4])}, "
                "and a person must look before more begins"
            )
        left = await _left(record, holders)
        if len({*unknown, *left}) >= claim.limit:
            return (
                f"{claim.kind} {claim.name} has no place left: {', '.join(left[:4])} waits there for the next run, and "
                "so does this target, because the rollout no longer runs"
            )
    return None


async def _unknown(record: Record, holders: Sequence[Lease]) -> list[str]:
    now = await record.call(record.site.ledger.now)
    left = [lease for lease in holders if lease.rollout == record.rollout or lease.expires_at <= now]
    rows = [await record.call(record.site.ledger.target, lease.rollout, lease.target) for lease in left]
    return [row.target for row in rows if row is not None and row.outcome is Outcome.UNKNOWN]


async def _left(record: Record, holders: Sequence[Lease]) -> list[str]:
    row = await record.call(record.site.ledger.rollout, record.rollout)
    if row is not None and row.state is RolloutState.RUNNING:
        return []
    now = await record.call(record.site.ledger.now)
    return [lease.target for lease in holders if lease.expires_at <= now]
