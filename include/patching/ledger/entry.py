"""LedgerEntry: what is written down, its kinds, and the hash that chains it to its predecessor.

What each kind's body holds, and what it changes in the projected state:

=====================  ==========================================================================================
rollout_opened         policy, emergency, requested_by → the rollout exists, ``planned``
policy_frozen          policy (digest of the document)
snapshots_taken        snapshots (digest of {target: Snapshot}), preflight (digest), stage ``discover``/``prepare``
plan_frozen            plan (digest), advisories (digest of {id: urgency} that it knew), targets [{name, wave}]
                       → plan digest; every target ``pending``
transition             from, to, reason → the rollout's state; final states clear ``waits_for``
run_began, run_ended   run, mode → the rollout's run (cleared at the end, with what its targets waited for);
                       in chain ``control`` they are notes and change nothing
approval               person, decision, plan (digest), source
approval_decided       approved (bool), people, plan (digest), reason
gate                   wave, gate, open (bool), reason
waits                  sentence → ``waits_for`` of the rollout, or of ``target`` where one is named
                       (a pending target is ``waiting`` as long as the sentence is not empty)
wave_started           wave, targets, control
joined_late            reason: entry.target joined the inventory after planning and waits for the next plan
target_began           wave, run → target ``running``
steps_resolved         phase, generation, steps [Step]
intent                 step (Step), generation; entry.step = step id → an open intent
step_outcome           exit_code, attach, stdout, stderr (capped, redacted); entry.step = step id → intent closed
target_progress        phase, detail, handle (optional, with entry.step) → phase and detail of the target
                       (phase ``undo``: ``undoing``)
target_outcome         outcome, reason, signature, undo (bool) → target ``ended`` (undo: its undo outcome)
generation_raised      generation, reason, reopen (bool) → generation; reopen: target ``pending`` again, no outcome
                       (it stays begun: what it was changed to must not be forgotten); reopen_undo (bool): its undo
                       outcome is cleared
wave_reopened          wave, targets, reason: its verdict holds no more, it is judged anew after these targets
wave_applied           wave, applied, failed, …
polled                 wave, check, at, values {target: number}, failed {target: why}: one round of asking a source
                       that has no past
measured               wave, check, data (digest)
verdict                wave, verdict, reason, checks; a person's after the judge's: also by, judged; irreversible
                       {target: reason} where an undo is held because of them
drill                  what (``begun``, ``proven``): the rollback drill on the first canary
restored               reason: a person says that entry.target was restored to what it was before the change
late_verdict           verdict, reason, checks: of the watch after the rollout was completed
quarantined, released  reason, until / reason → the quarantine list (released with what ``place``: no change)
aborted_now            reason: jobs that have not begun to change their target are cancelled
superseded_targets     targets, by → those not begun get outcome ``superseded``
emergency              what it passed and who asked
lease_*                lease, owner, epoch, claims, expires_at, from → the leases (written by acquire, release)
offers_seen            in chain ``control``: data (digest of {name=version: first seen}), new (how many); for ``minAge``
error_budget           wave, level, budgets [BudgetView]: what a look at the error budgets found
exploited_list         in chain ``control``: data (digest of the sorted ids), released, version, added
emergency_suggested    in chain ``control``: policy, rollout, advisories, targets, sentence, released
stop_switch            on (bool), reason, in chain ``control`` → the stop switch
incident_*             in chain ``control``: id, rollout, policy, cause, targets, runbook (opened); id, rollout,
                       evidence (digest, of entry.target); id, reason (released): see ``rollout.incidents``
window_missed          opens, closes, reason: a window passed and nothing of this rollout was begun in it
scheduler_silent       in chain ``control``: from, reason: patch_reconcile was not heard of for too long
notice                 notice (``report.notice.Notice``), owner → about to be sent over a connection
notice_ended           key (of the notice), id, ok (bool), detail → it was delivered, or could not be
report                 markdown, json (digests)
=====================  ==========================================================================================
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from json.encoder import encode_basestring
from typing import NamedTuple

from pydantic import Field

from patching.value import JsonValue, Value, canonical

CONTROL = "control"
GENESIS = "0" * 64


class EntryKind(StrEnum):
    """Everything that the ledger records."""

    ROLLOUT_OPENED = "rollout_opened"
    POLICY_FROZEN = "policy_frozen"
    SNAPSHOTS_TAKEN = "snapshots_taken"
    PLAN_FROZEN = "plan_frozen"
    TRANSITION = "transition"
    RUN_BEGAN = "run_began"
    RUN_ENDED = "run_ended"
    APPROVAL = "approval"
    APPROVAL_DECIDED = "approval_decided"
    GATE = "gate"
    WAITS = "waits"
    WAVE_STARTED = "wave_started"
    JOINED_LATE = "joined_late"
    TARGET_BEGAN = "target_began"
    STEPS_RESOLVED = "steps_resolved"
    INTENT = "intent"
    STEP_OUTCOME = "step_outcome"
    TARGET_PROGRESS = "target_progress"
    TARGET_OUTCOME = "target_outcome"
    GENERATION_RAISED = "generation_raised"
    WAVE_REOPENED = "wave_reopened"
    WAVE_APPLIED = "wave_applied"
    POLLED = "polled"
    MEASURED = "measured"
    GUARD = "guard"
    VERDICT = "verdict"
    DRILL = "drill"
    RESTORED = "restored"
    LATE_VERDICT = "late_verdict"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    SUPERSEDED_TARGETS = "superseded_targets"
    EMERGENCY = "emergency"
    LEASE_TAKEN = "lease_taken"
    LEASE_TAKEN_OVER = "lease_taken_over"
    LEASE_ENDED = "lease_ended"
    OFFERS_SEEN = "offers_seen"
    ERROR_BUDGET = "error_budget"
    EXPLOITED_LIST = "exploited_list"
    EMERGENCY_SUGGESTED = "emergency_suggested"
    STOP_SWITCH = "stop_switch"
    ABORTED_NOW = "aborted_now"
    INCIDENT_OPENED = "incident_opened"
    INCIDENT_EVIDENCE = "incident_evidence"
    INCIDENT_RELEASED = "incident_released"
    WINDOW_MISSED = "window_missed"
    SCHEDULER_SILENT = "scheduler_silent"
    NOTICE = "notice"
    NOTICE_ENDED = "notice_ended"
    REPORT = "report"


class NewEntry(Value):
    """Something to be written: ``key`` makes it idempotent within its chain (same key and body = written once)."""

    chain: str
    kind: EntryKind
    key: str
    target: str | None = None
    step: str | None = None
    actor: str | None = None
    body: dict[str, JsonValue] = Field(default_factory=dict)


class LedgerEntry(NewEntry):
    """Something written: its place in the chain, when, and the hashes."""

    seq: int
    at: datetime
    previous: str
    hash: str


class Frame(NamedTuple):
    """The canonical JSON (RFC 8785) of an entry but for its moment and its place, which are known when it is written.

    The names are in the order that RFC 8785 asks for. Whatever writes entries joins these same parts.
    """

    before_at: str
    before_seq: str
    after_seq: str

    def stamped(self, seq: int, at: str) -> str:
        """Give the whole text; ``at`` is an ISO 8601 moment."""
        return f"{self.before_at}{at}{self.before_seq}{seq}{self.after_seq}"


def framed(entry: NewEntry, body: str) -> Frame:
    """Make the frame of an entry whose body is written as ``body``, in canonical JSON."""
    named = (entry.actor, entry.chain, entry.key, entry.kind.value, entry.step, entry.target)
    actor, chain, key, kind, step, target = ("null" if text is None else encode_basestring(text) for text in named)
    return Frame(
        before_at=f'{{"actor":{actor},"at":"',
        before_seq=f'","body":{body},"chain":{chain},"key":{key},"kind":{kind},"seq":',
        after_seq=f',"step":{step},"target":{target}}}',
    )


def hashed(previous: str, text: str) -> str:
    """Hash an entry's whole text over its predecessor's hash: SHA-256."""
    return hashlib.sha256((previous + text).encode()).hexdigest()


def entry_hash(previous: str, seq: int, at: datetime, entry: NewEntry) -> str:
    """Hash an entry over its predecessor's hash and its own canonical JSON."""
    frame = framed(entry, canonical(entry.body).decode())
    return hashed(previous, frame.stamped(seq, at.isoformat()))
