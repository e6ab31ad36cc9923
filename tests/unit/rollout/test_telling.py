"""Telling from a real ledger: once each, whoever tells and whenever a sender dies or the receiver refuses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.errors import LedgerUnavailable
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.report.notice import STALE, Notice
from patching.rollout.approval import approval_request
from patching.rollout.states import RolloutState
from patching.rollout.telling import RECONCILER, DeliveryFailed, tell_all, tell_rollout, was_silent
from unit.rollout.fleet import START, Fleet

EVENTS = ["approval", "held", "failed", "undone", "window-missed", "scheduler-silent", "quarantined", "incident"]
NOTIFY = [{"events": EVENTS, "connection": "slack"}]


class Died(Exception):
    """Stands for the death of a sender at a crash point."""


@dataclass
class Receiver:
    """What was delivered; refuses as often as a test says."""

    refuse: int = 0
    got: list[Notice] = field(default_factory=list)

    def __call__(self, notice: Notice) -> None:
        if self.refuse:
            self.refuse -= 1
            raise DeliveryFailed("status 503")
        self.got.append(notice)

    @property
    def events(self) -> list[str]:
        return [notice.event for notice in self.got]


async def held(tmp_path: Path, **spec: object) -> Fleet:
    fleet = Fleet(tmp_path, hosts=3, notify=NOTIFY, **spec)
    await fleet.begin()
    await fleet.gate(1)
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="alice: looks odd")
    return fleet


async def test_whole_bad_rollout_is_told_event_by_event_with_its_change_id(tmp_path: Path) -> None:
    fleet, receiver = Fleet(tmp_path, hosts=3, notify=NOTIFY, approval={"required": 1}), Receiver()
    await fleet.plan()
    await fleet.approve("bob")
    fleet.hosts.change(next(item.target.name for item in fleet.frozen.targets if item.wave == 1), fail=1)
    await fleet.wave(1)
    await fleet.finish()
    tell_all(fleet.site, receiver)
    tell_all(fleet.site, receiver)
    assert len(receiver.events) == len(set(receiver.events))
    assert {"approval", "failed", "quarantined"} <= set(receiver.events)
    assert {notice.rollout for notice in receiver.got} == {fleet.rollout}
    assert fleet.ledger.verify() == []


async def test_policy_that_names_nobody_tells_nobody(tmp_path: Path) -> None:
    fleet, receiver = Fleet(tmp_path, hosts=3), Receiver()
    await fleet.begin()
    await fleet.gate(1)
    fleet.ledger.transition(fleet.rollout, RolloutState.HELD, reason="x")
    assert tell_all(fleet.site, receiver) == []
    assert receiver.got == []


async def test_report_and_reconciler_at_once_send_one_message(tmp_path: Path) -> None:
    fleet, receiver = await held(tmp_path), Receiver()
    other = fleet.as_worker("worker-2")

    def deliver(notice: Notice) -> None:
        receiver(notice)
        tell_rollout(other.site, fleet.rollout, receiver)

    tell_rollout(fleet.site, fleet.rollout, deliver)
    assert receiver.events == ["held"]


async def test_two_who_decided_at_the_same_moment_send_one_message(tmp_path: Path) -> None:
    fleet, receiver = await held(tmp_path), Receiver()

    def before_the_claim(chain: str, **_: object) -> object:
        return entries

    entries = fleet.ledger.entries(fleet.rollout)
    tell_rollout(fleet.site, fleet.rollout, receiver)

    class Late:
        """A ledger whose reader read before the other one wrote."""

        def __getattr__(self, name: str) -> object:
            return before_the_claim if name == "entries" else getattr(fleet.ledger, name)

    late = replace(fleet.site, ledger=Late(), owner="worker-2")  # type: ignore[arg-type]
    second = tell_rollout(late, fleet.rollout, receiver)
    assert receiver.events == ["held"]
    assert second == ["held: somebody else tells slack already"]


@pytest.mark.parametrize(("point", "sent", "repetition"), [("notice-claimed", 1, True), ("notice-sent", 2, True)])
async def test_sender_that_died_loses_nothing_and_only_doubt_is_repeated_and_says_so(
    tmp_path: Path, point: str, sent: int, repetition: bool
) -> None:
    fleet, receiver = await held(tmp_path), Receiver()

    def die(passed: str) -> None:
        if passed == point:
            raise Died

    with pytest.raises(Died):
        tell_all(replace(fleet.site, crash=die), receiver)
    tell_all(fleet.site, receiver)
    assert len(receiver.got) == sent - 1
    fleet.clock.advance(seconds=STALE.total_seconds())
    tell_all(fleet.site, receiver)
    tell_all(fleet.site, receiver)
    assert receiver.events == ["held"] * sent
    assert {notice.id for notice in receiver.got} == {receiver.got[0].id}
    assert receiver.got[-1].repetition is repetition


async def test_receiver_that_refuses_is_asked_again_and_told_once(tmp_path: Path) -> None:
    fleet, receiver = await held(tmp_path), Receiver(refuse=2)
    said = tell_all(fleet.site, receiver)
    assert "slack was NOT told of held" in said[0]
    assert "status 503" in said[0]
    for _ in range(4):
        fleet.clock.advance(minutes=5)
        tell_all(fleet.site, receiver)
    assert receiver.events == ["held"]
    assert receiver.got[0].repetition is False


async def test_ledger_that_is_gone_sends_nothing(tmp_path: Path) -> None:
    fleet, receiver = await held(tmp_path), Receiver()

    class Gone:
        """A ledger that reads but cannot write."""

        def __getattr__(self, name: str) -> object:
            return self.append_fails if name == "append" else getattr(fleet.ledger, name)

        def append_fails(self, *_: object) -> None:
            raise LedgerUnavailable("gone")

    with pytest.raises(LedgerUnavailable):
        tell_all(replace(fleet.site, ledger=Gone()), receiver)  # type: ignore[arg-type]
    assert receiver.got == []


async def test_window_that_passed_with_nothing_begun_is_told_once_and_says_what_it_waited_for(tmp_path: Path) -> None:
    windows = [{"rrule": "FREQ=DAILY", "start": "14:00", "duration": 3600.0}]
    fleet = Fleet(tmp_path, hosts=3, notify=NOTIFY, schedule={"windows": windows}, approval={"required": 1})
    receiver = Receiver()
    await fleet.plan()
    approval_request(fleet.site, fleet.rollout, fleet.request.run_id)
    tell_all(fleet.site, receiver)
    assert receiver.events == ["approval"]
    fleet.clock.now = START + timedelta(hours=4)
    tell_all(fleet.site, receiver)
    tell_all(fleet.site, receiver)
    assert receiver.events == ["approval", "window-missed"]
    assert "the window of 2026-11-24 14:00 UTC passed and nothing was begun in it" in receiver.got[1].sentence
    assert "approval" in receiver.got[1].sentence


async def test_window_in_which_a_target_was_begun_is_not_missed(tmp_path: Path) -> None:
    windows = [{"rrule": "FREQ=DAILY", "start": "14:00", "duration": 3600.0}]
    fleet, receiver = Fleet(tmp_path, hosts=3, notify=NOTIFY, schedule={"windows": windows}), Receiver()
    await fleet.begin()
    fleet.clock.now = START + timedelta(hours=2, minutes=1)
    await fleet.gate(1)
    await fleet.apply(1)
    fleet.ledger.transition(fleet.rollout, RolloutState.WAITING, reason="the window closed")
    fleet.clock.now = START + timedelta(hours=4)
    tell_all(fleet.site, receiver)
    assert receiver.events == []


@pytest.mark.parametrize(
    "spec",
    [{"mode": "plan"}, {"schedule": {"freezes": [{"from": "2026-11-24", "to": "2026-11-25", "reason": "audit"}]}}],
    ids=["only planned", "frozen"],
)
async def test_window_in_which_nothing_should_begin_is_not_missed(tmp_path: Path, spec: dict[str, Any]) -> None:
    windows = [{"rrule": "FREQ=DAILY", "start": "14:00", "duration": 3600.0}]
    schedule = {"windows": windows, **spec.get("schedule", {})}
    fleet, receiver = Fleet(tmp_path, hosts=3, **{"notify": NOTIFY, **spec, "schedule": schedule}), Receiver()
    await fleet.plan()
    fleet.clock.now = START + timedelta(hours=4)
    tell_all(fleet.site, receiver)
    assert receiver.events == []


async def test_silence_of_the_scheduler_is_written_and_told_when_it_is_back(tmp_path: Path) -> None:
    fleet, receiver = Fleet(tmp_path, hosts=3, notify=NOTIFY), Receiver()
    await fleet.begin()
    assert was_silent(fleet.site) is None
    fleet.ledger.beat(RECONCILER)
    fleet.clock.advance(minutes=2)
    assert was_silent(fleet.site) is None
    fleet.ledger.beat(RECONCILER)
    fleet.clock.advance(hours=3)
    for _ in range(2):
        assert "nothing was heard from the scheduler between 2026-11-24 12:02" in str(was_silent(fleet.site))
    fleet.ledger.beat(RECONCILER)
    assert was_silent(fleet.site) is None
    tell_all(fleet.site, receiver)
    tell_all(fleet.site, receiver)
    assert receiver.events == ["scheduler-silent"]
    assert receiver.got[0].rollout is None


async def test_incident_goes_to_those_its_policy_names(tmp_path: Path) -> None:
    fleet, receiver = Fleet(tmp_path, hosts=3, notify=NOTIFY), Receiver()
    await fleet.begin()
    for policy in ("web", "other"):
        body = {"id": f"i-{policy}", "policy": policy, "rollout": "r", "cause": "undo failed", "runbook": "book"}
        fleet.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.INCIDENT_OPENED, key=policy, body=body))
    tell_all(fleet.site, receiver)
    assert [notice.sentence for notice in receiver.got] == ["web: incident i-web: undo failed (book)"]


async def test_plan_that_is_refused_keeps_nobody_else_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, receiver = await held(tmp_path), Receiver()
    body = {"id": "i-web", "policy": "web", "rollout": "r", "cause": "undo failed", "runbook": "book"}
    fleet.ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.INCIDENT_OPENED, key="web", body=body))
    good, bad = fleet.rollout, "aaa-broken"
    row = fleet.ledger.rollout(good)
    assert row is not None
    broken = fleet.ledger.store_document("plan", {"unheard": 1})
    rows = [row.model_copy(update={"id": bad, "policy": "broken", "plan_digest": broken}), row]
    one = fleet.ledger.rollout
    monkeypatch.setattr(fleet.ledger, "rollouts", lambda **_: rows)
    monkeypatch.setattr(fleet.ledger, "rollout", lambda name: rows[0] if name == bad else one(name))
    said = tell_all(fleet.site, receiver)
    assert receiver.events == ["held", "incident"]
    assert [line for line in said if line.startswith(f"{bad}: nobody can be told of it: ")]
