"""Standstill: places that nobody will give back while a job waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patching.change import Outcome
from patching.ledger.base import Claim, Lease, RolloutRow, TargetRow
from patching.rollout.record import Record
from patching.rollout.states import FINAL, RolloutState


async def held_for_good(record: Record, claims: Iterable[Claim]) -> str | None:
    """Say which of these resources is full of targets that nobody will free: waiting for it would never end.

    Those are targets whose outcome is unknown until a person looks (of another rollout: where nobody works on them any
    more); those in mid-change of another rollout that is held, or over; and, once the rollout no longer runs, those on
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
        resting = await _resting(record, holders)
        if len({*unknown, *resting}) >= claim.limit:
            return f"{claim.kind} {claim.name} has no place left: {'; '.join(list(resting.values())[:2])}"
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


def why_kept(row: TargetRow, rollout: RolloutRow, *, mine: bool) -> str | None:
    """Say why nobody who works will give back the place of a target on which nobody works, and what a person does."""
    if Outcome.UNKNOWN in (row.outcome, row.undo_outcome):
        return f"nobody knows what became of {row.target}: look at it, then `patching release {row.target} --reason …`"
    if row.began_at is None or row.outcome is not None:
        return None
    if mine:
        return f"{row.target} is in mid-change, and only the next run goes on with it"
    if rollout.state is not RolloutState.HELD and rollout.state not in FINAL:
        return None
    stands = f'its rollout {rollout.id} is "{rollout.state.value}"'
    return f"{row.target} is in mid-change, and {stands}: a person decides, see `patching status {rollout.id}`"


async def _resting(record: Record, holders: Sequence[Lease]) -> dict[str, str]:
    """Give the targets of other rollouts that only a person lets go on, with why."""
    found: dict[str, str] = {}
    now = await record.call(record.site.ledger.now)
    for lease in holders:
        if lease.rollout == record.rollout or lease.expires_at > now:
            continue
        row = await record.call(record.site.ledger.target, lease.rollout, lease.target)
        rollout = await record.call(record.site.ledger.rollout, lease.rollout)
        why = why_kept(row, rollout, mine=False) if row is not None and rollout is not None else None
        found |= {lease.target: why} if why is not None else {}
    return found
