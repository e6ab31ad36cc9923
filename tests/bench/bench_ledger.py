"""Appends a second to the ledger against bare inserts of the same rows with the same durability, SQLite and PostgreSQL.

An append is one call that is on disk when it returns: fence, idempotence, hash chain, projection and all. A bare insert
is one ``INSERT`` of the same row into a copy of the same table and one ``COMMIT``, by the database's own driver, with
the same synchronous settings. One process, then eight at once; the sides take turns, and the median of the ratios of
five turns counts (``BENCH_TURNS``: fewer). Group commit (50 callers in one process, as in a wave) is printed beside.

All eight processes append to one chain, as the workers of one rollout do, each under a lease of its own; bare inserts
have nothing that they share. A third side is the leanest bare insert that we know: on PostgreSQL one statement that
commits itself, which saves two of three round trips; on SQLite one that waits for the lock as the ledger does, by looks
at most 4 ms apart, where SQLite's own are up to 0.1 s apart. The target is about the first two sides.
Where the disk is fast an append is judged by its computing, where it is slow by its syncs, so a sync of this disk is
timed, too. On a RAM disk, where durability costs nothing, the ratios were 0.2 to 0.3.
Target: at least half as many appends as bare inserts, in each of the four cases.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from patching.ledger import schema
from patching.ledger.base import Busy, Fence
from patching.ledger.entry import EntryKind, NewEntry
from patching.ledger.sqlite_file import begin_alone
from patching.ledger.store import open_ledger
from patching.ledger.writer import LedgerWriter
from servers.postgres import postgres_server

TURNS, PROCESSES = min(5, int(os.environ.get("BENCH_TURNS", "5"))), (1, 8)
APPENDS = {1: 160, 8: 60}
CALLERS = 50
CHAIN = "rollout"
LEAST = 0.5
COLUMNS = [column.name for column in schema.entry.columns]

_STATE: dict[str, Any] = {}


def entry(chain: str, turn: str, number: int) -> NewEntry:
    """Make what a step's end writes: about 1 KB."""
    body = {"step": "upgrade", "ok": True, "exit_code": 0, "stdout": "x" * 600, "stderr": "", "detail": ""}
    key = f"outcome:{turn}:{number}"
    return NewEntry(chain=chain, kind=EntryKind.STEP_OUTCOME, key=key, target=f"host-{number}", step=key, body=body)


def _begin(url: str, count: int, barrier: Any, numbers: Any) -> None:
    """Set a worker up: its ledger, its lease, its bare connection."""
    with numbers.get_lock():
        numbers.value += 1
        name = f"worker-{numbers.value}"
    ledger = open_ledger(url)
    held = ledger.acquire(name, name, "all", [], ttl=3600)
    if isinstance(held, Busy):
        raise SystemExit(held.sentence)
    fence = Fence(lease=held.id, epoch=held.epoch)
    _STATE.update(ledger=ledger, name=name, fence=fence, barrier=barrier, count=count)
    _STATE.update(url=url, bare=_bare(url, lean=False), leanest=_bare(url, lean=True))


def _bare(url: str, *, lean: bool) -> Callable[[tuple[Any, ...]], None]:
    """Open a plain connection and give what inserts one row durably, in the plain way or in the leanest."""
    parsed = sa.make_url(url)
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    if parsed.get_backend_name() == "sqlite":
        file = sqlite3.connect(str(parsed.database), timeout=60, isolation_level=None)
        file.execute("PRAGMA synchronous = FULL")
        insert = f"INSERT INTO bare ({names}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - our own names

        def into_file(row: tuple[Any, ...]) -> None:
            if lean:
                begin_alone(file)
            else:
                file.execute("BEGIN IMMEDIATE")
            file.execute(insert, row)
            file.execute("COMMIT")

        return into_file
    own = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    server = psycopg.connect(own, autocommit=lean)
    order = f"INSERT INTO bare ({names}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"  # noqa: S608 - our own names

    def into_server(row: tuple[Any, ...]) -> None:
        server.execute(order, row)
        server.commit()

    return into_server


def _append(turn: str) -> tuple[float, float]:
    """Append in one worker; gives when it began and ended."""
    ledger, count = _STATE["ledger"], _STATE["count"]
    made = [entry(CHAIN, f"{turn}:{_STATE['name']}", number) for number in range(count)]
    _STATE["barrier"].wait()
    began = time.perf_counter()
    for item in made:
        ledger.append(item, _STATE["fence"])
    return began, time.perf_counter()


def _insert(turn: str) -> tuple[float, float]:
    """Insert the rows that this worker wrote in the turn before, under another chain."""
    return _insert_with("bare", turn)


def _insert_leanest(turn: str) -> tuple[float, float]:
    """Insert them again, as fast as we can."""
    return _insert_with("leanest", turn)


def _insert_with(way: str, turn: str) -> tuple[float, float]:
    name, column = _STATE["name"], schema.entry.c
    mine = (column.chain == CHAIN, column.key.startswith(f"outcome:{turn}:{name}:", autoescape=True))
    with sa.create_engine(_STATE["url"]).connect() as connection:
        rows = [tuple(row) for row in connection.execute(sa.select(schema.entry).where(*mine))]
    if len(rows) != _STATE["count"]:
        raise SystemExit(f"{name} wrote {len(rows)} entries in turn {turn}")
    place = COLUMNS.index("chain")
    rows = [(*row[:place], f"{way}-{turn}-{name}", *row[place + 1 :]) for row in rows]
    if way == "leanest":
        # Positions are unique: those of the other side are taken.
        position = COLUMNS.index("position")
        rows = [(*row[:position], -row[position], *row[position + 1 :]) for row in rows]
    _STATE["barrier"].wait()
    began = time.perf_counter()
    for row in rows:
        _STATE[way](row)
    return began, time.perf_counter()


def rates(url: str, processes: int) -> dict[str, float]:
    """Give the medians of appends, bare inserts and leanest bare inserts a second, all processes together.

    Under a side's name with ``/`` before it: the median of the turns' own ratios, because what else the machine does
    changes between turns more than within one.
    """
    copy = schema.entry.to_metadata(sa.MetaData(), name="bare")
    for part in [*copy.indexes, *copy.constraints]:
        # PostgreSQL's names of indexes and unique constraints are the database's, not the table's.
        part.name = f"{part.name}_bare" if part.name else None
    engine = sa.create_engine(url)
    open_ledger(url).close()
    copy.drop(engine, checkfirst=True)
    copy.create(engine)
    engine.dispose()
    spawn = multiprocessing.get_context("spawn")
    barrier, numbers, count = spawn.Barrier(processes), spawn.Value("i", processes * 100), APPENDS[processes]
    sides = {"ours": _append, "bare": _insert, "leanest": _insert_leanest}
    found: dict[str, list[float]] = {name: [] for name in sides}
    with spawn.Pool(processes, _begin, (url, count, barrier, numbers)) as pool:
        for turn in range(TURNS):
            for name, side in sides.items():
                times = pool.map(side, [f"{processes}-{turn}"] * processes, chunksize=1)
                spent = max(end for _, end in times) - min(began for began, _ in times)
                found[name].append(processes * count / spent)
    ratios = {f"/{name}": [a / b for a, b in zip(found["ours"], found[name], strict=True)] for name in sides}
    return {name: statistics.median(values) for name, values in (found | ratios).items()}


def grouped(url: str) -> float:
    """Give the appends a second of one process with as many callers at once as a wave has."""
    ledger = open_ledger(url)

    async def run() -> float:
        writer = LedgerWriter(ledger)

        async def caller(number: int) -> None:
            for step in range(10):
                await writer.append(entry(f"grouped-{number}", str(step), number))

        began = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        spent = time.perf_counter() - began
        await writer.close()
        return CALLERS * 10 / spent

    answer = asyncio.run(run())
    ledger.close()
    return answer


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Give the URLs of a SQLite file on this disk and of a PostgreSQL server that syncs to it."""
    with tempfile.TemporaryDirectory() as folder, postgres_server(durable=True) as server:
        yield {"SQLite": f"sqlite:///{Path(folder)}/ledger.db", "PostgreSQL": server.fresh()}


def sync_seconds() -> float:
    """Give the median time of a small write that is synced to this disk."""
    times = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(200):
            began = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, 0)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> int:
    """Print rates and ratios; exit code 1 when a target is missed."""
    met = True
    print(f"one sync of 4 KB to this disk: {1000 * sync_seconds():.2f} ms", flush=True)
    with databases() as urls:
        for name, url in urls.items():
            for processes in PROCESSES:
                found = rates(url, processes)
                ours, bare, leanest, ratio = found["ours"], found["bare"], found["leanest"], found["/bare"]
                met = met and ratio >= LEAST
                said, rate = f"{name}, {processes} at once", f"{ours:.0f} appends/s, {bare:.0f} bare inserts/s"
                print(f"{said}: {rate}, ratio {ratio:.2f} (at least {LEAST})", flush=True)
                print(f"  leanest bare inserts: {leanest:.0f}/s, ratio {found['/leanest']:.2f}", flush=True)
            print(f"{name}, group commit, {CALLERS} callers in one process: {grouped(url):.0f} appends/s")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
