"""Undoing: newest change first, at once after a bad verdict, swept again at the end; what cannot be undone is loud."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from patching.change import JobResult, Outcome
from patching.errors import FenceLost
from patching.ledger.base import Busy, TargetRow
from patching.ledger.entry import EntryKind
from patching.plan.document import Plan, PlannedTarget
from patching.rollout.answers import UndoSummary
from patching.rollout.backwards import Backwards
from patching.rollout.incidents import Incident
from patching.rollout.quarantine import keep_failed_apart
from patching.rollout.record import Record, free_ended, frozen_plan, moved, say_target_waits
from patching.rollout.reversibility import Proof, proof, what_stays
from patching.rollout.site import Site
from patching.rollout.states import RolloutState
from patching.rollout.undo_failure import NOT_UNDONE, tend_failed_undo
from patching.rollout.undo_job import UndoJob

BUSY_PAUSE = 0.5
CHANGED = frozenset({Outcome.APPLIED, Outcome.FAILED, Outcome.UNKNOWN})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_undo(rows: Sequence[TargetRow], state: RolloutState, wave: int | None) -> list[TargetRow]:
    """Give the targets to undo, newest change first.

    In an undoing rollout all that were changed, those in mid-change too (their job was stopped or died), whichever
    wave asks: one wave's targets may wait for places that another's hold. In a running one only those of the wave that
    failed, so that no target stays half-changed while the wave goes on within its budget.
    """
    undoing = state is RolloutState.UNDOING
    wanted: frozenset[Outcome | None] = frozenset({*CHANGED, None} if undoing else {Outcome.FAILED})
    found = [
        row
        for row in rows
        if row.outcome in wanted
        and row.began_at is not None
        and row.undo_outcome is None
        and (undoing or wave in (None, row.wave))
    ]
    return sorted(found, key=lambda row: (row.ended_at or EPOCH, row.target), reverse=True)


async def undo_wave(site: Site, rollout: str, wave: int | None, run_id: str, *, once: bool = False) -> UndoSummary:
    """Undo what must be undone after one wave, or (``wave`` None, the final sweep) in the whole rollout.

    ``once``: who finds no place is tried again only as long as others end; it stays open, and the summary says so.
    Skipped unless the ledger says so. After the sweep the rollout is ``undone``, or ``held`` where an undo failed:
    then an incident locks the policy (F10).
    """
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    if row is None or plan is None:
        return UndoSummary(wave=wave, sentence="nothing was planned, so nothing can be undone", skipped=True)
    if row.state not in (RolloutState.UNDOING, RolloutState.RUNNING, RolloutState.HELD):
        return UndoSummary(wave=wave, sentence=f'the rollout is "{row.state.value}": nothing to undo', skipped=True)
    never = plan.policy.spec.on_failure.undo == "never" and row.state is not RolloutState.UNDOING
    found = [] if never else to_undo(site.ledger.targets(rollout), row.state, wave)
    record = Record(site, rollout)
    try:
        stays = _mates(site, plan) if row.state is RolloutState.UNDOING else {}
        busy = await _undo_all(record, plan, found, wave, stays, once=once)
        await keep_failed_apart(record, plan)
    finally:
        await record.close()
    if never:
        return UndoSummary(wave=wave, sentence="the policy says onFailure.undo: never", skipped=True)
    free_ended(site, rollout)
    incident = await tend_failed_undo(site, plan)
    if wave is None:
        _close(site, rollout, row.state, incident)
    return _summary(site, rollout, wave, [item.target for item in found], busy)


def _mates(site: Site, plan: Plan) -> dict[str, str]:
    """Say which targets stay because of another one: what stands against themselves their own job finds out."""
    found, known = what_stays(site.ledger, plan), proof(site.ledger, plan)
    own = {item.target.name for item in plan.targets if item.target.name in found and known.obstacles(item)}
    return {name: said for name, said in found.items() if name not in own}


async def _undo_all(
    record: Record,
    plan: Plan,
    rows: Sequence[TargetRow],
    wave: int | None,
    stays: Mapping[str, str],
    *,
    once: bool,
) -> dict[str, str]:
    """Undo all; with ``once`` in rounds, until one ends nobody. Gives who found no place then, and why not."""
    known, left = await record.call(proof, record.site.ledger, plan), list(rows)
    work = _UndoRun(record, plan, wave, stays, known, once=once)
    while True:
        busy = await work.round(left)
        if len(busy) in (0, len(left)):
            return busy
        left = [row for row in left if row.target in busy]


class _UndoRun:
    """The undo jobs of one worker, as many at once as the site allows.

    With ``once`` each is tried once in a round; ``busy`` are those that found no place, with the reason.
    """

    def __init__(
        self, record: Record, plan: Plan, wave: int | None, stays: Mapping[str, str], known: Proof, *, once: bool
    ) -> None:
        self.record, self.plan, self.wave = record, plan, wave
        self.stays, self.known, self.once = stays, known, once
        self.order, self.busy = Backwards(plan, ()), dict[str, str]()
        driver = plan.policy.spec.driver
        self.channel = record.site.channel(driver.connection)
        self.driver = record.site.driver(driver.name, dict(driver.options))
        self.room = asyncio.Semaphore(record.site.concurrency)

    async def round(self, rows: Sequence[TargetRow]) -> dict[str, str]:
        """Undo these, and give those that found no place."""
        self.order, self.busy = Backwards(self.plan, rows), {}
        async with asyncio.TaskGroup() as jobs:
            for row in rows:
                jobs.create_task(self.tolerating_takeover(row))
        return self.busy

    async def tolerating_takeover(self, row: TargetRow) -> None:
        """Undo one target in its turn; one that another worker has taken over is theirs."""
        await self.order.turn(row.target)
        try:
            await self._one(row)
        except FenceLost as error:
            self.record.site.log(f"{row.target}: another worker has taken over ({error})")
        finally:
            self.order.passed(row.target)

    async def _one(self, row: TargetRow) -> None:
        record, planned = self.record, self.plan.planned(row.target)
        if planned is None:
            return
        later = await record.call(record.site.ledger.later_rollouts, self.plan.rollout, row.target)
        if later:
            await _conclude_refused(record, row, f"not undone: rollout {later[0]} changed it later")
            return
        said = ""
        while isinstance(answer := await self._try(planned, row), Busy):
            # Neither the room nor the order is kept by who waits: an earlier target may hold what it waits for.
            self.order.passed(row.target)
            if answer.sentence != said:
                said = answer.sentence
                await say_target_waits(record, row.target, f"{said}; then it is undone")
            await record.free_left()
            if self.once:
                self.busy[row.target] = said
                await record.write(lambda transaction: transaction.leave_queue(self.plan.rollout, row.target))
                return
            await asyncio.sleep(BUSY_PAUSE)
        record.site.log(f"{row.target}: undo: {answer.outcome.value}: {answer.reason}")

    async def _try(self, planned: PlannedTarget, row: TargetRow) -> JobResult | Busy:
        against, why = self.known.obstacles(planned), self.stays.get(row.target, "")
        async with self.room:
            return await UndoJob(
                self.record, self.plan, planned, self.channel, self.driver, row, obstacles=against, stays=why
            ).run(self._due)

    def _due(self, row: TargetRow) -> bool:
        now = self.record.site.ledger.rollout(self.plan.rollout)
        return now is not None and bool(to_undo([row], now.state, self.wave))


async def _conclude_refused(record: Record, row: TargetRow, reason: str) -> None:
    body = {"outcome": Outcome.SKIPPED.value, "reason": reason, "signature": None, "active": True, "undo": True}
    key = f"target-outcome:{row.target}:{row.generation}:undo"
    await record.append(EntryKind.TARGET_OUTCOME, key, body, target=row.target)


def _close(site: Site, rollout: str, state: RolloutState, incident: Incident | None) -> None:
    if state is not RolloutState.UNDOING:
        return
    rows = site.ledger.targets(rollout)
    if to_undo(rows, state, None):
        return
    undone = sum(row.undo_outcome is Outcome.UNDONE for row in rows)
    bad = [row.target for row in rows if row.undo_outcome in NOT_UNDONE]
    if bad:
        lock = f"incident {incident.id} locks the policy" if incident else "a person must look"
        reason = f"{undone} undone; NOT undone: {', '.join(bad)}; {lock}"
        moved(site, rollout, RolloutState.HELD, reason=reason, only_from=(RolloutState.UNDOING,))
        return
    moved(site, rollout, RolloutState.UNDONE, reason=_put_back(site, rollout, rows, undone))


def _put_back(site: Site, rollout: str, rows: Sequence[TargetRow], undone: int) -> str:
    """Say what an undo reached, what was never touched, and why it was done, for who looks the next morning."""
    changed = sum(row.began_at is not None for row in rows)
    text = f"{undone} of {changed} changed targets run what they ran before"
    if changed < len(rows):
        text += f", {len(rows) - changed} were never touched"
    moves = site.ledger.entries(rollout, kinds=[EntryKind.TRANSITION])
    why = [str(entry.body["reason"]) for entry in moves if entry.body["to"] == RolloutState.UNDOING]
    return f"{text}. Why: {why[-1]}" if why else text


def _summary(site: Site, rollout: str, wave: int | None, names: Sequence[str], busy: Mapping[str, str]) -> UndoSummary:
    rows = [row for row in site.ledger.targets(rollout) if row.target in set(names)]
    counts: dict[str, int] = {}
    for row in rows:
        name = row.undo_outcome.value if row.undo_outcome else "open"
        counts[name] = counts.get(name, 0) + 1
    if not rows:
        return UndoSummary(wave=wave, sentence="nothing to undo", skipped=True)
    bad = [row.target for row in rows if row.undo_outcome is not Outcome.UNDONE]
    sentence = f"{counts.get('undone', 0)} of {len(rows)} undone"
    if bad:
        sentence += f"; NOT undone: {', '.join(bad)}"
    if busy:
        name, said = next(iter(busy.items()))
        sentence += f"; {name} {said}" + (f" (and {len(busy) - 1} more wait)" if len(busy) > 1 else "")
    return UndoSummary(wave=wave, counts=counts, sentence=sentence, bad=bool(bad))
