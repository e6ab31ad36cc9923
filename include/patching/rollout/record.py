"""Record: a rollout's own view of the ledger; writing waits out a ledger that is gone, so that nothing is launched."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from patching.change import Outcome, Phase, TargetState
from patching.errors import FenceLost, LedgerConflict, LedgerUnavailable, TransitionRefused
from patching.ledger.base import Fence, Ledger, LedgerTransaction, TargetRow
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry, NewEntry
from patching.ledger.writer import LedgerWriter
from patching.plan.document import Plan
from patching.rollout.abort_now import ABORT_NOW_KEY, AbortWatch
from patching.rollout.answers import Request
from patching.rollout.site import Site
from patching.rollout.states import RolloutState
from patching.target import Snapshot
from patching.value import JsonValue

T = TypeVar("T")


def run_key(dag_id: str, run_id: str) -> str:
    """Name a DAG run in the ledger."""
    return f"{dag_id}::{run_id}"


def rollout_of_run(site: Site, dag_id: str, run_id: str) -> str | None:
    """Find the rollout that a DAG run works on; None when its ``discover`` never got that far."""
    entry = site.ledger.find(CONTROL, f"run:{dag_id}:{run_id}")
    return None if entry is None else entry.body.get("rollout")


def request_of_run(site: Site, rollout: str, run_id: str) -> Request | None:
    """Find what a DAG run on this rollout was asked for."""
    entry = site.ledger.find(rollout, f"run-began:{run_id}")
    return None if entry is None else Request.model_validate(entry.body["request"])


def frozen_plan(site: Site, rollout: str) -> Plan | None:
    """Load the frozen plan of a rollout; the plan is never re-made from YAML."""
    return plan_in(site.ledger, rollout)


def plan_in(ledger: Ledger, rollout: str) -> Plan | None:
    """Load the frozen plan of a rollout where there is a ledger and nothing else; None where it has none."""
    row = ledger.rollout(rollout)
    if row is None or row.plan_digest is None:
        return None
    return Plan.frozen(ledger.document(row.plan_digest), row.plan_digest)


def first_written(ledger: Ledger, entry: NewEntry) -> LedgerEntry:
    """Write an entry, or give the one that another worker of the same run wrote meanwhile under its key.

    A run's task can work in two processes at once (T12): the first word holds, and the other goes on with it.
    """
    try:
        return ledger.append(entry)
    except LedgerConflict:
        found = ledger.find(entry.chain, entry.key)
        if found is None:
            raise
        return found


def measured_entry(
    site: Site, rollout: str, wave: int, check: str, document: dict[str, JsonValue], again: int
) -> NewEntry:
    """Keep what a check looked at and make its entry, one for each judgement of a wave (``again``: not the first)."""
    data = site.ledger.store_document("measured", document)
    key = f"measured:{wave}:{check}" + (f":again:{again}" if again else "")
    return NewEntry(chain=rollout, kind=EntryKind.MEASURED, key=key, body={"wave": wave, "check": check, "data": data})


def moved(
    site: Site, rollout: str, to: RolloutState, *, reason: str, only_from: Collection[RolloutState] = ()
) -> RolloutState:
    """Bring a rollout to a state unless somebody else moved it meanwhile; gives where it stands then.

    A task decides by what it read a moment ago. Where a person or another worker was faster (T12), their word holds:
    the task goes on from there instead of ending with an error. Raises LedgerUnavailable.
    """
    try:
        return site.ledger.transition(rollout, to, reason=reason, only_from=only_from).state
    except TransitionRefused as refused:
        row = site.ledger.rollout(rollout)
        if row is None:
            raise
        site.log(f'not "{to.value}" ({reason}): {refused}')
        return row.state


class Record:
    """Asynchronous writer for one rollout.

    While the ledger is gone every write waits (at most ``site.patience`` seconds, then LedgerUnavailable), so a job
    that cannot write its intent does not act.
    """

    def __init__(self, site: Site, rollout: str) -> None:
        self.site = site
        self.rollout = rollout
        self._writer = LedgerWriter(site.ledger)
        self.abort = AbortWatch(self._aborted_now, site.poll)
        self._freed_at = -math.inf

    async def close(self) -> None:
        """Stop the writer thread; everything accepted is written."""
        await self.abort.close()
        await self._writer.close()

    async def _aborted_now(self) -> bool:
        return await self._writer.call(self.site.ledger.find, self.rollout, ABORT_NOW_KEY) is not None

    async def append(
        self,
        kind: EntryKind,
        key: str,
        body: dict[str, JsonValue] | None = None,
        *,
        target: str | None = None,
        step: str | None = None,
        actor: str | None = None,
        fence: Fence | None = None,
    ) -> LedgerEntry:
        """Write one entry of this rollout; raises FenceLost, LedgerConflict, LedgerUnavailable (after the patience)."""
        entry = NewEntry(chain=self.rollout, kind=kind, key=key, target=target, step=step, actor=actor, body=body or {})
        return await self._patiently(lambda: self._writer.append(entry, fence))

    async def write(self, work: Callable[[LedgerTransaction], T]) -> T:
        """Do work in the next commit, together with what others write; the same patience, the work's own errors."""
        return await self._patiently(lambda: self._writer.write(work))

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a ledger call off the event loop, with the same patience; not in the order of the writes."""
        return await self._patiently(lambda: self._writer.call(function, *args, **kwargs))

    async def free_left(self) -> None:
        """Free what dead workers left of targets that have ended, once in the time of a lease.

        For who waits for a lease: nobody else may come while they wait.
        """
        now = asyncio.get_running_loop().time()
        if now - self._freed_at >= self.site.lease_ttl:
            self._freed_at = now
            await self.call(free_ended, self.site, self.rollout)

    async def document(self, kind: str, document: JsonValue) -> str:
        """Keep a large document; returns its digest."""
        return await self.write(lambda transaction: transaction.store_document(kind, document))

    async def snapshot(self, digest: str) -> Snapshot:
        """Load a stored snapshot."""
        return Snapshot.model_validate(await self.call(self.site.ledger.document, digest))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        waited, pause = 0.0, 0.5
        while True:
            try:
                return await attempt()
            except LedgerUnavailable:
                if waited >= self.site.patience:
                    raise
                self.site.log(f"the ledger is unavailable: nothing new is launched; trying again in {pause:g} s")
                await asyncio.sleep(pause)
                waited += pause
                pause = min(pause * 2, 10.0)


def waits(record_chain: str, sentence: str, *, target: str | None, number: int) -> NewEntry:
    """Make the entry that says what a rollout, or one target, waits for."""
    key = f"waits:{target or '-'}:{number}"
    return NewEntry(chain=record_chain, kind=EntryKind.WAITS, key=key, target=target, body={"sentence": sentence})


def say_waiting(site: Site, rollout: str, sentence: str, *, target: str | None = None) -> None:
    """Write what a rollout waits for, once per change of the sentence."""
    earlier: Sequence[LedgerEntry] = site.ledger.entries(rollout, kinds=[EntryKind.WAITS], target=target)
    earlier = [entry for entry in earlier if entry.target == target]
    if (earlier[-1].body.get("sentence", "") if earlier else "") == sentence:
        return
    # Where another worker said something else at this moment, theirs is the newest word until the next change.
    first_written(site.ledger, waits(rollout, sentence, target=target, number=len(earlier)))


async def say_target_waits(record: Record, target: str, sentence: str) -> None:
    """Write what a target waits for, from among jobs, once per change of the sentence."""
    row = await record.call(record.site.ledger.target, record.rollout, target)
    if row is not None and row.waits_for == sentence:
        return
    entries = await record.call(record.site.ledger.entries, record.rollout, kinds=[EntryKind.WAITS], target=target)
    # Where another worker says something else at this moment, theirs is the newest word until the next change.
    with contextlib.suppress(LedgerConflict):
        entry = waits(record.rollout, sentence, target=target, number=len(entries))
        await record.append(entry.kind, entry.key, entry.body, target=target)


def free_ended(site: Site, rollout: str) -> None:
    """Release leases that a dead worker left on targets that ended or were never changed.

    One whose outcome is unknown, or whose change was begun, keeps its own. A worker that was only slow is fenced.
    """
    rows = {row.target: row for row in site.ledger.targets(rollout)}
    now = site.ledger.now()
    for lease in site.ledger.leases():
        row = rows.get(lease.target) if lease.rollout == rollout else None
        if row is None or lease.expires_at > now or not (_over(row) or _untouched(site, row)):
            continue
        with contextlib.suppress(FenceLost):
            site.ledger.release(lease)


def _over(row: TargetRow) -> bool:
    return row.state is TargetState.ENDED and Outcome.UNKNOWN not in (row.outcome, row.undo_outcome)


def _untouched(site: Site, row: TargetRow) -> bool:
    if row.began_at is not None or row.outcome is not None:
        return False
    intents = site.ledger.intents(rollout=row.rollout, target=row.target, open_only=False)
    return all(item.step["phase"] == Phase.PREPARE for item in intents)
