"""Ahead: who comes next is logged in to while other jobs still run; a login is all that happens there.

No lease, no place and no entry belongs to an early connection, and one that failed decides nothing: the job's own
``open`` tries anew, and what that meets is the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from patching.change import Outcome
from patching.channels.base import Channel, Session
from patching.errors import ChannelError
from patching.plan.document import PlannedTarget
from patching.rollout.brake import Brake
from patching.rollout.quarantine import kept_apart_elsewhere
from patching.rollout.record import Record
from patching.target import Target

SHARE = 10


class Ahead:
    """A channel that opens some connections before they are asked for: ``most``, a tenth of the window."""

    def __init__(self, channel: Channel, record: Record, rollout: str, brake: Brake) -> None:
        self._channel = channel
        self._record = record
        self._rollout = rollout
        self._brake = brake
        self.most = max(1, record.site.concurrency // SHARE)
        self._early: dict[str, asyncio.Task[Session]] = {}

    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        """Give the connection that was opened early, while it stands, or open one; raises as the channel does."""
        early = self._early.pop(target.name, None)
        if early is not None:
            session = await _opened(early)
            if session is not None and not session.lost:
                return session
            if session is not None:
                await session.close()
        return await self._channel.open(target, deadline=deadline)

    def begin(self, target: Target) -> None:
        """Begin to log in to a target, where there is room for one more."""
        if target.name not in self._early and len(self._early) < self.most:
            self._early[target.name] = asyncio.create_task(self._channel.open(target))

    async def expect(self, coming: Sequence[PlannedTarget], *, anew: bool) -> None:
        """Log in to those that come next and may begin; ``anew`` looks again at those that are logged in to.

        Closes what is open to one that has ended or is in quarantine meanwhile. Raises LedgerUnavailable.
        """
        for planned in coming:
            name = planned.target.name
            if name in self._early and not anew:
                continue
            if self._brake.stopped is None and await self._record.call(self._may_begin, name):
                self.begin(planned.target)
            else:
                await self.drop(name)

    def _may_begin(self, name: str) -> bool:
        row = self._record.site.ledger.target(self._rollout, name)
        if row is None or row.outcome not in (None, Outcome.UNKNOWN):
            return False
        return row.began_at is not None or kept_apart_elsewhere(row, self._brake.kept_apart) is None

    async def drop(self, name: str) -> None:
        """Close the early connection to a target that nobody took."""
        early = self._early.pop(name, None)
        if early is None:
            return
        early.cancel()
        await asyncio.wait({early})
        if not early.cancelled() and early.exception() is None:
            await early.result().close()

    async def close(self) -> None:
        """Close every early connection that nobody took."""
        for name in list(self._early):
            await self.drop(name)


async def _opened(early: asyncio.Task[Session]) -> Session | None:
    try:
        return await early
    except ChannelError:
        return None
