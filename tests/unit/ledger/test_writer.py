"""LedgerWriter: commits in groups, fails alone, loses nothing that it accepted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from ledger_suite.values import K, R, claim, entry, fence
from patching.errors import FenceLost, LedgerConflict, LedgerError, LedgerUnavailable
from patching.ledger.store import SqlLedger
from patching.ledger.writer import LedgerWriter


class Watched:
    """Counts the transactions of a ledger, and can hold the writer's thread before the next one."""

    def __init__(self, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        append, group = ledger.append, ledger.group

        def watched(count: int) -> None:
            self.entered.set()
            assert self.open.wait(10)
            self.groups.append(count)

        def watched_append(*arguments):  # type: ignore[no-untyped-def]
            watched(1)
            return append(*arguments)

        def watched_group(items):  # type: ignore[no-untyped-def]
            watched(len(items))
            return group(items)

        monkeypatch.setattr(ledger, "append", watched_append)
        monkeypatch.setattr(ledger, "group", watched_group)


@pytest.fixture
def watched(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(ledger, monkeypatch)


async def behind_a_commit(watched: Watched, writer: LedgerWriter) -> asyncio.Task[object]:
    """Start a commit that waits, so that what comes next gathers into one group."""
    watched.open.clear()
    first = asyncio.create_task(writer.append(entry(K.GATE, "first")))
    await asyncio.to_thread(watched.entered.wait, 10)
    return first


async def test_entries_that_arrive_during_a_commit_share_the_next_one(ledger: SqlLedger, watched: Watched) -> None:
    writer = LedgerWriter(ledger)
    first = await behind_a_commit(watched, writer)
    rest = [asyncio.create_task(writer.append(entry(K.GATE, f"g{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    watched.open.set()
    written = await asyncio.gather(first, *rest)
    await writer.close()
    assert watched.groups == [1, 50]
    assert [item.seq for item in written] == list(range(1, 52))
    assert [item.key for item in ledger.entries(R)] == ["first", *(f"g{number}" for number in range(50))]


async def test_one_failing_entry_does_not_fail_its_neighbours(ledger: SqlLedger, watched: Watched) -> None:
    lost = ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30)
    ledger.release(lost)
    writer = LedgerWriter(ledger)
    first = await behind_a_commit(watched, writer)
    tasks = [
        asyncio.create_task(writer.append(item, proof))
        for item, proof in [
            (entry(K.GATE, "good"), None),
            (entry(K.GATE, "first", wave=2), None),
            (entry(K.GATE, "fenced"), fence(lost)),
            (entry(K.GATE, "also-good"), None),
        ]
    ]
    await asyncio.sleep(0)
    watched.open.set()
    await first
    good, conflict, fenced, also = await asyncio.gather(*tasks, return_exceptions=True)
    await writer.close()
    assert (good.key, also.key) == ("good", "also-good")
    assert isinstance(conflict, LedgerConflict)
    assert isinstance(fenced, FenceLost)
    assert ledger.find(R, "fenced") is None
    assert ledger.verify() == []


async def test_lease_document_and_entry_under_that_lease_share_one_commit(ledger: SqlLedger, watched: Watched) -> None:
    writer = LedgerWriter(ledger)
    first = await behind_a_commit(watched, writer)
    taken = asyncio.create_task(writer.write(lambda t: t.acquire("me", R, "a", [claim("target", "a")], ttl=30)))
    stored = asyncio.create_task(writer.write(lambda t: t.store_document("snapshot", {"a": 1})))
    await asyncio.sleep(0)
    watched.open.set()
    await first
    lease = await taken
    assert ledger.document(await stored) == {"a": 1}
    assert [item.id for item in ledger.leases()] == [lease.id]
    await writer.close()
    assert watched.groups == [1, 2]


async def test_fence_is_checked_anew_after_a_release_in_the_same_commit(ledger: SqlLedger, watched: Watched) -> None:
    lease = ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30)
    writer = LedgerWriter(ledger)
    first = await behind_a_commit(watched, writer)
    before = asyncio.create_task(writer.append(entry(K.GATE, "before"), fence(lease)))
    released = asyncio.create_task(writer.write(lambda t: t.release(lease)))
    after = asyncio.create_task(writer.append(entry(K.GATE, "after"), fence(lease)))
    await asyncio.sleep(0)
    watched.open.set()
    await asyncio.gather(first, before, released)
    with pytest.raises(FenceLost):
        await after
    await writer.close()
    assert [item.key for item in ledger.entries(R, kinds=[K.GATE])] == ["first", "before"]
    assert ledger.leases() == []


async def test_unavailable_ledger_fails_the_whole_group_without_trying_each(ledger, watched, monkeypatch) -> None:
    calls: list[int] = []

    def gone(items):  # type: ignore[no-untyped-def]
        calls.append(len(items))
        raise LedgerUnavailable("gone")

    writer = LedgerWriter(ledger)
    monkeypatch.setattr(ledger, "group", gone)
    monkeypatch.setattr(ledger, "append", lambda *_: gone([None]))
    answers = await asyncio.gather(
        *(writer.append(entry(K.GATE, f"g{number}")) for number in range(5)), return_exceptions=True
    )
    await writer.close()
    assert all(isinstance(item, LedgerUnavailable) for item in answers)
    assert sum(calls) == 5


async def test_call_sees_what_was_waited_for_and_stands_behind_no_commit(ledger: SqlLedger, watched: Watched) -> None:
    writer = LedgerWriter(ledger)
    appended = await writer.append(entry(K.GATE, "g"))
    first = await behind_a_commit(watched, writer)
    assert await writer.call(ledger.find, R, "g") == appended
    assert not first.done()
    watched.open.set()
    await first
    with pytest.raises(LedgerError, match="never stored"):
        await writer.call(ledger.document, "0" * 64)
    await writer.close()


async def test_whatever_is_raised_reaches_its_own_caller_and_leaves_nobody_waiting(ledger: SqlLedger) -> None:
    writer = LedgerWriter(ledger)

    class Odd(BaseException):
        """Not an error that anybody expects."""

    def odd(_: object = None) -> None:
        raise Odd

    def over(_: object = None) -> None:
        raise StopIteration

    for _ in range(3):
        answers = await asyncio.gather(
            writer.call(odd), writer.call(over), writer.call(ledger.chains), return_exceptions=True
        )
        assert isinstance(answers[0], Odd)
        assert isinstance(answers[1], LedgerError)
        assert answers[2] == []
    with pytest.raises(Odd):
        await writer.write(odd)
    assert (await writer.append(entry(K.GATE, "g"))).key == "g"
    await writer.close()


async def test_close_commits_what_was_accepted_and_then_refuses(ledger: SqlLedger, watched: Watched) -> None:
    writer = LedgerWriter(ledger)
    first = await behind_a_commit(watched, writer)
    rest = [asyncio.create_task(writer.append(entry(K.GATE, f"g{number}"))) for number in range(600)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    watched.open.set()
    await asyncio.gather(first, *rest, closing)
    assert len(ledger.entries(R)) == 601
    with pytest.raises(LedgerError, match="closed"):
        await writer.append(entry(K.GATE, "late"))


async def test_cancelled_caller_neither_breaks_the_writer_nor_takes_its_entry_back(ledger, watched) -> None:
    writer = LedgerWriter(ledger)
    first = await behind_a_commit(watched, writer)
    impatient = asyncio.create_task(writer.append(entry(K.GATE, "impatient")))
    await asyncio.sleep(0)
    impatient.cancel()
    watched.open.set()
    await first
    await writer.append(entry(K.GATE, "next"))
    await writer.close()
    assert ledger.find(R, "impatient") is not None


def test_writer_of_one_loop_after_another_keeps_working(fresh: Callable[[], SqlLedger]) -> None:
    """Airflow runs one event loop per task; a ledger outlives it."""
    ledger = fresh()

    async def once(key: str) -> None:
        writer = LedgerWriter(ledger)
        await writer.append(entry(K.GATE, key))
        await writer.close()

    asyncio.run(once("a"))
    asyncio.run(once("b"))
    assert [item.key for item in ledger.entries(R)] == ["a", "b"]
