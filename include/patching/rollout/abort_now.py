"""Abort now: cancels what a job may leave half done without harm: reading and downloading, never a change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from patching.errors import LedgerUnavailable

T = TypeVar("T")

ABORT_NOW_KEY = "aborted-now"


class AbortedNow(Exception):
    """A person aborted the rollout at once, and this target was not changed yet: its job ends here."""


class AbortWatch:
    """Looks for ``abort --now`` of one rollout: one look a moment for all jobs of a worker, only while somebody waits.

    ``asked`` reads the ledger (blocking; it may raise LedgerUnavailable: then the next look decides); ``poll`` is in
    seconds.
    """

    def __init__(self, asked: Callable[[], Awaitable[bool]], poll: float) -> None:
        self._asked = asked
        self._poll = poll
        self._said = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raise AbortedNow if it was asked for."""
        if self._said.is_set() or await self._asked():
            self._said.set()
            raise AbortedNow

    async def unless(self, work: Awaitable[T]) -> T:
        """Give what ``work`` gives; as soon as abort is asked for, cancel it and raise AbortedNow."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        working = asyncio.ensure_future(work)
        saying = asyncio.create_task(self._said.wait())
        try:
            await asyncio.wait({working, saying}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise AbortedNow
        finally:
            for task in (working, saying):
                task.cancel()
            await asyncio.gather(working, saying, return_exceptions=True)

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self) -> None:
        while not self._said.is_set():
            await asyncio.sleep(self._poll)
            with contextlib.suppress(LedgerUnavailable):
                if await self._asked():
                    self._said.set()
