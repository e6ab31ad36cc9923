"""Leases view: who holds what since when, and who waits for whom, as a document and as text for a terminal; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from patching.ledger.base import Busy, Claim, Lease, Waiter
from patching.ledger.entry import CONTROL
from patching.plan.windows import waiting_time
from patching.report.printing import printable
from patching.value import JsonValue

SCHEMA = 1
HIDDEN = "a rollout that you may not read"
SILENT = "nobody works on it now; it keeps its places until a run settles it or a person releases it"

Resource = tuple[str, str]
Document = Mapping[str, JsonValue]


def lease_view(
    held: Sequence[Lease],
    waiters: Sequence[Waiter],
    since: Mapping[str, datetime],
    now: datetime,
    *,
    readable: Callable[[str], bool] = lambda _rollout: True,
) -> dict[str, JsonValue]:
    """Make the document; ``since`` maps the id of a lease to when it was taken, waiters come the earliest first.

    Rollouts that are not ``readable`` take places and are counted, but neither they nor their targets are named.
    """
    leases = [lease for lease in held if lease.rollout != CONTROL]
    waiting = [waiter for waiter in waiters if waiter.rollout != CONTROL]
    holders: dict[Resource, list[tuple[Lease, int]]] = defaultdict(list)
    for lease in leases:
        for claim in lease.claims:
            holders[claim.kind, claim.name].append((lease, claim.limit))
    return {
        "schema_version": SCHEMA,
        "as_of": now.isoformat(),
        "held": [_held(lease, since, now, holders) for lease in leases if readable(lease.rollout)],
        "waiting": [
            _waiting(waiter, waiting[:place], holders, readable)
            for place, waiter in enumerate(waiting)
            if readable(waiter.rollout)
        ],
    }


def leases_text(view: Document) -> str:
    """Write the document for a terminal: what is held, then who waits for whom; the numbers are places in use."""
    lines = ["Held"] if view["held"] else ["nothing is held: no target is being changed"]
    for item in view["held"]:
        claims = ", ".join(_place(claim) for claim in item["claims"])
        lines.append(
            f"  {printable(item['target'])}  rollout {printable(item['rollout'])}  since {_when(item, view)}  {claims}"
        )
        lines += [f"    {SILENT}"] if not item["alive"] else []
    lines += ["", "Waiting, the earliest first"] if view["waiting"] else ["", "nobody waits"]
    for item in view["waiting"]:
        lines.append(f"  {printable(item['target'])}  rollout {printable(item['rollout'])}  since {_when(item, view)}")
        lines.append(f"    {printable(item['sentence'])}")
    return "\n".join(lines)


def _held(
    lease: Lease, since: Mapping[str, datetime], now: datetime, holders: Mapping[Resource, list[tuple[Lease, int]]]
) -> dict[str, JsonValue]:
    began = since.get(lease.id)
    return {
        "rollout": lease.rollout,
        "target": lease.target,
        "owner": lease.owner,
        "epoch": lease.epoch,
        "since": None if began is None else began.isoformat(),
        "expires_at": lease.expires_at.isoformat(),
        "alive": lease.expires_at > now,
        "claims": [_claim(claim, holders[claim.kind, claim.name]) for claim in lease.claims],
    }


def _claim(claim: Claim, held: Sequence[tuple[Lease, int]]) -> dict[str, JsonValue]:
    limit = min([claim.limit, *(limit for _, limit in held)])
    return {"kind": claim.kind, "name": claim.name, "limit": limit, "in_use": len(held)}


def _waiting(
    waiter: Waiter,
    earlier: Sequence[Waiter],
    holders: Mapping[Resource, list[tuple[Lease, int]]],
    readable: Callable[[str], bool],
) -> dict[str, JsonValue]:
    """Say what one waits for: everything that is full, or else those who asked for the same before."""
    own = (waiter.rollout, waiter.target)
    blocking = []
    for claim in waiter.claims:
        held = [item for item in holders.get((claim.kind, claim.name), ()) if (item[0].rollout, item[0].target) != own]
        if len(held) >= min([claim.limit, *(limit for _, limit in held)]):
            names = [_name(item.rollout, item.target, readable) for item, _ in held]
            blocking.append({**_claim(claim, held), "holders": names, "earlier": False})
    if not blocking:
        blocking = [found for claim in waiter.claims if (found := _behind(claim, earlier, readable)) is not None]
    return {
        "rollout": waiter.rollout,
        "target": waiter.target,
        "owner": waiter.owner,
        "since": waiter.since.isoformat(),
        "holds": waiter.holds,
        "for": blocking,
        "sentence": _sentence(blocking),
    }


def _behind(claim: Claim, earlier: Sequence[Waiter], readable: Callable[[str], bool]) -> dict[str, JsonValue] | None:
    names = [
        _name(item.rollout, item.target, readable)
        for item in earlier
        if any((other.kind, other.name) == (claim.kind, claim.name) for other in item.claims)
    ]
    if not names:
        return None
    return {
        "kind": claim.kind,
        "name": claim.name,
        "limit": claim.limit,
        "in_use": 0,
        "holders": names,
        "earlier": True,
    }


def _sentence(blocking: Sequence[Document]) -> str:
    said = []
    for item in blocking:
        if item["earlier"]:
            said.append(f"waits for its turn at {item['kind']} {item['name']}, behind {', '.join(item['holders'])}")
        else:
            busy = Busy(kind=item["kind"], name=item["name"], limit=item["limit"], holders=tuple(item["holders"]))
            said.append(busy.sentence)
    return "; ".join(said) or "asks again in a moment"


def _name(rollout: str, target: str, readable: Callable[[str], bool]) -> str:
    return f"{target} (rollout {rollout})" if readable(rollout) else HIDDEN


def _place(claim: Document) -> str:
    if claim["kind"] == "target":
        return "the target"
    return f"{printable(claim['kind'])} {printable(claim['name'])} ({claim['in_use']} of {claim['limit']})"


def _when(item: Document, view: Document) -> str:
    if item["since"] is None:
        return "an unknown time"
    since = datetime.fromisoformat(item["since"]).astimezone(UTC)
    lasted = datetime.fromisoformat(view["as_of"]) - since
    return f"{since:%Y-%m-%d %H:%M}Z ({waiting_time(lasted)})"
