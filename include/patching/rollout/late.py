"""Late hosts: planned ones that come back are caught up with a later wave; all others are told that they wait.

Nobody is forgotten: whoever is in the inventory, is selected, and is in no plan, is named with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from patching.change import Outcome
from patching.channels.base import Channel
from patching.errors import ChannelError, TargetOffline
from patching.ledger.base import TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Exclusion, Plan, PlannedTarget
from patching.rollout.quarantine import kept_apart_elsewhere
from patching.rollout.record import Record
from patching.rollout.site import Site
from patching.target import Target
from patching.value import JsonValue, Value

WAITS = "waits for the next plan"
PASSING = {
    "offline": "was offline when it was planned",
    "login_refused": "refused the login when it was planned",
    "host_key_unknown": "had an unknown host key when it was planned",
    "host_key_changed": "had another host key when it was planned",
    "not_seen": "was not looked at when it was planned",
    "quarantined": "was in quarantine when it was planned",
    "busy": "was being changed by another rollout when it was planned",
    "domain_blocked": "could not move when it was planned",
    "service_blocked": "could not move when it was planned",
    "limit_blocked": "could not move when it was planned",
}
"""Codes of exclusions that pass by themselves: such a target is not done with, it waits."""


class Late(Value):
    """One target that this rollout does not take in, and the sentence that says so."""

    target: str
    sentence: str


def joined(plan: Plan, selected: Iterable[Target]) -> list[str]:
    """Name the selected targets that the plan has never heard of: they joined the inventory after planning."""
    known = {item.target.name for item in plan.targets} | {item.target for item in plan.exclusions}
    return sorted(target.name for target in selected if target.name not in known)


def note_joined(site: Site, plan: Plan, names: Sequence[str]) -> None:
    """Write down who joined after planning, once each."""
    noted = {entry.target for entry in site.ledger.entries(plan.rollout, kinds=[EntryKind.JOINED_LATE])}
    site.ledger.append_all(
        [
            NewEntry(
                chain=plan.rollout,
                kind=EntryKind.JOINED_LATE,
                key=f"joined:{name}",
                target=name,
                body={"reason": f"joined after planning: {WAITS}"},
            )
            for name in names
            if name not in noted
        ]
    )


def late_hosts(
    plan: Plan | None, rows: Sequence[TargetRow], entries: Sequence[LedgerEntry], *, over: bool = False
) -> list[Late]:
    """Say who waits for the next plan: who joined late, who could not be planned, who stayed offline in the last wave.

    ``entries`` are those of the rollout; other kinds than ``joined_late`` are ignored. ``over``: no wave comes.
    """
    if plan is None:
        return []
    found = {
        str(entry.target): f"joined after planning: {WAITS}" for entry in entries if entry.kind is EntryKind.JOINED_LATE
    }
    found |= {item.target: f"{PASSING[item.code]}: {WAITS}" for item in plan.exclusions if item.code in PASSING}
    for row in rows:
        if row.outcome is Outcome.OFFLINE:
            last = over or row.wave >= max(wave.index for wave in plan.waves)
            found[row.target] = f"is offline: {WAITS}" if last else "is offline: tried again with the next wave"
    return [Late(target=name, sentence=f"{name} {said}") for name, said in sorted(found.items())]


def left_out(plan: Plan | None, entries: Sequence[LedgerEntry]) -> tuple[Exclusion, ...]:
    """Give everybody whom a rollout leaves out: those of the plan, and those that joined after it was made."""
    new = tuple(
        Exclusion(target=str(entry.target), code="joined_late", reason=str(entry.body["reason"]))
        for entry in entries
        if entry.kind is EntryKind.JOINED_LATE
    )
    return (*plan.exclusions, *new) if plan is not None else new


def late_view(
    plan: Plan | None, rows: Sequence[TargetRow], entries: Sequence[LedgerEntry], *, over: bool = False
) -> list[JsonValue]:
    """Give the late hosts as the page's document has them."""
    return [item.model_dump(mode="json") for item in late_hosts(plan, rows, entries, over=over)]


async def look_for_returned(record: Record, plan: Plan, wave: int, members: Iterable[PlannedTarget]) -> None:
    """Try offline targets again with a wave: those of a shard's members that answer are open again.

    The others stay offline, and so among those that are unavailable. One that another rollout has put in quarantine is
    opened without a login: its job ends it. Raises LedgerUnavailable.
    """
    site = record.site
    channel, room = site.channel(plan.policy.spec.driver.connection), asyncio.Semaphore(site.concurrency)
    rows = [row for row in await record.call(site.ledger.down, plan.rollout) if row.outcome is Outcome.OFFLINE]
    mine = {item.target.name: item.target for item in members}

    async def one(row: TargetRow) -> None:
        async with room:
            kept = await record.call(site.ledger.quarantines, now=site.clock())
            apart = kept_apart_elsewhere(row, kept)
            if apart is not None or await _answers(channel, mine[row.target]):
                await record.append(EntryKind.GENERATION_RAISED, **_open_again(row, wave))

    async with asyncio.TaskGroup() as looks:
        for row in rows:
            if row.target in mine:
                looks.create_task(one(row))


async def _answers(channel: Channel, target: Target) -> bool:
    """Say whether a target is there, even if it refuses the login: then its own job says so."""
    try:
        session = await channel.open(target)
    except TargetOffline:
        return False
    except ChannelError:
        return True
    await session.close()
    return True


def _open_again(row: TargetRow, wave: int) -> dict[str, Any]:
    generation = row.generation + 1
    reason = f"it was offline in wave {row.wave}: it is tried again with wave {wave}"
    body = {"generation": generation, "reason": reason, "reopen": True}
    return {"key": f"generation:{row.target}:{generation}", "body": body, "target": row.target}


def of_earlier_waves(plan: Plan, wave: int, shard: int, shards: int) -> list[PlannedTarget]:
    """Give the targets of earlier waves of which a shard takes care, whatever became of them."""
    return [item for item in plan.targets if item.wave < wave][shard::shards]
