"""The queue before leases: whoever asked earlier is not overtaken for ever, by the ledger's clock and in its order.

A waiter keeps its place as long as it asks again; one that fell silent (longer than its ``ttl``) reserves nothing.
Waiters are no entries: who waited for what is of interest while it waits, and its sentence is written down anyway.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from patching.ledger import schema
from patching.ledger.base import Busy, Claim, Waiter
from patching.ledger.recorder import Recorder

WAIT, LEASE, CLAIM = schema.lease_wait.c, schema.lease.c, schema.lease_claim.c

# Made once: building a statement costs more than running it.
_MINE = (WAIT.rollout == sa.bindparam("in_rollout"), WAIT.target == sa.bindparam("of_target"))
_LEAVE = schema.lease_wait.delete().where(*_MINE)
_LIVING = sa.select(schema.lease_wait).where(WAIT.expires_at > sa.bindparam("now")).order_by(WAIT.place)
_LIVING_HOLDERS = _LIVING.where(WAIT.holds.is_(sa.true()))

FORGOTTEN = timedelta(hours=1)
"""How long the place of a silent waiter is kept, in case it was only cut off."""

Resource = tuple[str, str]


class _Holder(NamedTuple):
    rollout: str
    target: str
    limit: int
    silent: bool


def overtaken(recorder: Recorder, rollout: str, target: str, claims: Sequence[Claim], *, holds: bool) -> Busy | None:
    """Say which earlier waiter would be overtaken if these claims were given now; None where nobody would.

    The earliest waiters reserve a place in everything that they want, of each resource at most as many as it has
    places, so that those who wait for one scarce resource do not keep the others empty. One that waits for what
    silent owners fill (their targets' outcomes are unknown) reserves nothing: that may take for ever. ``holds``: who
    holds a lease already and adds to it only queues behind its like, or both would wait for each other.
    """
    earlier = _earlier(recorder, rollout, target, holds)
    if not earlier:
        return None
    holders = _holders(recorder.connection, recorder.now)
    reserved = _reserved(earlier, holders)
    for claim in claims:
        place = (claim.kind, claim.name)
        first = reserved.get(place, [])
        others = [item for item in holders[place] if (item.rollout, item.target) != (rollout, target)]
        limit = min([claim.limit, *(item.limit for item in others), *(limit for _, limit in first)])
        inside = {(item.rollout, item.target) for item in others}
        queue = [waiter for waiter, _ in first if (waiter.rollout, waiter.target) not in inside]
        if first and len(others) + len(queue) >= limit:
            said = [f"{item.target} (rollout {item.rollout})" for item in others]
            said += [f"{waiter.target} (rollout {waiter.rollout}, asked earlier)" for waiter in queue]
            return Busy(kind=claim.kind, name=claim.name, limit=limit, holders=tuple(said))
    return None


def ask(
    recorder: Recorder, owner: str, rollout: str, target: str, claims: Sequence[Claim], *, ttl: float, holds: bool
) -> None:
    """Write down who waits for what; the place in the queue stays that of the first asking."""
    connection, now = recorder.connection, recorder.now
    mine = (WAIT.rollout == rollout, WAIT.target == target)
    wanted = json.dumps([claim.model_dump() for claim in claims], sort_keys=True)
    row = connection.execute(sa.select(schema.lease_wait).where(*mine)).first()
    changes = {"owner": owner, "claims": wanted, "holds": holds, "expires_at": _text(now + timedelta(seconds=ttl))}
    if row is None:
        connection.execute(schema.lease_wait.delete().where(WAIT.expires_at < _text(now - FORGOTTEN)))
        last = connection.execute(sa.select(sa.func.max(WAIT.place))).scalar() or 0
        new = {"rollout": rollout, "target": target, "place": last + 1, "since": _text(now), **changes}
        connection.execute(schema.lease_wait.insert().values(new))
        return
    # Most asking changes nothing: a write for each would keep the disk busy with waiting.
    fresh = datetime.fromisoformat(row.expires_at) > now + timedelta(seconds=ttl / 2)
    if not fresh or (row.owner, row.claims, row.holds) != (owner, wanted, holds):
        connection.execute(schema.lease_wait.update().where(*mine).values(changes))


def leave(connection: sa.Connection, rollout: str, target: str) -> None:
    """Take a target out of the queue: it has what it wanted, or needs it no more."""
    connection.execute(_LEAVE, {"in_rollout": rollout, "of_target": target})


def waiting(connection: sa.Connection, now: datetime) -> list[Waiter]:
    """List who waits now, the earliest first."""
    return [_waiter(row) for row in connection.execute(_LIVING, {"now": _text(now)})]


def since(connection: sa.Connection) -> dict[str, datetime]:
    """Say since when each held lease is held, by its first entry; a takeover does not begin it anew."""
    entry = schema.entry.c
    query = (
        sa.select(entry.body, entry.at)
        .join(schema.lease, (LEASE.rollout == entry.chain) & (LEASE.target == entry.target))
        .where(LEASE.released.is_(sa.false()), entry.kind == "lease_taken")
        .order_by(entry.position)
    )
    found: dict[str, datetime] = {}
    for row in connection.execute(query):
        found.setdefault(str(json.loads(row.body)["lease"]), datetime.fromisoformat(row.at))
    return found


def _earlier(recorder: Recorder, rollout: str, target: str, holds: bool) -> list[Waiter]:
    """List the living waiters before this one, or all where it has not asked yet."""
    query = _LIVING_HOLDERS if holds else _LIVING
    found = []
    for row in recorder.connection.execute(query, {"now": _text(recorder.now)}):
        if (row.rollout, row.target) == (rollout, target):
            break
        found.append(_waiter(row))
    return found


def _holders(connection: sa.Connection, now: datetime) -> dict[Resource, list[_Holder]]:
    query = (
        sa.select(CLAIM.kind, CLAIM.name, CLAIM.max_holders, LEASE.rollout, LEASE.target, LEASE.expires_at)
        .join(schema.lease, LEASE.id == CLAIM.lease)
        .where(LEASE.released.is_(sa.false()))
        .order_by(LEASE.rollout, LEASE.target)
    )
    found: dict[Resource, list[_Holder]] = defaultdict(list)
    for row in connection.execute(query):
        silent = datetime.fromisoformat(row.expires_at) <= now
        found[row.kind, row.name].append(_Holder(row.rollout, row.target, row.max_holders, silent))
    return found


def _reserved(
    earlier: Sequence[Waiter], holders: dict[Resource, list[_Holder]]
) -> dict[Resource, list[tuple[Waiter, int]]]:
    """Give the waiters that have a place reserved in each resource, with the limit that they ask for there."""
    reserved: dict[Resource, list[tuple[Waiter, int]]] = defaultdict(list)
    for waiter in earlier:
        if all(_may_reserve(claim, holders, reserved) for claim in waiter.claims):
            for claim in waiter.claims:
                reserved[claim.kind, claim.name].append((waiter, claim.limit))
    return reserved


def _may_reserve(
    claim: Claim, holders: dict[Resource, list[_Holder]], reserved: dict[Resource, list[tuple[Waiter, int]]]
) -> bool:
    place = (claim.kind, claim.name)
    limit = min([claim.limit, *(item.limit for item in holders[place]), *(limit for _, limit in reserved[place])])
    stuck = sum(item.silent for item in holders[place]) >= limit
    return not stuck and len(reserved[place]) < limit


def _waiter(row: sa.Row[Any]) -> Waiter:
    return Waiter(
        rollout=row.rollout,
        target=row.target,
        owner=row.owner,
        since=datetime.fromisoformat(row.since),
        claims=tuple(Claim(**item) for item in json.loads(row.claims)),
        holds=row.holds,
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
