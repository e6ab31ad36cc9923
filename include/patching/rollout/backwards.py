"""Backwards: the turns of an undo, in the reverse of the order that ``dependsOn`` and cluster roles gave."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from patching.ledger.base import TargetRow
from patching.plan.document import Plan
from patching.plan.order import Order


class Backwards:
    """Lets a target wait until all that came after it are undone, or wait for a place themselves."""

    def __init__(self, plan: Plan, rows: Sequence[TargetRow]) -> None:
        depth = Order(plan.policy.spec.rollout, [item.target for item in plan.targets]).depth
        self._open = {row.target: depth.get(row.target, 0) for row in rows}
        self._depth = dict(self._open)
        self._left = Counter(self._open.values())
        self._moved = asyncio.Event()

    def passed(self, name: str) -> None:
        """Hold nobody up any more; said also of one that waits for a place, which an earlier one may hold."""
        if name in self._open:
            self._left[self._open.pop(name)] -= 1
        self._moved.set()
        self._moved = asyncio.Event()

    async def turn(self, name: str) -> None:
        """Wait until no target that depends on this one is left."""
        while any(depth > self._depth[name] and number for depth, number in self._left.items()):
            await self._moved.wait()
