"""The hash chain, without a database: from something to be written to the exact bytes that are stored, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from patching.errors import LedgerError
from patching.ledger.entry import GENESIS, EntryKind, LedgerEntry, NewEntry, entry_hash
from patching.ledger.redaction import redact
from patching.value import JsonValue, canonical

# A step is stored to be carried out later: a step with a hole in it must never reach a host.
_CARRIED_OUT = frozenset({EntryKind.INTENT, EntryKind.STEPS_RESOLVED})


class Cleaned(NamedTuple):
    """An entry as it may be written, and its body in the bytes that are stored."""

    entry: NewEntry
    body: str


def cleaned(entry: NewEntry) -> Cleaned:
    """Redact and cap an entry's body; raises LedgerError for a *step* that would need it, and for values JSON lacks."""
    for name, text in (("chain", entry.chain), ("key", entry.key), ("target", entry.target), ("step", entry.step)):
        _check_name(name, text)
    redaction = redact(entry.body)
    if redaction.paths and entry.kind in _CARRIED_OUT:
        raise LedgerError(
            f'"{entry.key}" of {entry.chain} has something that looks like a secret, or is longer than 64 KiB, at '
            f"{', '.join(redaction.paths)}: nothing was written and nothing may run, because a resumed step would run "
            "with a hole in it. Pass secrets by connection and long texts by document."
        )
    text = canonical_text(redaction.value, f'"{entry.key}" of {entry.chain}')
    return Cleaned(entry.model_copy(update={"body": json.loads(text)}), text)


def canonical_text(value: JsonValue, what: str) -> str:
    """Write a value as canonical JSON text; raises LedgerError naming ``what`` if it is no JSON."""
    try:
        return canonical(value).decode()
    except (ValueError, TypeError) as error:
        raise LedgerError(
            f"{what} cannot be written as canonical JSON ({error}): nothing was written. Allowed are text, true, "
            "false, null, finite numbers, whole numbers below 2^53, lists, and objects."
        ) from error


def seal(entry: NewEntry, *, seq: int, at: datetime, previous: str) -> LedgerEntry:
    """Give a cleaned entry its place in its chain."""
    hashed = entry_hash(previous, seq, at, entry)
    return LedgerEntry(**dict(entry), seq=seq, at=at, previous=previous, hash=hashed)


def same(first: LedgerEntry, again: NewEntry) -> bool:
    """Whether an entry says again exactly what was written before (who says it counts, too)."""
    return all(getattr(first, name) == getattr(again, name) for name in NewEntry.model_fields)


class ChainCheck:
    """Checks a chain row by row, in order of ``seq``; feed it rows, then ask ``finish`` about the head.

    Rows are mappings with the columns of table ``entry``.
    """

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self.seq = 0
        self.hash = GENESIS

    def row(self, row: Any) -> Iterable[tuple[int, str]]:
        """Give (seq, message) for everything wrong with the next row."""
        seq = row["seq"]
        if seq != self.seq + 1:
            gone = f"entry {self.seq + 1}" if seq == self.seq + 2 else f"entries {self.seq + 1} to {seq - 1}"
            yield seq, f"{gone} of this chain are missing: somebody removed what was recorded there"
        elif row["previous"] != self.hash:
            yield seq, "does not follow from its predecessor: one of the two was changed or exchanged"
        problem = _own_problem(row)
        if problem:
            yield seq, problem
        self.seq, self.hash = seq, row["hash"]

    def finish(self, head: tuple[int, str] | None) -> Iterable[tuple[int, str]]:
        """Give (seq, message) if the chain does not end where the recorded head says."""
        if head is None:
            if self.seq:
                yield self.seq, "the chain has no recorded head: it cannot be shown that it ends here"
        elif head[0] > self.seq:
            yield self.seq, f"the chain ends at {self.seq} but its recorded head is {head[0]}: its end was cut off"
        elif head != (self.seq, self.hash):
            yield head[0], f"the recorded head is {head[0]} ({head[1][:12]}…), the chain ends at {self.seq}: forged end"


def _own_problem(row: Any) -> str | None:
    try:
        body = json.loads(row["body"])
        if canonical(body).decode() != row["body"]:
            return "its body is not in canonical form: it was changed after it was written"
        entry = NewEntry(**{name: row[name] for name in NewEntry.model_fields if name != "body"}, body=body)
        at = datetime.fromisoformat(row["at"])
        computed = entry_hash(row["previous"], row["seq"], at, entry)
    except (ValueError, TypeError) as error:
        return f"cannot be read ({type(error).__name__}): it was changed after it was written"
    if computed != row["hash"] or at.isoformat() != row["at"]:
        return "its hash does not match what it says: it was changed after it was written"
    return None


def _check_name(name: str, text: str | None) -> None:
    if text is None:
        return
    if not text or "\x00" in text or not _encodable(text):
        raise LedgerError(f"an entry's {name} is {text!r}: it must be text without NUL; nothing was written")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
