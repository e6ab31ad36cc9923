"""Notices: which events of the ledger somebody asked to be told about, and which of them were told. Pure.

The delivery is at least once, and in truth once: each notice has an intent in the ledger before it is sent and an end
after it. Only a sender that died between sending and writing the end leaves doubt, and then the notice is sent again,
with the same id and saying that it may be a repetition: a page that is lost is worse than one that comes twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from patching.change import Outcome
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry
from patching.rollout.states import RolloutState
from patching.value import JsonValue, Value

FRESH = timedelta(days=1)
"""What is older is told no more: whoever adds a connection is not told the history."""
STALE = timedelta(minutes=10)
"""An intent without an end is of a dead sender after this time."""
FIRST_PAUSE = timedelta(minutes=2)
LONGEST_PAUSE = timedelta(hours=1)
NAMED = 5

_STATES = {
    RolloutState.AWAITING_APPROVAL.value: "approval",
    RolloutState.HELD.value: "held",
    RolloutState.UNDONE.value: "undone",
    RolloutState.EXPIRED.value: "window-missed",
}
_KINDS = {
    EntryKind.QUARANTINED: "quarantined",
    EntryKind.WINDOW_MISSED: "window-missed",
    EntryKind.EMERGENCY_SUGGESTED: "emergency-suggested",
    EntryKind.INCIDENT_OPENED: "incident",
    EntryKind.SCHEDULER_SILENT: "scheduler-silent",
}
_BAD = (Outcome.FAILED.value, Outcome.UNKNOWN.value)
TELLING = (EntryKind.NOTICE, EntryKind.NOTICE_ENDED)
READ = (EntryKind.TRANSITION, EntryKind.TARGET_OUTCOME, *_KINDS, *TELLING)
"""Kinds that the functions here want to see."""


class Notice(Value):
    """One message to one connection: ``covers`` are the places of its entries in their chain.

    ``attempt`` counts from 1; ``repetition``: an earlier sender died, so it may have been delivered before.
    """

    id: str
    event: str
    connection: str
    policy: str
    rollout: str | None
    sentence: str
    covers: tuple[int, ...]
    at: datetime
    attempt: int = 1
    repetition: bool = False

    @property
    def key(self) -> str:
        """Key of its intent in the ledger: who writes it first, sends it."""
        return f"notice:{self.connection}:{self.id}:{self.attempt}"

    @property
    def text(self) -> str:
        """The message as people read it, with the change id."""
        change = f" (change {self.rollout})" if self.rollout else ""
        again = " (this may be a repetition: its first sender died)" if self.repetition else ""
        return f"[patching] {self.event}: {self.sentence}{change}{again}"

    def payload(self) -> dict[str, JsonValue]:
        """Give the JSON document that a webhook gets; ``text`` is what Slack and its kind show."""
        return {
            "schema": "patching/notice/v1",
            "text": self.text,
            "notice": self.id,
            "event": self.event,
            "policy": self.policy,
            "change_id": self.rollout,
            "sentence": self.sentence,
            "at": self.at.isoformat(),
            "repetition": self.repetition,
        }


def event_of(entry: LedgerEntry) -> str | None:
    """Name the event that an entry is, None where it is none."""
    if entry.kind is EntryKind.TRANSITION:
        return _STATES.get(str(entry.body.get("to")))
    if entry.kind is EntryKind.TARGET_OUTCOME:
        return "failed" if entry.body.get("outcome") in _BAD else None
    return _KINDS.get(entry.kind)


def due(
    entries: Sequence[LedgerEntry],
    connection: str,
    events: Iterable[str],
    policy: str,
    now: datetime,
) -> list[Notice]:
    """Give what has to be sent now over a connection, from one chain's entries of the kinds ``READ``.

    Events that nobody was told yet are put together, one notice for each kind of event; notices that failed, or whose
    sender died, come again after a while.
    """
    wanted = frozenset(events)
    intents = [_notice(item) for item in entries if item.kind is EntryKind.NOTICE]
    mine = [item for item in intents if item.connection == connection]
    covered = {(item.event, seq) for item in mine for seq in item.covers}
    fresh: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        event = event_of(entry)
        if event in wanted and (event, entry.seq) not in covered and now - entry.at <= FRESH:
            fresh.setdefault(str(event), []).append(entry)
    found = [_new(event, items, connection, policy) for event, items in fresh.items()]
    return [*_again(mine, entries, now), *found]


def _again(mine: Sequence[Notice], entries: Sequence[LedgerEntry], now: datetime) -> list[Notice]:
    """Give the notices whose last attempt failed or was never ended, once their pause is over."""
    last = {item.id: item for item in mine}
    began = {entry.key: entry.at for entry in entries if entry.kind is EntryKind.NOTICE}
    ended = {str(entry.body["key"]): entry for entry in entries if entry.kind is EntryKind.NOTICE_ENDED}
    found = []
    for item in last.values():
        end = ended.get(item.key)
        if (end is not None and end.body.get("ok")) or now - item.at > FRESH:
            continue
        since = began[item.key] if end is None else end.at
        if now - since < (STALE if end is None else pause(item.attempt)):
            continue
        doubt = item.repetition or end is None
        found.append(item.model_copy(update={"attempt": item.attempt + 1, "repetition": doubt}))
    return found


def pause(attempts: int) -> timedelta:
    """Give how long to wait after that many failed attempts: doubling, at most an hour."""
    doubled: timedelta = FIRST_PAUSE * 2 ** min(attempts - 1, 10)
    return min(doubled, LONGEST_PAUSE)


def _notice(entry: LedgerEntry) -> Notice:
    return Notice.model_validate(entry.body["notice"])


def _new(event: str, entries: Sequence[LedgerEntry], connection: str, policy: str) -> Notice:
    first = entries[0]
    about = policy if first.chain != CONTROL else first.body.get("policy")
    rollout = first.body.get("rollout") if first.chain == CONTROL else first.chain
    return Notice(
        id=f"{first.chain}:{event}:{first.seq}",
        event=event,
        connection=connection,
        policy=str(about or "all"),
        rollout=str(rollout) if rollout else None,
        sentence=(f"{about}: " if about else "") + _sentence(event, entries),
        covers=tuple(entry.seq for entry in entries),
        at=entries[-1].at,
    )


def _sentence(event: str, entries: Sequence[LedgerEntry]) -> str:
    words: dict[str, Callable[[LedgerEntry], str]] = {
        "approval": lambda item: f"a plan waits for approval: {item.body.get('reason')}",
        "held": lambda item: f"held: {item.body.get('reason')}",
        "undone": lambda item: f"undone: {item.body.get('reason')}",
        "window-missed": lambda item: str(item.body.get("reason")),
        "emergency-suggested": lambda item: str(item.body.get("sentence")),
        "incident": lambda item: "incident {id}: {cause} ({runbook})".format(**item.body),
        "scheduler-silent": lambda item: str(item.body.get("reason")),
    }
    if event in words:
        return "; ".join(dict.fromkeys(words[event](item) for item in entries))
    what = "failed" if event == "failed" else "in quarantine"
    named = [f"{item.target} ({item.body.get('reason')})" for item in entries[:NAMED]]
    more = f" and {len(entries) - NAMED} more" if len(entries) > NAMED else ""
    return f"{len(entries)} {what}: {', '.join(named)}{more}"
