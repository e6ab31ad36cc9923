"""SqlTransaction: everything that can be written together, in one transaction: entries, documents, leases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa

from patching.errors import LedgerError, TransitionRefused
from patching.ledger import lease_queue, leases, reading, schema
from patching.ledger.base import Busy, Claim, Fence, Lease
from patching.ledger.chain import canonical_text
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.ledger.recorder import Recorder
from patching.ledger.redaction import redact
from patching.value import JsonValue

_OWN_KINDS = {
    EntryKind.LEASE_TAKEN: "acquire()",
    EntryKind.LEASE_TAKEN_OVER: "acquire()",
    EntryKind.LEASE_ENDED: "release()",
}
# Documents whose digest others compute and bind to (an approval is of one digest): they must be stored as they are.
_BOUND = frozenset({"plan", "policy"})


class SqlTransaction:
    """One open transaction (the port is ``ledger.base.LedgerTransaction``); over as soon as ``group`` returns."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry and its projection; the same key and body again returns the first."""
        _check_kind(entry)
        return self._recorder.append(entry, fence)

    def store_document(self, kind: str, document: JsonValue) -> str:
        """Keep a large document by the digest of what is stored (idempotent); returns the digest.

        Secrets are redacted; a plan or policy that has any is refused (LedgerError), because others know its digest.
        """
        redaction = redact(document, longest=None)
        if redaction.paths and kind in _BOUND:
            raise LedgerError(
                f"the {kind} has something that looks like a secret at {', '.join(redaction.paths)}: it was not "
                "stored. Move it into a connection and name that"
            )
        text = canonical_text(redaction.value, f"the {kind} document")
        name = hashlib.sha256(text.encode()).hexdigest()
        known = sa.select(schema.document.c.digest).where(schema.document.c.digest == name)
        if self._recorder.connection.execute(known).first() is None:
            row = {"digest": name, "kind": kind, "body": text, "at": self._recorder.now.isoformat()}
            self._recorder.connection.execute(schema.document.insert().values(row))
        return name

    def acquire(self, owner: str, rollout: str, target: str, claims: Sequence[Claim], *, ttl: float) -> Lease | Busy:
        """Take the whole set of claims, or none; a renewal, a takeover, or Busy."""
        return leases.acquire(self._recorder, owner, rollout, target, claims, ttl=ttl)

    def extend(self, lease: Lease, claims: Sequence[Claim]) -> Lease | Busy:
        """Add claims (a reboot's) to a held lease; raises FenceLost."""
        return leases.extend(self._recorder, lease, claims)

    def heartbeat(self, lease: Lease, *, ttl: float) -> Lease:
        """Prolong a lease; raises FenceLost."""
        return leases.heartbeat(self._recorder, lease, ttl=ttl)

    def release(self, lease: Lease) -> None:
        """End a lease and free its capacity; raises FenceLost if somebody else holds it now."""
        leases.release(self._recorder, lease)

    def leave_queue(self, rollout: str, target: str) -> None:
        """Take a target that wants its lease no more out of the queue; one that does not wait is no error."""
        lease_queue.leave(self._recorder.connection, rollout, target)

    def stopped(self) -> str | None:
        """Reason of the stop switch that is on for everything, None when it is off."""
        return reading.stopped(self._recorder.connection)


def _check_kind(entry: NewEntry) -> None:
    if entry.kind is EntryKind.TRANSITION:
        raise TransitionRefused(
            f"a change of state of {entry.chain} is written by transition() only, which checks the table of "
            "transitions; nothing was written"
        )
    if entry.kind in _OWN_KINDS:
        raise LedgerError(f'"{entry.kind.value}" is written by {_OWN_KINDS[entry.kind]} only; nothing was written')
