"""Two workers of one run at once (T12): the first word in the ledger holds, and nobody's places are lost."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.canary.error_budget import BudgetView, Level
from patching.errors import LedgerConflict
from patching.ledger.entry import EntryKind, NewEntry
from patching.policy import Retry
from patching.rollout import control
from patching.rollout.change_job import ChangeJob
from patching.rollout.closing import close_run
from patching.rollout.error_budget import hold_for
from patching.rollout.judging import judge
from patching.rollout.planning import make_plan
from patching.rollout.reconcile import reconcile
from patching.rollout.record import Record, first_written
from patching.rollout.retries import bounded
from patching.rollout.states import RolloutState
from unit.rollout.fleet import START, Fleet


class Died(Exception):
    """A worker ended here."""


def dying(fleet: Fleet, point: str) -> Fleet:
    """The same fleet as a worker sees it that dies at a crash point."""

    def crash(name: str) -> None:
        if name == point:
            raise Died(name)

    other = fleet.as_worker("dying")
    other.site = replace(other.site, crash=crash)
    return other


async def canary_applied(tmp_path: Path, **spec: Any) -> tuple[Fleet, str]:
    fleet = Fleet(tmp_path, hosts=3, **spec)
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    return fleet, next(item.target.name for item in fleet.frozen.targets if item.wave == 1)


async def test_two_planners_at_once_freeze_one_plan_and_both_go_on_with_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3)
    await fleet.discover()
    first, second = await asyncio.gather(
        make_plan(fleet.site, fleet.rollout), make_plan(fleet.as_worker("worker-2").site, fleet.rollout)
    )
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    assert first == second
    assert row.plan_digest is not None


async def test_verdict_whose_writer_died_still_moves_the_rollout(tmp_path: Path) -> None:
    """F3: a bad verdict is written, its worker dies before the rollout is undoing: the next judge goes on there."""
    fleet, canary = await canary_applied(tmp_path)
    fleet.metrics.errors[canary] = 0.3
    with pytest.raises(Died):
        await dying(fleet, "verdict-written").judge(1)
    assert fleet.state == "running"
    answer = await judge(fleet.site, fleet.rollout, 1, "run-1")
    assert answer.verdict == "undo"
    assert fleet.state == "undoing"
    await fleet.finish()
    assert set(fleet.versions().values()) == {"1.0"}


async def test_a_second_judge_gives_the_verdict_that_is_written_though_it_saw_something_else(tmp_path: Path) -> None:
    fleet, canary = await canary_applied(tmp_path)
    body = {"wave": 1, "verdict": "promote", "reason": "seen earlier", "checks": []}

    other = fleet.as_worker("worker-2")
    written = first_written(
        fleet.ledger, NewEntry(chain=fleet.rollout, kind=EntryKind.VERDICT, key="verdict:1", body=body)
    )
    fleet.metrics.errors[canary] = 0.3
    again = NewEntry(chain=fleet.rollout, kind=EntryKind.VERDICT, key="verdict:1", body={**body, "verdict": "undo"})
    assert first_written(fleet.ledger, again) == written
    assert (await other.judge(1)).verdict == "promote"
    assert fleet.state == "running"


async def test_reports_of_two_workers_at_once_are_both_accepted(tmp_path: Path) -> None:
    fleet, _ = await canary_applied(tmp_path)
    earlier = {"markdown": "-", "json": "-", "sentence": "another worker's", "good": False}
    number = len(fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.REPORT]))
    real = fleet.ledger.entries

    def before_the_other(chain: str, **how: Any) -> Any:
        found = real(chain, **how)
        if how.get("kinds") == [EntryKind.REPORT] and len(found) == number:
            key = f"report:{number}"
            fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.REPORT, key=key, body=earlier))
        return found

    fleet.ledger.entries = before_the_other  # type: ignore[method-assign]
    assert close_run(fleet.site, "patch__web", "run-1").rollout == fleet.rollout
    assert fleet.ledger.verify() == []


async def test_what_conflicts_for_another_reason_is_not_hidden(tmp_path: Path) -> None:
    fleet, canary = await canary_applied(tmp_path)
    intent = fleet.ledger.intents(rollout=fleet.rollout, target=canary, open_only=False)[0]
    body = {"step": intent.step, "generation": 9}
    again = NewEntry(
        chain=fleet.rollout, kind=EntryKind.INTENT, key="other", target=canary, step=intent.step_id, body=body
    )
    with pytest.raises(LedgerConflict):
        first_written(fleet.ledger, again)


async def test_mid_change_target_that_is_dark_when_it_is_to_be_undone_keeps_its_place(tmp_path: Path) -> None:
    """Nobody knows what it runs: another target must not take its place among the unavailable ones."""
    fleet, _ = await canary_applied(tmp_path)
    await fleet.judge(1)
    await fleet.gate(2)
    with pytest.raises(BaseExceptionGroup):
        await dying(fleet, "started").apply(2)
    begun = {lease.target for lease in fleet.ledger.leases()}
    assert begun
    fleet.clock.advance(seconds=60)
    for name in begun:
        fleet.hosts.change(name, offline=True)
    await fleet.apply(2)
    await fleet.judge(2)
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    await fleet.undo(None)
    assert begun <= {lease.target for lease in fleet.ledger.leases()}


async def test_worker_that_slept_while_it_opened_a_rollout_joins_the_one_that_was_opened_meanwhile(
    tmp_path: Path,
) -> None:
    """Its claim ran out and another worker decided: two open rollouts of one policy there must never be."""
    fleet = Fleet(tmp_path, hosts=3)
    other = fleet.as_worker("worker-2")
    other.request = fleet.request.model_copy(update={"run_id": "run-2"})
    real, slept = fleet.ledger.store_document, []

    def sleeps_once(kind: str, document: Any) -> str:
        if kind == "policy" and not slept:
            slept.append(kind)
            fleet.clock.advance(seconds=60)
            with ThreadPoolExecutor(1) as beside:
                beside.submit(lambda: asyncio.run(other.discover())).result()
        return real(kind, document)

    fleet.ledger.store_document = sleeps_once  # type: ignore[method-assign]
    await fleet.discover()
    assert slept
    assert other.rollout == fleet.rollout
    assert [row.id for row in fleet.ledger.rollouts(open_only=True)] == [fleet.rollout]


def test_next_try_is_never_later_than_the_longest_pause_though_its_writer_had_a_wrong_clock() -> None:
    rules = Retry()
    wrong, soon = START + timedelta(hours=1), START + timedelta(seconds=20)
    assert bounded(wrong, rules, START) == START + timedelta(seconds=rules.longest)
    assert bounded(soon, rules, START) == soon


async def test_job_takes_its_target_up_as_it_is_when_it_has_the_lease(tmp_path: Path) -> None:
    """Between its look and its lease another worker tried the target: a generation must not be begun twice."""
    fleet = Fleet(tmp_path, hosts=3)
    await fleet.begin()
    await fleet.gate(1)
    planned = next(item for item in fleet.frozen.targets if item.wave == 1)
    seen = fleet.ledger.target(fleet.rollout, planned.target.name)
    assert seen is not None
    body = {"generation": 1, "reason": "another worker's try", "reopen": False}
    key = f"generation:{seen.target}:1"
    entry = NewEntry(chain=fleet.rollout, kind=EntryKind.GENERATION_RAISED, key=key, target=seen.target, body=body)
    fleet.ledger.append(entry)
    record = Record(fleet.site, fleet.rollout)
    channel, driver = fleet.site.channel("fleet"), fleet.site.driver("simulated", {})
    job = ChangeJob(record, fleet.frozen, planned, channel, driver, seen)
    await job.run()
    await record.close()
    assert job.generation == 1
    assert len(fleet.hosts.markers(seen.target)) == 1


@pytest.mark.parametrize("state", ["held", "aborted"])
async def test_gate_that_a_person_was_faster_than_stays_shut_and_says_so(tmp_path: Path, state: str) -> None:
    fleet = Fleet(tmp_path, hosts=3)
    await fleet.begin()

    def meanwhile() -> datetime:
        """The gate asks for the time between its look at the state and its opening."""
        row = fleet.ledger.rollout(fleet.rollout)
        if row is not None and row.state is RolloutState.WAITING:
            fleet.ledger.transition(fleet.rollout, RolloutState(state), reason="not tonight", actor="anna")
        return fleet.clock()

    fleet.site = replace(fleet.site, clock=meanwhile)
    answer = await fleet.gate(1)
    assert (answer.state, answer.sentence) == ("refused", f'the rollout is "{state}"')
    assert fleet.ledger.find(fleet.rollout, "wave-started:1") is None


async def test_what_two_workers_did_in_one_shard_is_written_by_both(tmp_path: Path) -> None:
    fleet, _ = await canary_applied(tmp_path)
    real, slept = fleet.ledger.entries, []

    def before_the_other(chain: str, **how: Any) -> Any:
        found = real(chain, **how)
        if how.get("kinds") == [EntryKind.WAVE_APPLIED] and not slept:
            slept.append(chain)
            body = {"wave": 1, "shard": 0, "run": "run-1", "stop": None, "applied": 0}
            key = f"wave-applied:1:0:run-1:{len(found)}"
            fleet.ledger.append(NewEntry(chain=chain, kind=EntryKind.WAVE_APPLIED, key=key, body=body))
        return found

    fleet.ledger.entries = before_the_other  # type: ignore[method-assign]
    await fleet.apply(1)
    fleet.ledger.entries = real  # type: ignore[method-assign]
    written = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.WAVE_APPLIED])
    assert slept
    assert [entry.body["applied"] for entry in written] == [1, 0, 1]


@pytest.mark.parametrize("wave", [1, 2])
async def test_worker_that_dies_between_the_state_and_the_start_of_a_wave_lets_nothing_begin_and_the_next_run_goes_on(
    tmp_path: Path, wave: int
) -> None:
    """The rollout is running and no wave has started: whoever comes later finds that, and asks the gate anew."""
    fleet = Fleet(tmp_path, hosts=4)
    await fleet.begin()
    for number in range(1, wave):
        await fleet.wave(number)
    done = [fleet.hosts.markers(name) for name in fleet.names]

    def dies(*_: Any) -> None:
        raise Died

    real, fleet.ledger.append_all = fleet.ledger.append_all, dies  # type: ignore[method-assign]
    with pytest.raises(Died):
        await fleet.gate(wave)
    fleet.ledger.append_all = real  # type: ignore[method-assign]
    assert fleet.state == "running"
    assert (await fleet.apply(wave)).sentence == f"no gate has opened wave {wave}"
    assert (await fleet.judge(wave)).sentence == f"wave {wave} was never started"
    await fleet.undo(wave)
    assert not (await fleet.finish()).good
    assert [fleet.hosts.markers(name) for name in fleet.names] == done
    fleet.new_run("run-2")
    assert (await fleet.whole()).good
    assert set(fleet.versions().values()) == {"1.1"}
    assert fleet.twice() == []


async def test_hold_that_was_decided_before_a_person_asked_for_undo_does_not_stop_the_undo(tmp_path: Path) -> None:
    fleet, _ = await canary_applied(tmp_path)
    control.hold(fleet.ledger, fleet.rollout, "anna", "what is this")
    control.undo(fleet.ledger, fleet.rollout, "anna", "it must go back")
    burning = BudgetView(budget="slo", level=Level.PAGE, sentence="burns")
    assert hold_for(fleet.site, fleet.rollout, burning) is None, "what is not held is not called held"
    assert fleet.state == "undoing"


async def test_reconcile_that_was_late_says_nothing_of_a_rollout_that_a_person_moved(tmp_path: Path) -> None:
    fleet, _ = await canary_applied(tmp_path)
    real = fleet.ledger.transition

    def later(rollout: str, to: RolloutState, **how: Any) -> Any:
        if to is RolloutState.WAITING:
            real(rollout, RolloutState.ABORTED, reason="not tonight", actor="anna")
        return real(rollout, to, **how)

    fleet.ledger.transition = later  # type: ignore[method-assign]
    fleet.site = replace(fleet.site, run_active=lambda _run: False)
    fleet.clock.advance(seconds=60)
    await reconcile(fleet.site)
    row = fleet.ledger.rollout(fleet.rollout)
    assert row is not None
    assert (row.state.value, row.waits_for) == ("aborted", "")
