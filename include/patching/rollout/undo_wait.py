"""Waiting for a place in an undo: until nobody can free it, or the site's patience is over; then it stays open."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from patching.change import Outcome
from patching.ledger.base import Busy
from patching.quantity import format_duration
from patching.report.sentences import names
from patching.rollout.record import Record
from patching.rollout.standstill import why_kept
from patching.rollout.undo_job import UndoJob

SHOWN = 3


class InVain(NamedTuple):
    """Why it is no use to wait any longer, with what a person must do.

    ``for_good``: nobody will give the place back; else only the patience is over. ``next_run``: nobody but the next run
    of the same rollout, which must not be held then.
    """

    sentence: str
    for_good: bool = False
    next_run: bool = False


class _Kept(NamedTuple):
    """A place that nobody will give back by himself: whose, as the ledger names its holder, and why."""

    target: str
    holder: str
    why: str
    next_run: bool


class UndoWait:
    """What the undo jobs of one worker wait for, and since when nothing has moved there.

    ``own`` are the targets that this worker brings back itself: it waits for their places. ``clock`` is in seconds.
    """

    def __init__(self, record: Record, own: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.record, self.own, self._clock = record, own, clock
        self._jobs: set[UndoJob] = set()
        self._since = self._clock()
        self._looked_at = -math.inf
        self._kept: list[_Kept] = []
        self._seen: dict[tuple[str, str], tuple[tuple[str, ...], float]] = {}

    @contextmanager
    def trying(self, job: UndoJob) -> Iterator[None]:
        """Know of a job while it asks for its lease and works; whoever waits may have its place afterwards."""
        self._jobs.add(job)
        try:
            yield
        finally:
            self._jobs.remove(job)
            if job.worked:
                self._since = self._clock()

    async def in_vain(self, busy: Busy) -> InVain | None:
        """Say why it is no use to wait any longer; None where it may be."""
        kept = [place for place in await self._kept_for_good() if place.holder in busy.holders]
        if len(kept) >= busy.limit:
            why = "; ".join(list(dict.fromkeys(place.why for place in kept))[:SHOWN])
            who = names(sorted(place.target for place in kept))
            said = f"waits for {busy.kind} {busy.name}, which {who} will not leave: {why}"
            return InVain(said, for_good=True, next_run=all(place.next_run for place in kept))
        waited = self._unmoved(busy)
        if any(job.worked for job in self._jobs) or waited < self.record.site.patience:
            return None
        said = f"{busy.sentence}, and nobody has left it for {format_duration(round(waited))}: see `patching leases`"
        return InVain(said)

    def _unmoved(self, busy: Busy) -> float:
        """Give the seconds for which the same have held a place, and no undo of this worker has ended."""
        now, place = self._clock(), (busy.kind, busy.name)
        holders, since = self._seen.get(place, ((), now))
        if holders != busy.holders:
            holders, since = self._seen[place] = busy.holders, now
        return now - max(since, self._since)

    async def _kept_for_good(self) -> list[_Kept]:
        """Find the leases that nobody will end by himself; looked for once in the time of a lease, for all who wait."""
        now = self._clock()
        if now - self._looked_at >= self.record.site.lease_ttl:
            self._looked_at = now
            self._kept = await self.record.call(self._look)
        return self._kept

    def _look(self) -> list[_Kept]:
        ledger = self.record.site.ledger
        found: list[_Kept] = []
        now = ledger.now()
        for lease in ledger.leases():
            row, rollout = ledger.target(lease.rollout, lease.target), ledger.rollout(lease.rollout)
            if lease.expires_at > now or row is None or rollout is None:
                continue
            mine = lease.rollout == self.record.rollout
            if mine and lease.target in self.own and row.undo_outcome is None:
                continue
            why = why_kept(row, rollout, mine=mine)
            if why is not None:
                known = Outcome.UNKNOWN not in (row.outcome, row.undo_outcome)
                found.append(_Kept(lease.target, f"{lease.target} (rollout {lease.rollout})", why, mine and known))
        return found


def told_busy(busy: Mapping[str, str]) -> str:
    """Say who found no place, and why not."""
    name, said = next(iter(busy.items()))
    return f"{name} {said}" + (f" (and {len(busy) - 1} more wait)" if len(busy) > 1 else "")
