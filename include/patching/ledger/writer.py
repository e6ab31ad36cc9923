"""LedgerWriter: the ledger for asynchronous callers: one thread that commits in groups, others that read.

What arrives while a commit is under way goes into the next one together, so many change jobs share one fsync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from patching.errors import LedgerError, LedgerUnavailable
from patching.ledger.base import Fence, Ledger, LedgerTransaction
from patching.ledger.entry import LedgerEntry, NewEntry

T = TypeVar("T")

LARGEST_GROUP = 256
READERS = 2
READ_TOGETHER = 8
"""How many readings one thread takes at a time: the answers of all of them wait for the slowest."""


@dataclass(frozen=True)
class _Waiting:
    """A caller that waits; ``alone`` does the same as ``work`` faster where nothing else waits."""

    work: Callable[..., Any]
    alone: Callable[[], Any] | None
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class _Desk:
    """Threads that take what waits in batches; the answers of a batch go back to their callers in one call.

    Each call into another thread, and back, costs more CPU than most questions to the ledger do.
    """

    def __init__(self, name: str, threads: int, most: int, serve: Callable[[Sequence[_Waiting]], list[Any]]) -> None:
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._names = [f"{name}-{number}" for number in range(threads)]
        self._threads: list[Thread] = []
        self._most = most
        self._serve = serve
        self._closed = False

    async def answer(self, work: Callable[..., T], alone: Callable[[], T] | None = None) -> T:
        """Have work done by a thread; raises LedgerError once the desk is closed."""
        if self._closed:
            raise LedgerError("this writer is closed: nothing was written; a change job outlived its rollout's task")
        if not self._threads:
            self._threads = [Thread(target=self._work, name=name, daemon=True) for name in self._names]
            for thread in self._threads:
                thread.start()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, alone, loop, loop.create_future())
        self._waiting.put(waiting)
        answer: T = await waiting.answer
        return answer

    async def close(self) -> None:
        """Do what was accepted, then end the threads."""
        self._closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        going = True
        while going:
            batch = [self._waiting.get()]
            with suppress(Empty):
                while batch[-1] is not None and len(batch) < self._most:
                    batch.append(self._waiting.get_nowait())
            waiting = [item for item in batch if item is not None]
            going = len(waiting) == len(batch)
            if waiting:
                _deliver(waiting, self._served(waiting))

    def _served(self, batch: Sequence[_Waiting]) -> list[Any]:
        """Serve a batch; whatever is raised beyond what its callers are told, nobody is left waiting."""
        try:
            return self._serve(batch)
        except BaseException as error:  # noqa: BLE001
            return [error] * len(batch)


class LedgerWriter:
    """Writes in one thread, in the order of arrival; work that fails does not fail its neighbours."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._writing = _Desk("ledger-writer", 1, LARGEST_GROUP, self._commit)
        # A reader that stood behind a commit would wait for a disk that it does not need.
        self._reading = _Desk("ledger-reader", READERS, READ_TOGETHER, _read)

    async def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry and wait until it is committed; errors are those of ``Ledger.append``.

        A caller that is cancelled while it waits does not take the entry back: it may be written.
        """
        alone = partial(self._ledger.append, entry, fence)
        return await self._writing.answer(lambda transaction: transaction.append(entry, fence), alone)

    async def write(self, work: Callable[[LedgerTransaction], T]) -> T:
        """Do work in the next group's transaction and wait until it is committed; only then is the answer given.

        The work may be done again where a neighbour fails: it must only use the transaction.
        """
        return await self._writing.answer(work)

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking call that reads; it sees everything whose writing was waited for."""
        return await self._reading.answer(partial(function, *args, **kwargs))

    async def close(self) -> None:
        """Commit what was accepted, then end the threads; afterwards nothing is accepted."""
        try:
            await self._writing.close()
        finally:
            await self._reading.close()

    def _commit(self, group: Sequence[_Waiting]) -> list[Any]:
        """Commit one group; gives what each piece of work returned, or the exception that its caller gets."""
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
        return [self._commit([item])[0] for item in group]


def _read(batch: Sequence[_Waiting]) -> list[Any]:
    return [_answer(item.work) for item in batch]


def _answer(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 - every failure goes to the caller whose reading failed
        return error


def _deliver(batch: Sequence[_Waiting], results: Sequence[Any]) -> None:
    """Give every caller its answer, those of one event loop in one call."""
    for loop in {item.loop for item in batch}:
        mine = [(item.answer, result) for item, result in zip(batch, results, strict=True) if item.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, mine)


def _settle(answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for answer, result in answers:
        if answer.done():
            continue
        if isinstance(result, StopIteration):  # no future can hold one
            answer.set_exception(
                LedgerError(f"a question to the ledger ended with {result!r}: this is a fault of ours")
            )
        elif isinstance(result, BaseException):
            answer.set_exception(result)
        else:
            answer.set_result(result)
