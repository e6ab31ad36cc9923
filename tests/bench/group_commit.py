"""Group commit against one commit an entry: the ratio is what counts, because both share one disk and one moment."""

from __future__ import annotations

import asyncio
import tempfile
import time

from patching.ledger.entry import EntryKind, NewEntry
from patching.ledger.store import SqlLedger, open_ledger
from patching.ledger.writer import LedgerWriter

ENTRIES = 1000


def _entries(chain: str) -> list[NewEntry]:
    body = {"stdout": "x" * 400}
    kind = EntryKind.STEP_OUTCOME
    return [NewEntry(chain=chain, kind=kind, key=f"o:{n}", step=f"s{n}", body=body) for n in range(ENTRIES)]


def _one_by_one(ledger: SqlLedger) -> float:
    began = time.perf_counter()
    for entry in _entries("one-by-one"):
        ledger.append(entry)
    return time.perf_counter() - began


async def _in_groups(ledger: SqlLedger) -> float:
    writer = LedgerWriter(ledger)
    began = time.perf_counter()
    await asyncio.gather(*(writer.append(entry) for entry in _entries("in-groups")))
    took = time.perf_counter() - began
    await writer.close()
    return took


def measure(url: str | None = None) -> dict[str, float]:
    """Measure on a new SQLite file, or on the given database; gives seconds and how many times faster groups are."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(url or f"sqlite:///{folder}/ledger.db")
        single, grouped = _one_by_one(ledger), asyncio.run(_in_groups(ledger))
        ledger.close()
    return {"one_by_one_s": round(single, 3), "in_groups_s": round(grouped, 3), "ratio": round(single / grouped, 2)}


if __name__ == "__main__":
    result = measure()
    print(f"{ENTRIES} entries: {result}")
    if result["ratio"] <= 1:
        raise SystemExit("group commit must beat one commit an entry")
