"""LedgerWriter: the ledger for asynchronous callers: one thread that commits in groups, others that read.

What arrives while a commit is under way goes into the next one together, so many change jobs share one fsync.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from patching.errors import LedgerError, LedgerUnavailable
from patching.ledger.base import Fence, Ledger, LedgerTransaction
from patching.ledger.entry import LedgerEntry, NewEntry

T = TypeVar("T")

Work = Callable[[LedgerTransaction], Any]

LARGEST_GROUP = 256
READERS = 2


@dataclass(frozen=True)
class _Waiting:
    work: Work
    alone: Callable[[], Any] | None
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class LedgerWriter:
    """Writes in one thread, in the order of arrival; work that fails does not fail its neighbours."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-writer")
        # A reader that stood behind a commit would wait for a disk that it does not need.
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="ledger-reader")
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()
        self._scheduled = False
        self._closed = False

    async def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry and wait until it is committed; errors are those of ``Ledger.append``.

        A caller that is cancelled while it waits does not take the entry back: it may be written.
        """
        alone = partial(self._ledger.append, entry, fence)
        return await self._written(lambda transaction: transaction.append(entry, fence), alone)

    async def write(self, work: Callable[[LedgerTransaction], T]) -> T:
        """Do work in the next group's transaction and wait until it is committed; only then is the answer given.

        The work may be done again where a neighbour fails: it must only use the transaction.
        """
        return await self._written(work, None)

    async def _written(self, work: Callable[[LedgerTransaction], T], alone: Callable[[], T] | None) -> T:
        """Wait until work is committed; ``alone`` does the same faster where nothing else waits."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, alone, loop, loop.create_future())
        with self._lock:
            self._refuse_if_closed()
            self._waiting.append(waiting)
            if not self._scheduled:
                self._scheduled = True
                self._thread.submit(self._commit)
        answer: T = await waiting.answer
        return answer

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking call that reads; it sees everything whose writing was waited for."""
        with self._lock:
            self._refuse_if_closed()
            future = self._readers.submit(function, *args, **kwargs)
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Commit what was accepted, then end the threads; afterwards nothing is accepted."""
        with self._lock:
            self._closed = True
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        await asyncio.to_thread(self._readers.shutdown, wait=True)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise LedgerError("this writer is closed: nothing was written; a change job outlived its rollout's task")

    def _commit(self) -> None:
        """Commit one group; runs in the writer thread."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), LARGEST_GROUP))]
        for waiting, result in zip(group, self._write(group), strict=True):
            _deliver(waiting, result)
        with self._lock:
            self._scheduled = bool(self._waiting)
            more = self._scheduled
        if more:
            self._commit_later()

    def _commit_later(self) -> None:
        try:
            self._thread.submit(self._commit)
        except RuntimeError:
            # The writer is being closed and its thread takes no new work: finish here, nothing accepted is lost.
            self._commit()

    def _write(self, group: Sequence[_Waiting]) -> list[Any]:
        """Give what each piece of work returned, or the exception that its caller gets."""
        alone = group[0].alone if len(group) == 1 else None
        try:
            if alone is not None:
                return [alone()]
            return list(self._ledger.group([item.work for item in group]))
        except LedgerUnavailable as error:
            return [error] * len(group)
        except Exception as error:  # noqa: BLE001 - every failure goes to the caller whose work failed
            if len(group) == 1:
                return [error]
        return [self._write([item])[0] for item in group]


def _deliver(waiting: _Waiting, result: Any) -> None:
    def settle() -> None:
        if waiting.answer.done():
            return
        if isinstance(result, Exception):
            waiting.answer.set_exception(result)
        else:
            waiting.answer.set_result(result)

    if not waiting.loop.is_closed():
        waiting.loop.call_soon_threadsafe(settle)
