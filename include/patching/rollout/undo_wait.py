"""Waiting for a place in an undo: until nobody can free it, or the site's patience is over; then it stays open."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from patching.ledger.base import Busy, Lease
from patching.quantity import format_duration
from patching.report.sentences import names
from patching.rollout.record import Record
from patching.rollout.standstill import why_kept
from patching.rollout.undo_job import UndoJob

SHOWN = 3


class UndoWait:
    """What the undo jobs of one worker wait for, and since when none of them has ended.

    ``own`` are the targets that this worker brings back itself: it waits for their places.
    """

    def __init__(self, record: Record, own: Collection[str]) -> None:
        self.record, self.own = record, own
        self._jobs: set[UndoJob] = set()
        self._since = asyncio.get_running_loop().time()
        self._looked_at = -math.inf
        self._kept: list[tuple[Lease, str]] = []

    @contextmanager
    def trying(self, job: UndoJob) -> Iterator[None]:
        """Know of a job while it asks for its lease and works; whoever waits may have its place afterwards."""
        self._jobs.add(job)
        try:
            yield
        finally:
            self._jobs.remove(job)
            if job.worked:
                self._since = asyncio.get_running_loop().time()

    async def in_vain(self, busy: Busy) -> str | None:
        """Say why it is no use to wait any longer, with what a person must do; None where it may be."""
        kept = {
            lease.target: why
            for lease, why in await self._kept_for_good()
            if f"{lease.target} (rollout {lease.rollout})" in busy.holders
        }
        if len(kept) >= busy.limit:
            why = "; ".join(list(dict.fromkeys(kept.values()))[:SHOWN])
            return f"waits for {busy.kind} {busy.name}, which {names(sorted(kept))} will not leave: {why}"
        waited = asyncio.get_running_loop().time() - self._since
        if any(job.worked for job in self._jobs) or waited < self.record.site.patience:
            return None
        return f"{busy.sentence}, and nobody has left it for {format_duration(round(waited))}: see `patching leases`"

    async def _kept_for_good(self) -> list[tuple[Lease, str]]:
        """Find the leases that nobody will end by himself; looked for once in the time of a lease, for all who wait."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= self.record.site.lease_ttl:
            self._looked_at = now
            self._kept = await self.record.call(self._look)
        return self._kept

    def _look(self) -> list[tuple[Lease, str]]:
        ledger = self.record.site.ledger
        found: list[tuple[Lease, str]] = []
        now = ledger.now()
        for lease in ledger.leases():
            row, rollout = ledger.target(lease.rollout, lease.target), ledger.rollout(lease.rollout)
            if lease.expires_at > now or row is None or rollout is None:
                continue
            mine = lease.rollout == self.record.rollout
            if mine and lease.target in self.own and row.undo_outcome is None:
                continue
            why = why_kept(row, rollout, mine=mine)
            found += [(lease, why)] if why is not None else []
        return found


def told_busy(busy: Mapping[str, str]) -> str:
    """Say who found no place, and why not."""
    name, said = next(iter(busy.items()))
    return f"{name} {said}" + (f" (and {len(busy) - 1} more wait)" if len(busy) > 1 else "")
