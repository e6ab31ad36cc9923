"""Brake: the one place that decides whether another change job of a wave may begin."""

from __future__ import annotations

from collections.abc import Callable

from patching.change import Outcome
from patching.ledger.base import Busy, Quarantine
from patching.ledger.entry import EntryKind
from patching.plan.capacity import places, reboot_claims, target_claims
from patching.plan.document import Plan, PlannedTarget
from patching.rollout.budgets import Stop, answered_for, spent
from patching.rollout.losses import loss_in_the_way, lost_targets
from patching.rollout.record import Record
from patching.rollout.standstill import held_for_good
from patching.rollout.states import RolloutState
from patching.value import JsonValue

ASKED = "stop"
CAPACITY = "capacity"


class Brake:
    """What stops launching in one wave: a person, the stop switch, the rollout's state, a budget, a loss, the guard.

    ``stopped`` is the first stop that holds for the whole wave; it is kept, so that a budget that a late success
    relieves does not let launching begin again. ``in_the_way`` is the last loss that kept one class from beginning.
    ``some_down``: targets have ended offline or failed; ``kept_apart``: who is in quarantine; both as last read.
    """

    def __init__(self, record: Record, plan: Plan, wave: int, asked_to_stop: Callable[[], str | None]) -> None:
        self.record = record
        self.ledger = record.site.ledger
        self.plan = plan
        self.wave = wave
        self.asked_to_stop = asked_to_stop
        self.stopped: Stop | None = None
        self.in_the_way: Stop | None = None
        self._answered: frozenset[int] | None = None
        self._unknown = self.some_down = False
        self.kept_apart: tuple[Quarantine, ...] = ()

    @property
    def verdict(self) -> Stop | None:
        """Why launching stopped, None where it did not: a whole wave's stop before one of a hardware class."""
        return self.stopped or self.in_the_way

    async def holds(self, planned: PlannedTarget, *, settling: bool = False, busy: Busy | None = None) -> bool:
        """Say whether this target must not begin now; ``busy`` is what it waits for.

        One whose outcome is unknown is ``settling``: it has begun already, and only its settling can tell what became
        of it, so missing evidence does not stop it.
        """
        if await self.stops(settling=settling):
            return True
        if settling:
            return False
        found = await self._loss(planned) if self._unknown else None
        if found is None and (self._unknown or (busy is not None and busy.elsewhere(self.plan.rollout))):
            found = await self._held_for_good(planned)
        found = found or (await self._without_place(planned) if self.some_down else None)
        self.in_the_way = found or self.in_the_way
        return found is not None

    async def stops(self, *, settling: bool = False) -> bool:
        """Say whether nothing of this wave may begin now, whoever it is."""
        if self.stopped is not None:
            return True
        asked = self.asked_to_stop()
        standing = await self.record.call(self.ledger.standing, self.plan.rollout, now=self.record.site.clock())
        self.kept_apart = standing.quarantines
        groups = standing.outcomes
        asked = asked or standing.stopped or _not_running(standing.state)
        if asked is not None:
            self.stopped = Stop(rule=ASKED, sentence=asked)
            return True
        stop = spent(self.plan.policy.spec.rollout.stop_when, self.wave, groups, await self._promoted_by_people())
        if stop is not None and (stop.accuses or not settling):
            self.stopped = stop
        self._unknown = any(group.outcome is Outcome.UNKNOWN for group in groups)
        self.some_down = any(group.outcome in (Outcome.OFFLINE, Outcome.FAILED) for group in groups)
        return self.stopped is not None

    async def _loss(self, planned: PlannedTarget) -> Stop | None:
        """Say which lost target keeps this one, of its class, from beginning."""
        rows = await self.record.call(self.ledger.targets, self.plan.rollout)
        return loss_in_the_way(self.plan, planned.target, lost_targets(rows))

    async def _held_for_good(self, planned: PlannedTarget) -> Stop | None:
        """Say which unknown targets, of whatever rollout, hold every place that this one will need."""
        claims = target_claims(self.plan, planned.target)
        claims += reboot_claims(self.plan, planned.target) if planned.reboot else []
        full = await held_for_good(self.record, claims)
        return Stop(rule=CAPACITY, sentence=full) if full is not None else None

    async def _without_place(self, planned: PlannedTarget) -> Stop | None:
        """Say which targets that are down take every place that this one needs; one that has begun has its own."""
        rows = await self.record.call(self.ledger.down, self.plan.rollout)
        down = {row.target for row in rows if row.outcome is not None}
        full = next((place for place in places(self.plan, planned.target, down) if place.cannot_move), None)
        if full is None or full.cannot_move is None:
            return None
        row = await self.record.call(self.ledger.target, self.plan.rollout, planned.target.name)
        if row is None or row.began_at is not None:
            return None
        numbers: dict[str, JsonValue] = {"down": list(full.down), "limit": full.claim.limit}
        return Stop(rule=CAPACITY, sentence=full.cannot_move, numbers=numbers)

    def stop(self, sentence: str) -> None:
        """Stop the whole wave for a reason that a job met."""
        self.stopped = self.stopped or Stop(rule=ASKED, sentence=sentence)

    def alarm(self, stop: Stop) -> None:
        """Stop the whole wave for what the guard has found."""
        self.stopped = self.stopped or stop

    async def _promoted_by_people(self) -> frozenset[int]:
        """Read once: only a held rollout can be promoted, and that ends this run's work."""
        if self._answered is None:
            entries = await self.record.call(self.ledger.entries, self.plan.rollout, kinds=[EntryKind.VERDICT])
            self._answered = answered_for(entries)
        return self._answered


def _not_running(state: RolloutState | None) -> str | None:
    return None if state is RolloutState.RUNNING else f'the rollout is "{state.value if state else "gone"}"'
