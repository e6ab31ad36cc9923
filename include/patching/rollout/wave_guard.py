"""The guard of a wave that is being applied: complete blocks are judged, and the first alarm stops launching.

What it has judged is in the ledger, block by block, so that it goes on after a crash, and all shards of a wave read the
same answers. A metric source that fails says nothing: launching goes on, the block is asked for again at the next look,
and the verdict at the end of the soak holds if the source still fails then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from patching.canary.blocks import Block, Course, block_length, judge_block, next_block
from patching.canary.verdicts import CheckVerdict, WaveVerdict
from patching.canary.weights import share_of, watches
from patching.change import Outcome, TargetState
from patching.errors import ConnectionMissing, LedgerUnavailable, MetricSourceUnavailable
from patching.ledger.base import TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Plan
from patching.plan.order import SERVICE
from patching.policy import Check
from patching.rollout.answers import VerdictName
from patching.rollout.beside import beside
from patching.rollout.brake import Brake
from patching.rollout.budgets import Stop
from patching.rollout.gates import reopenings
from patching.rollout.measuring import Measured, Spans, lag, measure_spans
from patching.rollout.record import first_written, measured_entry
from patching.rollout.shares import looks_for
from patching.rollout.site import Site

RULE = "guard"
LOOKS_OF_A_BLOCK = 4


class WaveGuard:
    """Watches one wave while it is applied; ``brake`` is what it stops."""

    def __init__(self, site: Site, plan: Plan, wave: int, brake: Brake) -> None:
        self.site = site
        self.plan = plan
        self.wave = wave
        self.brake = brake
        found = plan.wave(wave)
        soak = found.soak if found is not None else 0.0
        self.checks = [check for check in plan.policy.spec.verify if watches(check)]
        self.lengths = {check.name: block_length(soak, plan.scrape(check.name)) for check in self.checks}
        self.control = set(plan.control(wave))
        label = plan.policy.spec.rollout.service or SERVICE
        self.services = {item.target.name: item.target.labels.get(label, "") for item in plan.targets}
        self.again = reopenings(site.ledger, plan.rollout, wave)
        self.began = site.clock()

    def stop_if_alarmed(self) -> bool:
        """Stop launching where a block of this wave has alarmed, here or in another process."""
        verdict = guard_verdict(self.site, self.plan, self.wave)
        if verdict is not None:
            self.brake.alarm(_stop(verdict))
        return verdict is not None

    async def watch(self) -> None:
        """Judge block after block until the first alarm."""
        while True:
            await asyncio.sleep(min(self.site.look_every, min(self.lengths.values()) / LOOKS_OF_A_BLOCK))
            try:
                await self.look()
                if self.stop_if_alarmed():
                    return
            except LedgerUnavailable as error:
                self.site.log(f"the guard did not look at wave {self.wave}: {error}")

    async def look(self) -> None:
        """Judge every check in every block that is complete by now; raises LedgerUnavailable."""
        for check in self.checks:
            # Thousands of rows are read off the event loop, which keeps the leases of the jobs alive.
            while (block := await asyncio.to_thread(self._next, check)) and await self._judged(check, block):
                pass

    def _next(self, check: Check) -> Block | None:
        ledger, rollout = self.site.ledger, self.plan.rollout
        judged = _judged_blocks(ledger.entries(rollout, kinds=[EntryKind.GUARD]), self.wave, self.again)
        mine = [entry for entry in judged if entry.body["check"] == check.name]
        if any(_alarms(entry) for entry in judged):
            return None
        free = max([self.began, *(datetime.fromisoformat(entry.body["end"]) for entry in mine)])
        rows = ledger.targets(rollout)
        wave = [_course(row, self.services[row.target]) for row in rows if row.wave == self.wave]
        rest = [_course(row, self.services[row.target]) for row in rows if row.target in self.control]
        late = lag(self.plan.scrape(check.name)).total_seconds()
        return next_block(len(mine) + 1, free, wave, rest, self.lengths[check.name], self.site.clock(), late)

    async def _judged(self, check: Check, block: Block) -> bool:
        """Judge one check in one block and write it down; False where its source failed."""
        try:
            measured = await self._measured(check, block)
        except (MetricSourceUnavailable, ConnectionMissing) as error:
            self._blind(check, block, str(error))
            return False
        looks = looks_for(self.site.ledger, self.plan, self.wave)
        share = share_of(check, self.plan.policy.spec.verify, looks)
        verdict = await asyncio.to_thread(judge_block, check, measured.evidence, share, block.number)
        body = {**_body(block), "verdict": verdict.model_dump(mode="json")}
        # Another process of this wave may have judged the block meanwhile: the first word holds.
        written = first_written(self.site.ledger, self._entry(check, f"{block.number}", body))
        if _alarms(written):
            kept = {**measured.document(), "block": block.number}
            looked = measured_entry(self.site, self.plan.rollout, self.wave, check.name, kept, self.again)
            first_written(self.site.ledger, looked)
        return True

    async def _measured(self, check: Check, block: Block) -> Measured:
        rows = {row.target: row for row in self.site.ledger.targets(self.plan.rollout)}
        began = [row.began_at for row in rows.values() if row.wave == self.wave and row.began_at is not None]
        spans = Spans(
            begun=min(began),
            settled=block.start,
            now=block.end,
            soak=3 * self.lengths[check.name],
            scrape=self.plan.scrape(check.name),
            before=check.metric.before if check.metric is not None else 0.0,
        )
        treated = [rows[name] for name in block.treated]
        return await measure_spans(self.site, self.plan, check, treated, block.control, spans)

    def _blind(self, check: Check, block: Block, why: str) -> None:
        """Write once a block that its metrics could not be read; nothing follows from it."""
        self.site.log(f"{check.name}: not looked at while wave {self.wave} is applied: {why}")
        first_written(self.site.ledger, self._entry(check, f"{block.number}:unread", {"unread": why}))

    def _entry(self, check: Check, key: str, body: dict[str, object]) -> NewEntry:
        key = f"guard:{self.wave}:{check.name}:{key}" + (f":again:{self.again}" if self.again else "")
        body = {"wave": self.wave, "again": self.again, "check": check.name, **body}
        return NewEntry(chain=self.plan.rollout, kind=EntryKind.GUARD, key=key, body=body)


def guard_verdict(site: Site, plan: Plan, wave: int) -> WaveVerdict | None:
    """Give the undo that the guard's alarms in a wave mean, None without one; earlier tries of a wave do not count."""
    again = reopenings(site.ledger, plan.rollout, wave)
    judged = _judged_blocks(site.ledger.entries(plan.rollout, kinds=[EntryKind.GUARD]), wave, again)
    alarms = [entry for entry in judged if _alarms(entry)]
    if not alarms:
        return None
    checks = tuple(CheckVerdict.model_validate(entry.body["verdict"]) for entry in alarms)
    reason = f"{'; '.join(one.reason for one in checks)}; found while the wave was applied"
    return WaveVerdict(verdict=VerdictName.UNDO, reason=reason, checks=checks)


@asynccontextmanager
async def guarding(site: Site, plan: Plan, wave: int, brake: Brake) -> AsyncIterator[None]:
    """Watch a guarded wave while the body applies it; what an earlier alarm has stopped does not begin again."""
    guard = WaveGuard(site, plan, wave, brake)
    if guard.stop_if_alarmed():
        yield
        return
    async with beside(guard.watch()):
        yield


def _judged_blocks(entries: Sequence[LedgerEntry], wave: int, again: int) -> list[LedgerEntry]:
    mine = [entry for entry in entries if (entry.body["wave"], entry.body["again"]) == (wave, again)]
    return [entry for entry in mine if "verdict" in entry.body]


def _alarms(entry: LedgerEntry) -> bool:
    return VerdictName(entry.body["verdict"]["verdict"]) is VerdictName.UNDO


def _stop(verdict: WaveVerdict) -> Stop:
    numbers = {
        one.name: {"evidence": one.numbers.evidence, "needed": one.numbers.evidence_needed}
        for one in verdict.checks
        if one.numbers is not None
    }
    return Stop(rule=RULE, sentence=verdict.reason, accuses=True, numbers=numbers)


def _course(row: TargetRow, service: str) -> Course:
    first_try = row.generation == 0 and row.undo_outcome is None
    left_alone = row.state is TargetState.PENDING and row.outcome is None
    return Course(
        target=row.target,
        began=row.began_at,
        ended=row.ended_at,
        applied=row.outcome is Outcome.APPLIED,
        pristine=first_try and (row.began_at is not None or left_alone),
        service=service,
    )


def _body(block: Block) -> dict[str, object]:
    """Say what a block was; its members follow from the targets' own entries and these two moments."""
    return {
        "block": block.number,
        "start": block.start.isoformat(),
        "end": block.end.isoformat(),
        "treated": len(block.treated),
        "control": len(block.control),
    }
