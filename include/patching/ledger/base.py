"""Ledger: the port to the append-only record and to the state that is projected from it.

All calls are blocking and thread-safe. Asynchronous callers go through ``ledger.writer``, which commits in groups.
Every call raises LedgerUnavailable when the database is gone; then nothing new may be launched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from patching.change import Outcome, TargetState
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.rollout.states import RolloutState
from patching.value import JsonValue, Value

T = TypeVar("T")


class RolloutRow(Value):
    """Projection of one rollout; ``waits_for`` is the one sentence of what it waits for, or empty."""

    id: str
    policy: str
    state: RolloutState
    plan_digest: str | None
    emergency: bool
    opened_at: datetime
    updated_at: datetime
    waits_for: str = ""
    reason: str = ""
    run: str | None = None


class TargetRow(Value):
    """Projection of one target in one rollout."""

    rollout: str
    target: str
    wave: int
    state: TargetState
    phase: str = ""
    outcome: Outcome | None = None
    detail: str = ""
    waits_for: str = ""
    generation: int = 0
    undo_outcome: Outcome | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    signature: str | None = None


class OutcomeCount(Value):
    """How many targets of a wave ended one way; ``outcome`` None = not ended, ``signature`` groups the same cause."""

    wave: int
    outcome: Outcome | None
    signature: str | None = None
    targets: int


class Intent(Value):
    """Projection of one act: an intent without an outcome is *unknown*."""

    rollout: str
    target: str
    step_id: str
    step: dict[str, JsonValue]
    generation: int
    handle: dict[str, JsonValue] | None = None
    open: bool = True
    at: datetime


class Claim(Value):
    """One resource to be leased: at most ``limit`` holders of (kind, name) at once."""

    kind: str
    name: str
    limit: int


class Lease(Value):
    """A held set of claims; ``epoch`` fences every append made under it."""

    id: str
    owner: str
    epoch: int
    rollout: str
    target: str
    claims: tuple[Claim, ...]
    expires_at: datetime


class Waiter(Value):
    """Somebody who waits for claims since ``since``; ``holds``: it holds a lease already and wants more."""

    rollout: str
    target: str
    owner: str
    since: datetime
    claims: tuple[Claim, ...]
    holds: bool = False


class Busy(Value):
    """A lease that could not be had: which resource is full, who holds it, and who asked for it earlier."""

    kind: str
    name: str
    limit: int
    holders: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """One sentence that says what is waited for."""
        who = ", ".join(self.holders[:4]) or "nobody"
        return f"waits for {self.kind} {self.name}: {len(self.holders)} of {self.limit} in use by {who}"

    def elsewhere(self, rollout: str) -> bool:
        """Whether somebody of another rollout, or nobody knows who, is in the way."""
        return any(f"(rollout {rollout}" not in who for who in self.holders)


class Fence(Value):
    """Proof of ownership that an append is conditional on."""

    lease: str
    epoch: int


class Quarantine(Value):
    """One target that no rollout touches until it expires or a person releases it."""

    target: str
    rollout: str
    reason: str
    since: datetime
    until: datetime | None = None


class Standing(Value):
    """What decides whether a rollout may begin more.

    The stop switch's reason, the rollout's state (None = gone), how its targets ended, and who is in quarantine.
    """

    stopped: str | None
    state: RolloutState | None
    outcomes: tuple[OutcomeCount, ...]
    quarantines: tuple[Quarantine, ...] = ()


class Known(Value):
    """What the ledger has of one target of a rollout, and which of the rollout's targets are ``down``."""

    row: TargetRow | None
    entries: tuple[LedgerEntry, ...]
    down: frozenset[str]


class Beat(Value):
    """When something was last heard of, by the ledger's clock, and how often it was."""

    name: str
    at: datetime
    beats: int


class PastJob(Value):
    """One change job that ended well: how many seconds it took, and whether the target rebooted."""

    seconds: float
    rebooted: bool = False


class Problem(Value):
    """One thing that is wrong with a chain."""

    chain: str
    seq: int
    message: str


class Head(Value):
    """Where a chain ends; kept elsewhere, it proves later that nothing before it was cut off or rewritten."""

    chain: str
    seq: int
    hash: str


class LedgerTransaction(Protocol):
    """What can be written together; each method is that of ``Ledger`` with the same name."""

    def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry and its projection."""
        ...

    def store_document(self, kind: str, document: JsonValue) -> str:
        """Keep a large document by its digest."""
        ...

    def acquire(self, owner: str, rollout: str, target: str, claims: Sequence[Claim], *, ttl: float) -> Lease | Busy:
        """Take the whole set of claims, or none."""
        ...

    def extend(self, lease: Lease, claims: Sequence[Claim]) -> Lease | Busy:
        """Add claims to a held lease."""
        ...

    def heartbeat(self, lease: Lease, *, ttl: float) -> Lease:
        """Prolong a lease; raises FenceLost."""
        ...

    def release(self, lease: Lease) -> None:
        """End a lease and free its capacity."""
        ...

    def leave_queue(self, rollout: str, target: str) -> None:
        """Take a target that wants its lease no more out of the queue, so that it keeps nobody waiting."""
        ...

    def stopped(self) -> str | None:
        """Reason of the stop switch that is on for everything, None when it is off."""
        ...


class Ledger(Protocol):
    """The append-only record of everything decided and done."""

    def append(self, entry: NewEntry, fence: Fence | None = None) -> LedgerEntry:
        """Write one entry and its projection in one transaction; the same key and body again returns the first.

        Raises LedgerConflict (same key, other body), FenceLost, TransitionRefused.
        """
        ...

    def append_all(self, entries: Sequence[NewEntry], fence: Fence | None = None) -> list[LedgerEntry]:
        """Write several entries in one transaction, all or none."""
        ...

    def group(self, work: Sequence[Callable[[LedgerTransaction], T]]) -> list[T]:
        """Do the work of several writers in one transaction, all or none; gives what each returned.

        The work may be done again where a neighbour fails: it must only use the transaction.
        """
        ...

    def entries(
        self,
        chain: str,
        *,
        after: int = 0,
        kinds: Sequence[EntryKind] = (),
        target: str | None = None,
        limit: int | None = None,
    ) -> list[LedgerEntry]:
        """Read a chain in order."""
        ...

    def find(self, chain: str, key: str) -> LedgerEntry | None:
        """Find one entry by its key."""
        ...

    def chains(self) -> list[str]:
        """List all chains."""
        ...

    def store_document(self, kind: str, document: JsonValue) -> str:
        """Keep a large document by its digest (idempotent); returns the digest."""
        ...

    def document(self, digest: str) -> JsonValue:
        """Read a document back; raises LedgerError if it is unknown."""
        ...

    def transition(
        self,
        rollout: str,
        to: RolloutState,
        *,
        reason: str,
        actor: str | None = None,
        only_from: Collection[RolloutState] = (),
    ) -> RolloutRow:
        """Change a rollout's state if the table allows it (already there: no change); raises TransitionRefused.

        With ``only_from`` it must be in one of these states, checked in the same transaction.
        """
        ...

    def rollout(self, rollout: str) -> RolloutRow | None:
        """Read one rollout."""
        ...

    def rollouts(self, *, policy: str | None = None, open_only: bool = False, limit: int = 100) -> list[RolloutRow]:
        """List rollouts, newest first."""
        ...

    def rollout_of(self, run: str) -> str | None:
        """Find the rollout that a run (as named in ``run_began``) works or worked on last."""
        ...

    def targets(self, rollout: str) -> list[TargetRow]:
        """List the targets of a rollout in plan order (wave, then name)."""
        ...

    def target(self, rollout: str, target: str) -> TargetRow | None:
        """Read one target of a rollout; None where the plan does not have it."""
        ...

    def down(self, rollout: str) -> list[TargetRow]:
        """List the targets that count as unavailable though no job holds their place.

        Those that ended offline, those that were begun, failed and are not undone, and those that failed and are to be
        tried again.
        """
        ...

    def outcomes(self, rollout: str) -> list[OutcomeCount]:
        """Count a rollout's targets by wave, outcome and signature: as cheap for thousands as for ten."""
        ...

    def standing(self, rollout: str, *, now: datetime) -> Standing:
        """Read together what decides whether a rollout may begin more: it is asked before every change job."""
        ...

    def known(self, rollout: str, target: str) -> Known:
        """Read together what a change job must know of its target once it holds the lease."""
        ...

    def past_jobs(self, policy: str, *, limit: int = 500) -> list[PastJob]:
        """List the latest change jobs of a policy that ended well, in all its rollouts."""
        ...

    def holding(self, target: str, *, other_than: str | None = None) -> list[TargetRow]:
        """List the rows of a target in open rollouts where it has begun and not ended."""
        ...

    def later_rollouts(self, rollout: str, target: str) -> list[str]:
        """List rollouts that changed the target after this one did."""
        ...

    def intents(self, *, rollout: str | None = None, target: str | None = None, open_only: bool = True) -> list[Intent]:
        """List intents; open ones have no outcome."""
        ...

    def acquire(self, owner: str, rollout: str, target: str, claims: Sequence[Claim], *, ttl: float) -> Lease | Busy:
        """Take the whole set of claims in one transaction, or none.

        The same rollout and target again: the living owner keeps it (Busy for others); an expired owner is replaced
        with a higher epoch (LEASE_TAKEN_OVER). Expiry moves ownership, never capacity. Whoever is told Busy has asked,
        and is not overtaken for ever as long as it asks again within ``ttl``.
        """
        ...

    def extend(self, lease: Lease, claims: Sequence[Claim]) -> Lease | Busy:
        """Add claims (a reboot's) to a held lease."""
        ...

    def heartbeat(self, lease: Lease, *, ttl: float) -> Lease:
        """Prolong a lease; raises FenceLost."""
        ...

    def release(self, lease: Lease) -> None:
        """End a lease and free its capacity."""
        ...

    def leave_queue(self, rollout: str, target: str) -> None:
        """Take a target that wants its lease no more out of the queue, so that it keeps nobody waiting."""
        ...

    def leases(self) -> list[Lease]:
        """List all held leases."""
        ...

    def waiters(self) -> list[Waiter]:
        """List who waits for a lease now, the earliest first."""
        ...

    def held_since(self) -> dict[str, datetime]:
        """Say since when each held lease is held, by its id."""
        ...

    def quarantines(self, *, now: datetime) -> list[Quarantine]:
        """List targets in quarantine at a moment."""
        ...

    def stopped(self) -> str | None:
        """Reason of the stop switch that is on for everything, None when it is off."""
        ...

    def beat(self, name: str) -> Beat | None:
        """Write down that ``name`` is alive now; gives the beat before, None at the first.

        It is a row and no entry: it proves nothing, and restoring or rebuilding the ledger needs none of it.
        """
        ...

    def beats(self) -> list[Beat]:
        """List when each was last heard of, by name."""
        ...

    def verify(self, chain: str | None = None) -> list[Problem]:
        """Check the hash chains and that every referenced document is there and unchanged."""
        ...

    def rebuild(self) -> None:
        """Build all projections anew from the entries."""
        ...

    def now(self) -> datetime:
        """Give the ledger's clock."""
        ...
