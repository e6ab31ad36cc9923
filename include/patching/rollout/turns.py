"""Turns: whether it is a target's turn within its wave: what it depends on has ended well, and its job still fits.

A target that has begun is always gone on with. One that would depend on what went wrong is skipped, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from patching.change import Outcome, TargetState
from patching.ledger.base import TargetRow
from patching.ledger.entry import EntryKind
from patching.plan.document import Plan, PlannedTarget
from patching.plan.fit import Fit
from patching.plan.order import Order
from patching.rollout.past import known_jobs
from patching.rollout.record import Record
from patching.value import Value

ENDED_WELL = frozenset({Outcome.APPLIED, Outcome.NOTHING_TO_DO})
SHOWN = 3


class HeldBack(Value):
    """A target that must not begin now: the sentence, whether to ask ``again`` in this run, or whether it ``ended``."""

    sentence: str
    again: bool = False
    ended: bool = False


class Turns:
    """The turns of one wave in one process; ``left_over`` maps targets left for the next window to the reason."""

    def __init__(self, record: Record, plan: Plan, wave: int) -> None:
        self.record = record
        self.site = record.site
        self.plan = plan
        self.wave = wave
        self.left_over: dict[str, str] = {}
        self._order = Order(plan.policy.spec.rollout, [item.target for item in plan.targets])
        self._fit: Fit | None = None
        self._by_target = False
        self._seen: Sequence[object] = ()
        self._rows: dict[str, TargetRow] = {}

    async def holds_back(self, planned: PlannedTarget, row: TargetRow) -> HeldBack | None:
        """Say why a target is not begun now, None where it is its turn.

        Writes the outcome of a target that is skipped. Raises LedgerUnavailable after the site's patience.
        """
        if row.began_at is not None:
            return None
        return await self._in_order(planned, row) or await self._in_time(planned)

    async def _in_order(self, planned: PlannedTarget, row: TargetRow) -> HeldBack | None:
        before = self._order.before(planned.target)
        if not before:
            return None
        rows = await self._look()
        found = [rows[name] for name in sorted(before) if name in rows]
        wrong = [item for item in found if not _open(item) and not _well(item)]
        if wrong:
            return await self._skip(planned, row, wrong)
        waiting = [item.target for item in found if _open(item)]
        if not waiting:
            return None
        shown = ", ".join(waiting[:SHOWN]) + (f" and {len(waiting) - SHOWN} more" if len(waiting) > SHOWN else "")
        if any(name in self.left_over for name in waiting):
            said = f"not started: it depends on {shown}, which is left for the next window"
            self.left_over[planned.target.name] = said
            return HeldBack(sentence=said)
        return HeldBack(sentence=f"waits for {shown}, on which it depends", again=True)

    async def _skip(self, planned: PlannedTarget, row: TargetRow, wrong: Sequence[TargetRow]) -> HeldBack:
        first = wrong[0]
        ended = first.undo_outcome or first.outcome
        state = ended.value if ended else "open"
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        said = f"it depends on {first.target}, which is {state}{more}: it waits for the next plan"
        body = {"outcome": Outcome.SKIPPED.value, "reason": said, "signature": None, "active": True, "undo": False}
        key = f"target-outcome:{planned.target.name}:{row.generation}:change"
        await self.record.append(EntryKind.TARGET_OUTCOME, key, body, target=planned.target.name)
        return HeldBack(sentence=said, ended=True)

    async def _in_time(self, planned: PlannedTarget) -> HeldBack | None:
        if self._fit is None:
            past = await self.record.call(known_jobs, self.site.ledger, self.plan.policy)
            self._fit = Fit(self.plan, past, self.site.concurrency)
            self._by_target = self._fit.by_target(self.wave, self.site.clock())
        said = self._fit.target_too_late(planned, self.site.clock()) if self._by_target else None
        if said is None:
            return None
        self.left_over[planned.target.name] = said
        return HeldBack(sentence=said)

    def leftover_sentence(self) -> str:
        """Say in one sentence what is left for the next window, and why; empty where nothing is."""
        if not self.left_over or self._fit is None:
            return ""
        name, said = next(iter(self.left_over.items()))
        more = f" (and {len(self.left_over) - 1} more)" if len(self.left_over) > 1 else ""
        return f"{name} {said}{more}; {self._fit.goes_on(self.site.clock())}"

    async def _look(self) -> dict[str, TargetRow]:
        """Read all rows again only when an outcome has changed: many may wait for the same."""
        seen = await self.record.call(self.site.ledger.outcomes, self.plan.rollout)
        if not self._rows or seen != self._seen:
            rows = await self.record.call(self.site.ledger.targets, self.plan.rollout)
            self._rows, self._seen = {row.target: row for row in rows}, seen
        return self._rows


def _open(row: TargetRow) -> bool:
    return row.state is not TargetState.ENDED or row.outcome in (None, Outcome.UNKNOWN)


def _well(row: TargetRow) -> bool:
    return row.outcome in ENDED_WELL and row.undo_outcome is None
