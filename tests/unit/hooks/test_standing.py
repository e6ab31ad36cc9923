"""What stands entered, from intents and outcomes alone, whatever order a crash left them in (S4, F8)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.change import Phase, Step, StepKind
from patching.hooks.kinds import Entered, standing
from patching.ledger.entry import EntryKind, LedgerEntry


class History:
    """Intents and outcomes of one hook on one target, as the ledger would have them."""

    def __init__(self, channel: str = "ssh") -> None:
        self.channel = channel
        self.entries: list[LedgerEntry] = []

    def begun(self, phase: Phase, name: str = "hook-a", mark: int = 0) -> str:
        call = {"mark": mark}
        step = Step(name=name, phase=phase, kind=StepKind.ACT, channel=self.channel, call=call)
        return self._add(EntryKind.INTENT, f"{phase.value}-{len(self.entries)}", step=step.model_dump(mode="json"))

    def ended(self, step: str, *, ok: bool = True, attach: str = "ended") -> None:
        self._add(EntryKind.STEP_OUTCOME, step, ok=ok, attach=attach)

    def _add(self, kind: EntryKind, name: str, **body: Any) -> str:
        seq = len(self.entries) + 1
        fields = {"chain": "r", "kind": kind, "key": f"{seq}", "step": name, "body": body, "seq": seq}
        self.entries.append(LedgerEntry(**fields, at=datetime(2026, 1, 1, tzinfo=UTC), previous="", hash=""))
        return name

    @property
    def stands(self) -> dict[str, Entered]:
        return standing(self.entries)


def test_entered_and_ended_well_stands_for_sure_until_it_is_left() -> None:
    history = History()
    history.ended(history.begun(Phase.ENTER))
    assert history.stands["hook-a"].sure
    history.ended(history.begun(Phase.LEAVE))
    assert history.stands == {}


def test_intent_alone_stands_but_not_for_sure() -> None:
    history = History()
    history.begun(Phase.ENTER)
    assert not history.stands["hook-a"].sure


def test_failed_entering_stands_because_it_may_have_done_half() -> None:
    history = History()
    history.ended(history.begun(Phase.ENTER), ok=False)
    assert not history.stands["hook-a"].sure


@pytest.mark.parametrize("attach", ["absent", "forbidden"])
def test_what_the_target_says_never_began_does_not_stand_but_a_service_cannot_say_so(attach: str) -> None:
    for channel, stands in (("ssh", False), ("simulated", False), ("haproxy", True), ("http", True)):
        history = History(channel)
        history.ended(history.begun(Phase.ENTER), ok=False, attach=attach)
        assert bool(history.stands) is stands


@pytest.mark.parametrize("ok", [False, None])
def test_leaving_that_failed_or_never_ended_stands_and_is_not_sure(ok: bool | None) -> None:
    history = History()
    history.ended(history.begun(Phase.ENTER))
    leaving = history.begun(Phase.LEAVE)
    if ok is not None:
        history.ended(leaving, ok=ok)
    assert history.stands["hook-a"].leaving
    assert not history.stands["hook-a"].sure


def test_later_attempt_keeps_what_the_first_one_knew() -> None:
    history = History("haproxy")
    history.ended(history.begun(Phase.ENTER, mark=1), ok=False, attach="lost")
    history.ended(history.begun(Phase.ENTER, mark=2))
    assert history.stands["hook-a"].step.call == {"mark": 1}
    assert history.stands["hook-a"].sure


def test_hooks_stand_in_the_order_in_which_they_were_entered() -> None:
    history = History()
    for name in ("hook-b", "hook-a"):
        history.ended(history.begun(Phase.ENTER, name))
    history.begun(Phase.APPLY, "install")
    assert list(history.stands) == ["hook-b", "hook-a"]


ACTS = st.lists(st.tuples(st.sampled_from(["enter", "leave"]), st.sampled_from(["ok", "bad", "dead"])), max_size=12)


@given(ACTS)
def test_hook_stands_exactly_as_long_as_an_attempt_has_no_good_leaving_after_it(acts: list[tuple[str, str]]) -> None:
    history, expected = History("haproxy"), False
    for act, fate in acts:
        step = history.begun(Phase(act))
        if fate != "dead":
            history.ended(step, ok=fate == "ok")
        if act == "enter":
            expected = True
        elif fate == "ok":
            expected = False
    assert bool(history.stands) is expected
