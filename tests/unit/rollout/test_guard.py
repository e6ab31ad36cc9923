"""The guard of a soaking wave (S5, F3, F9): an alarm ends the soak at once, everything else waits for its end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.ledger.entry import EntryKind
from patching.rollout.answers import VerdictName
from patching.rollout.guard import next_look
from patching.rollout.measuring import Spans
from unit.rollout.fleet import START, Fleet

WAVES = [{"canary": {"count": 1}, "soak": "10m"}, {"size": "100%"}]


async def soaking(tmp_path: Path, share: float, **spec: Any) -> Fleet:
    fleet = Fleet(tmp_path, rollout={"waves": WAVES}, **spec)
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = share
    return fleet


async def test_alarm_ends_the_soak_long_before_its_time(tmp_path: Path) -> None:
    fleet = await soaking(tmp_path, 0.3)
    fleet.clock.advance(minutes=4)
    answer = await fleet.judge(1)
    assert answer.verdict is VerdictName.UNDO
    assert answer.sentence.endswith("found while the wave soaked")
    assert fleet.state == "undoing"
    assert len(fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.MEASURED])) == 1
    await fleet.undo(1)
    assert set(fleet.versions().values()) == {"1.0"}


async def test_nothing_is_looked_at_before_the_first_look_is_complete(tmp_path: Path) -> None:
    """Placebo windows are a third of the soak: an earlier look would be outside of the bound."""
    fleet = await soaking(tmp_path, 0.3)
    fleet.clock.advance(minutes=3)
    answer = await fleet.judge(1)
    assert answer.verdict is None
    assert answer.again_at is not None


@pytest.mark.parametrize("fault", ["none", "silent", "down"])
async def test_early_look_neither_promotes_nor_holds(tmp_path: Path, fault: str) -> None:
    fleet = await soaking(tmp_path, 0.0)
    fleet.metrics.down = fault == "down"
    fleet.metrics.silent = set(fleet.names) if fault == "silent" else set()
    fleet.clock.advance(minutes=5)
    answer = await fleet.judge(1)
    assert (answer.verdict, fleet.state) == (None, "running")
    assert answer.again_at is not None
    assert timedelta(0) < answer.again_at - fleet.clock.now <= timedelta(seconds=100)
    fleet.clock.advance(minutes=6)
    verdict = (await fleet.judge(1)).verdict
    assert verdict is (VerdictName.PROMOTE if fault == "none" else VerdictName.HOLD)


async def test_undo_that_the_policy_forbids_is_a_hold(tmp_path: Path) -> None:
    fleet = await soaking(tmp_path, 0.3, onFailure={"undo": "never"})
    fleet.clock.advance(minutes=4)
    assert (await fleet.judge(1)).verdict is VerdictName.HOLD
    assert fleet.state == "held"


def test_short_soaks_are_judged_at_their_end_only() -> None:
    assert next_look(20, START, START + timedelta(seconds=20)) == START + timedelta(seconds=20)
    assert next_look(600, START, START + timedelta(seconds=600)) == START + timedelta(seconds=100)
    assert next_look(600, START, START + timedelta(seconds=40)) == START + timedelta(seconds=40)


def test_looks_are_the_same_whenever_they_are_asked() -> None:
    def spans(elapsed: float) -> Spans:
        return Spans(START, START, START + timedelta(seconds=elapsed), soak=600.0, before=3600.0)

    assert spans(250).after == (START, START + timedelta(seconds=250), 25)
    assert spans(600).look == spans(205).look == 10.0
    assert spans(205).after[2] == 20
    assert spans(205).earlier == (START - timedelta(seconds=2400), START, 240)
    assert spans(0.05).after == (START, START + timedelta(seconds=0.05), 1)


def test_a_look_has_a_scrape_at_least_and_the_first_evaluation_twenty() -> None:
    """E6: a first look of three scrapes cannot contain the autocorrelation."""

    def spans(elapsed: float) -> Spans:
        return Spans(START, START, START + timedelta(seconds=elapsed), soak=120.0, before=3600.0, scrape=15.0)

    assert [spans(elapsed).look for elapsed in (40, 120, 3000)] == [15.0, 15.0, 15.0]
    assert [spans(elapsed).complete for elapsed in (40, 120, 299, 300)] == [False, False, False, True]
    assert spans(120).after == (START, START + timedelta(seconds=120), 8)


def test_long_after_its_soak_a_wave_is_judged_by_its_first_240_looks() -> None:
    late = Spans(START, START, START + timedelta(days=1), soak=600.0, before=3600.0)
    assert late.after == (START, START + timedelta(seconds=2400), 240)


@pytest.mark.parametrize("scrape", [15.0, 60.0])
async def test_soak_is_judged_when_its_last_scrape_is_there_and_by_complete_data_only(
    tmp_path: Path, scrape: float
) -> None:
    fleet = Fleet(tmp_path, rollout={"waves": WAVES})
    fleet.metrics.scraped = scrape
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    ended = max(row.ended_at for row in fleet.ledger.targets(fleet.rollout) if row.ended_at is not None)
    fleet.clock.advance(minutes=10)
    answer = await fleet.judge(1)
    assert (answer.verdict, answer.again_at) == (None, ended + timedelta(seconds=600 + scrape + 1))
    fleet.clock.advance(seconds=scrape + 1)
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    (entry,) = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.MEASURED])
    ends = fleet.ledger.document(entry.body["data"])["looks"]["canary"]["ends"]
    assert ends[-1] == pytest.approx((ended + timedelta(seconds=600)).timestamp())


async def test_soak_that_is_too_short_for_its_scrapes_is_judged_once_and_the_plan_says_so(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, rollout={"waves": [{"canary": {"count": 1}, "soak": "2m"}, {"size": "100%"}]})
    fleet.metrics.scraped = 15.0
    await fleet.begin()
    assert fleet.frozen.scrapes == {"errors": 15.0}
    (warned,) = [one.statement for one in fleet.frozen.power if "scraped every" in one.statement]
    assert "a soak of 2m has 8 scrapes and is judged at its end only; 5m would have the 20" in warned
    await fleet.gate(1)
    await fleet.apply(1)
    fleet.metrics.errors = dict.fromkeys(fleet.names, 0.0) | {
        next(item.target.name for item in fleet.frozen.targets if item.wave == 1): 0.3
    }
    fleet.clock.advance(seconds=100)
    assert (await fleet.judge(1)).verdict is None
    fleet.clock.advance(seconds=36)
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
