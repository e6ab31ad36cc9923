"""Leases: who may work on a target, and how much of each shared resource is in use, by the ledger's clock.

Expiry moves *ownership*, never *capacity*: a lease counts until it is released, because nobody knows what a worker that
fell silent left behind. An owner that comes back after a takeover is stopped by its epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from patching.errors import FenceLost
from patching.ledger import lease_queue, schema
from patching.ledger.base import Busy, Claim, Lease
from patching.ledger.entry import EntryKind, NewEntry
from patching.ledger.recorder import Recorder, held_lease, lost
from patching.value import digest

LEASE, CLAIM = schema.lease.c, schema.lease_claim.c

# Made once: building a statement costs more than running it.
_PLACE = (LEASE.rollout == sa.bindparam("in_rollout"), LEASE.target == sa.bindparam("of_target"))
_CURRENT = sa.select(schema.lease).where(*_PLACE, LEASE.released.is_(sa.false()))
_LAST_EPOCH = sa.select(sa.func.max(LEASE.epoch)).where(*_PLACE)
_CLAIMS_OF = (
    sa.select(schema.lease_claim).where(CLAIM.lease == sa.bindparam("of_lease")).order_by(CLAIM.kind, CLAIM.name)
)
_BY_ID = sa.select(schema.lease).where(LEASE.id == sa.bindparam("of_lease"))
_HOLDERS = (
    sa.select(CLAIM.max_holders, LEASE.id, LEASE.rollout, LEASE.target)
    .join(schema.lease, LEASE.id == CLAIM.lease)
    .where(CLAIM.kind == sa.bindparam("of_kind"), CLAIM.name == sa.bindparam("of_name"), LEASE.released.is_(sa.false()))
    .order_by(LEASE.rollout, LEASE.target)
)

SHORTEST_WAIT = 5.0
"""Seconds for which who adds to a lease keeps its place in the queue, even where the lease is about to expire."""


def acquire(
    recorder: Recorder, owner: str, rollout: str, target: str, claims: Sequence[Claim], *, ttl: float
) -> Lease | Busy:
    """Take, renew or take over the lease of a target in a rollout; all claims or none."""
    connection = recorder.connection
    expires = recorder.now + timedelta(seconds=ttl)
    row = _current(connection, rollout, target)
    if row is not None and row.owner != owner and datetime.fromisoformat(row.expires_at) > recorder.now:
        return Busy(kind="target", name=target, limit=1, holders=(row.owner,))
    held = None if row is None else _lease(connection, row)
    wanted = _merged(() if held is None else held.claims, claims)
    busy = _in_turn(recorder, held, (owner, rollout, target), wanted, ttl)
    if busy is not None:
        return busy
    if held is None:
        return _take(recorder, owner, rollout, target, wanted, expires)
    if held.owner == owner:
        return _renew(recorder, held, wanted, expires)
    lease = held.model_copy(update={"owner": owner, "epoch": held.epoch + 1, "claims": wanted, "expires_at": expires})
    _record(recorder, EntryKind.LEASE_TAKEN_OVER, lease, taken_from=held.owner)
    return lease


def extend(recorder: Recorder, lease: Lease, claims: Sequence[Claim]) -> Lease | Busy:
    """Add claims to a held lease, all or none; raises FenceLost."""
    held = _owned(recorder.connection, lease, "no claim was added")
    wanted = _merged(held.claims, claims)
    left = max((held.expires_at - recorder.now).total_seconds(), SHORTEST_WAIT)
    busy = _in_turn(recorder, held, (held.owner, held.rollout, held.target), wanted, left)
    return busy or _renew(recorder, held, wanted, held.expires_at)


def heartbeat(recorder: Recorder, lease: Lease, *, ttl: float) -> Lease:
    """Prolong a lease; raises FenceLost. Writes no entry: a heartbeat is not worth keeping for ever."""
    held = _owned(recorder.connection, lease, "it was not prolonged")
    return _prolong(recorder, held, recorder.now + timedelta(seconds=ttl))


def release(recorder: Recorder, lease: Lease) -> None:
    """End a lease; once more is no error, but somebody else's lease (another epoch) raises FenceLost."""
    row = recorder.connection.execute(_BY_ID, {"of_lease": lease.id}).first()
    if row is None or row.epoch != lease.epoch:
        held = None if row is None or row.released else row
        raise FenceLost(lost(lease.id, lease.epoch, held, "it was not released"))
    if row.released:
        return
    body = {"lease": row.id, "owner": row.owner, "epoch": row.epoch}
    key = f"lease_ended:{row.id}"
    recorder.append(NewEntry(chain=row.rollout, kind=EntryKind.LEASE_ENDED, key=key, target=row.target, body=body))


def all_held(connection: sa.Connection) -> list[Lease]:
    """List every lease that was not released, expired or not."""
    rows = connection.execute(
        sa.select(schema.lease).where(LEASE.released.is_(sa.false())).order_by(LEASE.rollout, LEASE.target)
    ).all()
    claims: dict[str, list[Claim]] = {}
    for claim in connection.execute(sa.select(schema.lease_claim).order_by(CLAIM.kind, CLAIM.name)):
        claims.setdefault(claim.lease, []).append(Claim(kind=claim.kind, name=claim.name, limit=claim.max_holders))
    return [_value(row, tuple(claims.get(row.id, ()))) for row in rows]


def first_full(connection: sa.Connection, own: Lease | None, claims: Sequence[Claim]) -> Busy | None:
    """Find the first claim that has no room; ``own`` does not count against itself.

    The tightest limit counts, of the claim and of everybody who holds the resource: whoever was promised to be the
    only one stays the only one.
    """
    for claim in claims:
        resource = {"of_kind": claim.kind, "of_name": claim.name}
        others = [row for row in connection.execute(_HOLDERS, resource) if own is None or row.id != own.id]
        limit = min([claim.limit, *(row.max_holders for row in others)])
        if len(others) >= limit:
            holders = tuple(f"{row.target} (rollout {row.rollout})" for row in others)
            return Busy(kind=claim.kind, name=claim.name, limit=limit, holders=holders)
    return None


def _in_turn(
    recorder: Recorder, held: Lease | None, who: tuple[str, str, str], wanted: Sequence[Claim], ttl: float
) -> Busy | None:
    """Say what is full, or who asked earlier; whoever is told so stands in the queue from then on."""
    owner, rollout, target = who
    claims = _added(() if held is None else held.claims, wanted)
    busy = first_full(recorder.connection, held, claims)
    if busy is None and claims:
        busy = lease_queue.overtaken(recorder, rollout, target, claims, holds=held is not None)
    if busy is None:
        lease_queue.leave(recorder.connection, rollout, target)
    else:
        lease_queue.ask(recorder, owner, rollout, target, claims, ttl=ttl, holds=held is not None)
    return busy


def _take(
    recorder: Recorder, owner: str, rollout: str, target: str, claims: tuple[Claim, ...], expires: datetime
) -> Lease:
    lease = Lease(
        id=digest([rollout, target, recorder.next_seq(rollout)])[:32],
        owner=owner,
        # Above every earlier epoch, so that a host that compares epochs is never fooled by a new lease.
        epoch=_last_epoch(recorder.connection, rollout, target) + 1,
        rollout=rollout,
        target=target,
        claims=claims,
        expires_at=expires,
    )
    _record(recorder, EntryKind.LEASE_TAKEN, lease)
    return lease


def _renew(recorder: Recorder, held: Lease, wanted: tuple[Claim, ...], expires: datetime) -> Lease:
    if wanted == held.claims:
        return _prolong(recorder, held, expires)
    lease = held.model_copy(update={"claims": wanted, "expires_at": expires})
    _record(recorder, EntryKind.LEASE_TAKEN, lease)
    return lease


def _prolong(recorder: Recorder, held: Lease, expires: datetime) -> Lease:
    update = schema.lease.update().where(LEASE.id == held.id)
    recorder.connection.execute(update.values(expires_at=expires.astimezone(UTC).isoformat()))
    return held.model_copy(update={"expires_at": expires})


def _record(recorder: Recorder, kind: EntryKind, lease: Lease, *, taken_from: str | None = None) -> None:
    seq = recorder.next_seq(lease.rollout)
    body: dict[str, Any] = {
        "lease": lease.id,
        "owner": lease.owner,
        "epoch": lease.epoch,
        "claims": [claim.model_dump() for claim in lease.claims],
        "expires_at": lease.expires_at.astimezone(UTC).isoformat(),
    }
    if taken_from is not None:
        body["from"] = taken_from
    key = f"{kind.value}:{lease.id}:{lease.epoch}:{seq}"
    recorder.append(NewEntry(chain=lease.rollout, kind=kind, key=key, target=lease.target, body=body))


def _current(connection: sa.Connection, rollout: str, target: str) -> sa.Row[Any] | None:
    return connection.execute(_CURRENT, {"in_rollout": rollout, "of_target": target}).first()


def _last_epoch(connection: sa.Connection, rollout: str, target: str) -> int:
    return connection.execute(_LAST_EPOCH, {"in_rollout": rollout, "of_target": target}).scalar() or 0


def _owned(connection: sa.Connection, lease: Lease, consequence: str) -> Lease:
    row = held_lease(connection, lease.id)
    if row is None or row.epoch != lease.epoch:
        raise FenceLost(lost(lease.id, lease.epoch, row, consequence))
    return _lease(connection, row)


def _lease(connection: sa.Connection, row: sa.Row[Any]) -> Lease:
    found = connection.execute(_CLAIMS_OF, {"of_lease": row.id})
    claims = [Claim(kind=item.kind, name=item.name, limit=item.max_holders) for item in found]
    return _value(row, tuple(claims))


def _value(row: sa.Row[Any], claims: tuple[Claim, ...]) -> Lease:
    return Lease(
        id=row.id,
        owner=row.owner,
        epoch=row.epoch,
        rollout=row.rollout,
        target=row.target,
        claims=claims,
        expires_at=datetime.fromisoformat(row.expires_at),
    )


def _merged(held: Sequence[Claim], more: Sequence[Claim]) -> tuple[Claim, ...]:
    """Join two sets of claims, one per resource, in the order in which they are stored; the tighter limit wins."""
    found: dict[tuple[str, str], Claim] = {}
    for claim in (*held, *more):
        place = (claim.kind, claim.name)
        if place not in found or claim.limit < found[place].limit:
            found[place] = claim
    return tuple(found[place] for place in sorted(found))


def _added(held: Sequence[Claim], wanted: Sequence[Claim]) -> tuple[Claim, ...]:
    """Give the claims that are new, or promise more than before (a tighter limit)."""
    return tuple(claim for claim in wanted if claim not in held)
