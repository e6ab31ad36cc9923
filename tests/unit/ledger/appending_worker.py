"""A process that appends until it is killed; prints each key once it is committed."""

from __future__ import annotations

import sys

from ledger_suite.values import K, R, claim, entry, fence
from patching.ledger.base import Lease
from patching.ledger.store import open_ledger


def main(url: str, name: str) -> None:
    ledger = open_ledger(url)
    lease = ledger.acquire(name, R, name, [claim("target", name)], ttl=30)
    assert isinstance(lease, Lease)
    number = 0
    while True:
        keys = [f"{name}:{number + offset}" for offset in range(1 + number % 5)]
        entries = [entry(K.GATE, key, note="x" * 500) for key in keys]
        if len(entries) == 1:
            ledger.append(entries[0], fence(lease))
        else:
            ledger.append_all(entries, fence(lease))
        number += len(keys)
        sys.stdout.write("\n".join(keys) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
