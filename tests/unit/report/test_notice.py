"""Which notices a ledger's entries call for: pure, from made entries (issue: told once each, with the change id)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry
from patching.report.notice import FRESH, STALE, Notice, due, pause

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ALL = (
    "approval",
    "held",
    "failed",
    "undone",
    "window-missed",
    "scheduler-silent",
    "emergency-suggested",
    "quarantined",
    "incident",
)
K = EntryKind


class Chain:
    """A chain of made entries."""

    def __init__(self, name: str = "web-1") -> None:
        self.name = name
        self.entries: list[LedgerEntry] = []

    def add(self, kind: EntryKind, at: datetime = NOW, key: str = "", target: str | None = None, **body: Any) -> int:
        seq = len(self.entries) + 1
        entry = LedgerEntry(
            chain=self.name,
            kind=kind,
            key=key or f"k{seq}",
            target=target,
            body=body,
            seq=seq,
            at=at,
            previous="",
            hash="",
        )
        self.entries.append(entry)
        return seq

    def due(self, now: datetime = NOW, connection: str = "slack", events: tuple[str, ...] = ALL) -> list[Notice]:
        return due(self.entries, connection, events, "web", now)

    def claimed(self, notice: Notice, at: datetime = NOW) -> None:
        self.add(K.NOTICE, at, notice.key, notice=notice.model_dump(mode="json"), owner="w")

    def ended(self, notice: Notice, *, ok: bool, at: datetime = NOW) -> None:
        self.add(K.NOTICE_ENDED, at, key=f"ended:{notice.key}", id=f"{notice.connection}:{notice.id}", ok=ok)
        last = self.entries[-1]
        self.entries[-1] = last.model_copy(update={"body": {**last.body, "key": notice.key}})


@pytest.mark.parametrize(
    ("kind", "body", "event", "says"),
    [
        (
            K.TRANSITION,
            {"to": "awaiting_approval", "reason": "40 targets"},
            "approval",
            "waits for approval: 40 targets",
        ),
        (K.TRANSITION, {"to": "held", "reason": "verdict"}, "held", "web: held: verdict"),
        (K.TRANSITION, {"to": "undone", "reason": "3 undone"}, "undone", "3 undone"),
        (K.TRANSITION, {"to": "expired", "reason": "too old"}, "window-missed", "too old"),
        (K.WINDOW_MISSED, {"reason": "the window passed"}, "window-missed", "the window passed"),
        (K.TARGET_OUTCOME, {"outcome": "failed", "reason": "dpkg"}, "failed", "1 failed: web-01 (dpkg)"),
        (K.TARGET_OUTCOME, {"outcome": "unknown", "reason": "dark"}, "failed", "web-01 (dark)"),
        (K.QUARANTINED, {"reason": "could not be undone"}, "quarantined", "1 in quarantine: web-01"),
    ],
)
def test_entry_is_told_as_its_event_with_the_change_id(kind: K, body: dict[str, Any], event: str, says: str) -> None:
    chain = Chain()
    chain.add(kind, target="web-01", **body)
    (notice,) = chain.due()
    assert notice.event == event
    assert says in notice.sentence
    assert "change web-1" in notice.text
    assert notice.payload()["change_id"] == "web-1"
    assert chain.due(events=tuple(set(ALL) - {event})) == []


@pytest.mark.parametrize(
    ("kind", "body", "event"),
    [
        (
            K.EMERGENCY_SUGGESTED,
            {"policy": "web", "rollout": "web-1", "sentence": "CVE-1 is exploited"},
            "emergency-suggested",
        ),
        (
            K.INCIDENT_OPENED,
            {"policy": "web", "rollout": "web-1", "id": "i1", "cause": "c", "runbook": "r"},
            "incident",
        ),
        (K.SCHEDULER_SILENT, {"reason": "nothing was heard"}, "scheduler-silent"),
    ],
)
def test_event_of_the_control_chain_names_its_rollout_where_it_has_one(
    kind: K, body: dict[str, Any], event: str
) -> None:
    chain = Chain(CONTROL)
    chain.add(kind, **body)
    (notice,) = chain.due()
    assert (notice.event, notice.rollout) == (event, body.get("rollout"))


@pytest.mark.parametrize("to", ["planned", "waiting", "running", "completed", "aborted", "superseded", "undoing"])
def test_other_states_are_no_event(to: str) -> None:
    chain = Chain()
    chain.add(K.TRANSITION, to=to, reason="x")
    chain.add(K.TARGET_OUTCOME, target="web-01", outcome="applied", reason="")
    assert chain.due() == []


def test_many_failures_are_one_notice_and_later_ones_another() -> None:
    chain = Chain()
    for number in range(8):
        chain.add(K.TARGET_OUTCOME, target=f"web-{number}", outcome="failed", reason="dpkg")
    (notice,) = chain.due()
    assert notice.covers == tuple(range(1, 9))
    assert "8 failed: web-0 (dpkg)" in notice.sentence
    assert notice.sentence.endswith("and 3 more")
    chain.claimed(notice)
    assert chain.due() == []
    chain.add(K.TARGET_OUTCOME, target="web-9", outcome="failed", reason="dpkg")
    (later,) = chain.due()
    assert later.covers == (10,)
    assert later.id != notice.id


def test_each_connection_is_told_for_itself() -> None:
    chain = Chain()
    chain.add(K.TRANSITION, to="held", reason="x")
    (notice,) = chain.due(connection="slack")
    chain.claimed(notice)
    chain.ended(notice, ok=True)
    assert chain.due(connection="slack") == []
    assert [item.connection for item in chain.due(connection="mail")] == ["mail"]


def test_old_events_are_not_told_to_whoever_asks_later() -> None:
    chain = Chain()
    chain.add(K.TRANSITION, NOW - FRESH - timedelta(seconds=1), to="held", reason="x")
    assert chain.due() == []


def test_failed_notice_comes_again_after_a_growing_pause_and_is_no_repetition() -> None:
    chain = Chain()
    chain.add(K.TRANSITION, to="held", reason="x")
    now = NOW
    for attempt in range(1, 6):
        (notice,) = chain.due(now)
        assert (notice.attempt, notice.repetition) == (attempt, False)
        chain.claimed(notice, now)
        chain.ended(notice, ok=False, at=now)
        assert chain.due(now + pause(attempt) - timedelta(seconds=1)) == []
        now += pause(attempt)
    (notice,) = chain.due(now)
    chain.claimed(notice, now)
    chain.ended(notice, ok=True, at=now)
    assert chain.due(now + timedelta(hours=5)) == []


def test_notice_of_a_dead_sender_comes_again_and_says_that_it_may_be_a_repetition() -> None:
    chain = Chain()
    chain.add(K.TRANSITION, to="held", reason="x")
    (notice,) = chain.due()
    chain.claimed(notice)
    assert chain.due(NOW + STALE - timedelta(seconds=1)) == []
    (again,) = chain.due(NOW + STALE)
    assert (again.id, again.attempt, again.repetition) == (notice.id, 2, True)
    assert "may be a repetition" in again.text


@given(st.lists(st.sampled_from(["fail", "hold", "quarantine", "tick", "tick"]), max_size=30), st.data())
def test_every_event_is_covered_by_exactly_one_notice_whatever_fails(acts: list[str], data: st.DataObject) -> None:
    chain, now = Chain(), NOW
    delivered: list[Notice] = []
    events = 0

    def tick() -> None:
        for notice in chain.due(now):
            chain.claimed(notice, now)
            fate = data.draw(st.sampled_from(["ok", "refused", "died"]))
            if fate == "ok":
                delivered.append(notice)
            if fate != "died":
                chain.ended(notice, ok=fate == "ok", at=now)

    for act in acts:
        now += timedelta(minutes=2)
        if act == "tick":
            tick()
            continue
        events += 1
        kind = {"fail": K.TARGET_OUTCOME, "hold": K.TRANSITION, "quarantine": K.QUARANTINED}[act]
        chain.add(kind, now, target="web-01", to="held", outcome="failed", reason="x")
    for _ in range(3):
        now += timedelta(hours=2)
        for notice in chain.due(now):
            chain.claimed(notice, now)
            chain.ended(notice, ok=True, at=now)
            delivered.append(notice)
    told = [(notice.event, seq) for notice in delivered for seq in notice.covers]
    assert len(told) == len(set(told)) == events
