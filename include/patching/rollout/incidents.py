"""Incidents: what locks a policy until a named person releases it; read from the control chain.

An undo that failed opens one (F10), so does a bad verdict on what cannot be undone, and a late regression (F5).

``incident_opened`` has id, rollout, policy, cause, targets and runbook; ``incident_evidence`` one target's evidence
(digest of a document); ``incident_released`` who and why. ``rollout.undo_failure`` gathers the evidence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from patching.errors import LedgerConflict, LedgerError, TransitionRefused
from patching.ledger.base import Ledger
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry, NewEntry
from patching.rollout.by_person import Done, why
from patching.value import Value

RUNBOOK = "docs/runbooks/undo-failed.md"
KINDS = (EntryKind.INCIDENT_OPENED, EntryKind.INCIDENT_EVIDENCE, EntryKind.INCIDENT_RELEASED)


class Incident(Value):
    """What went wrong and what it stops; ``evidence`` maps each target to the digest of what was gathered of it."""

    id: str
    rollout: str
    policy: str
    cause: str
    opened_at: datetime
    targets: tuple[str, ...] = ()
    evidence: dict[str, str] = Field(default_factory=dict)
    runbook: str = RUNBOOK
    released_at: datetime | None = None
    released_by: str | None = None
    release_reason: str = ""

    @property
    def locks(self) -> bool:
        """Whether it locks its policy: until a person has released it."""
        return self.released_at is None

    @property
    def sentence(self) -> str:
        """One sentence that says what is locked, by what, and who ends it."""
        return (
            f"policy {self.policy} is locked by incident {self.id} ({self.cause}): no rollout and no wave of it begins "
            f"until a person releases it ({self.runbook})"
        )


def open_incident(
    ledger: Ledger, name: str, *, rollout: str, policy: str, cause: str, targets: Sequence[str], runbook: str
) -> None:
    """Write that an incident locks a policy, once: whoever was faster with the same id, theirs is the one."""
    body = {
        "id": name,
        "rollout": rollout,
        "policy": policy,
        "cause": cause,
        "targets": list(targets),
        "runbook": runbook,
    }
    with contextlib.suppress(LedgerConflict):
        ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.INCIDENT_OPENED, key=f"incident:{name}", body=body))


def incidents(ledger: Ledger, *, policy: str | None = None, rollout: str | None = None) -> list[Incident]:
    """List incidents, oldest first, of one policy or rollout or of all; raises LedgerUnavailable."""
    found: dict[str, Incident] = {}
    for entry in ledger.entries(CONTROL, kinds=KINDS):
        name = str(entry.body["id"])
        if entry.kind is EntryKind.INCIDENT_OPENED:
            found[name] = _opened(entry)
        elif name in found:
            found[name] = _went_on(found[name], entry)
    return [item for item in found.values() if policy in (None, item.policy) and rollout in (None, item.rollout)]


def incident(ledger: Ledger, name: str) -> Incident | None:
    """Find one incident by its id."""
    return next((item for item in incidents(ledger) if item.id == name), None)


def lock_of(ledger: Ledger, policy: str) -> Incident | None:
    """Find the incident that locks a policy, the oldest first; None where nothing does."""
    return next((item for item in incidents(ledger, policy=policy) if item.locks), None)


def refuse_locked(ledger: Ledger, policy: str) -> None:
    """Raise TransitionRefused with the incident's sentence where the policy is locked."""
    locked = lock_of(ledger, policy)
    if locked is not None:
        raise TransitionRefused(f"{locked.sentence}. Nothing was written; `patching incident show {locked.id}`")


def release(ledger: Ledger, name: str, actor: str, reason: str) -> Done:
    """Release an incident: its policy may work again; what is held stays held until a person decides about it.

    Raises TransitionRefused (released before), LedgerError (no such incident; no name or reason).
    """
    said = why(actor, reason)
    found = incident(ledger, name)
    if found is None:
        raise LedgerError(f"the ledger has no incident {name}: nothing was written; `patching incident list` has all")
    if not found.locks:
        raise TransitionRefused(f"incident {name} was released before, by {found.released_by}: nothing was written")
    body = {"id": name, "reason": said}
    ledger.append(
        NewEntry(
            chain=CONTROL, kind=EntryKind.INCIDENT_RELEASED, key=f"incident-released:{name}", actor=actor, body=body
        )
    )
    other = lock_of(ledger, found.policy)
    if other is not None:
        return Done(row=ledger.rollout(found.rollout), sentence=f"incident {name} is released; {other.sentence}")
    sentence = (
        f"incident {name} is released: policy {found.policy} may work again; rollout {found.rollout} stays as it is "
        "until a person undoes or aborts it"
    )
    return Done(row=ledger.rollout(found.rollout), sentence=sentence)


def _opened(entry: LedgerEntry) -> Incident:
    body = entry.body
    return Incident(
        id=str(body["id"]),
        rollout=str(body["rollout"]),
        policy=str(body["policy"]),
        cause=str(body["cause"]),
        opened_at=entry.at,
        runbook=str(body.get("runbook") or RUNBOOK),
        targets=tuple(str(name) for name in body.get("targets", ())),
    )


def _went_on(found: Incident, entry: LedgerEntry) -> Incident:
    if entry.kind is EntryKind.INCIDENT_RELEASED:
        changes = {"released_at": entry.at, "released_by": entry.actor, "release_reason": str(entry.body["reason"])}
        return found.model_copy(update=changes)
    name = str(entry.target)
    targets = found.targets if name in found.targets else (*found.targets, name)
    evidence = {**found.evidence, name: str(entry.body["evidence"])}
    return found.model_copy(update={"targets": targets, "evidence": evidence})
