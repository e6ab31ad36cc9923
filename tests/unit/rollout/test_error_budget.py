"""Error budgets at the gates (E5, S5): what burns holds, nearly spent is for emergencies, no data is no pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from patching.ledger.entry import EntryKind
from patching.report.plan_text import render_plan
from patching.rollout.answers import GateState, VerdictName
from patching.rollout.control import resume
from unit.rollout.fleet import Fleet

BUDGETS: list[dict[str, Any]] = [
    {"name": "shop", "connection": "prom", "objective": "99.9%", "errors": "e", "requests": "r"}
]


async def begun(folder, **spec: Any) -> Fleet:  # type: ignore[no-untyped-def]
    fleet = Fleet(folder, errorBudgets=BUDGETS, **spec)
    await fleet.begin()
    return fleet


async def test_full_budget_lets_every_wave_pass_and_the_plan_shows_it(tmp_path):
    fleet = await begun(tmp_path)
    assert "error budget shop: 100% of the error budget of 30d is left" in render_plan(fleet.frozen)
    assert [await fleet.wave(number) for number in (1, 2, 3)] == [VerdictName.PROMOTE] * 3


async def test_budget_that_burns_before_anything_began_lets_the_canary_wait(tmp_path):
    fleet = await begun(tmp_path)
    fleet.metrics.share = 0.02
    answer = await fleet.gate(1)
    assert answer.state is GateState.WAITS
    assert answer.sentence.startswith("waits for the error budget shop: burns 20.0 ×")
    assert (await fleet.apply(1)).skipped
    fleet.metrics.share = 0.0
    assert (await fleet.gate(1)).state is GateState.OPEN


async def test_budget_that_burns_after_a_wave_holds_the_rollout_and_offers_the_undo(tmp_path):
    fleet = await begun(tmp_path)
    await fleet.wave(1)
    fleet.metrics.share = 0.02
    answer = await fleet.gate(2)
    assert answer.state is GateState.REFUSED
    assert "or undo what it changed" in answer.sentence
    assert fleet.state == "held"
    assert not (await fleet.finish()).good


async def test_budget_that_nobody_can_read_lets_nothing_pass(tmp_path):
    """F9: a failing Prometheus is never a pass."""
    fleet = await begun(tmp_path)
    fleet.metrics.down = True
    answer = await fleet.gate(1)
    assert answer.state is GateState.WAITS
    assert "does not answer" in answer.sentence


async def test_each_gate_has_a_look_of_its_own(tmp_path):
    fleet = await begun(tmp_path)
    await fleet.wave(1)
    answer = await fleet.gate(2)
    assert answer.state is GateState.OPEN
    looks = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.ERROR_BUDGET])
    assert [entry.body["wave"] for entry in looks] == [1, 2]


async def test_nearly_spent_budget_lets_only_emergencies_pass(tmp_path):
    fleet = await begun(tmp_path)
    fleet.metrics.share = 0.00095
    assert "only emergencies go on" in (await fleet.gate(1)).sentence
    other = Fleet(tmp_path / "other", errorBudgets=BUDGETS, emergency={"approval": {"required": 0}})
    other.new_run("run-1", emergency=True, reason="exploited tonight")
    await other.begin()
    other.metrics.share = 0.00095
    assert (await other.gate(1)).state is GateState.OPEN
    fleet.metrics.share = other.metrics.share = 0.02
    assert (await other.gate(2)).state is not GateState.OPEN


async def test_emergency_that_may_pass_the_error_budget_does(tmp_path):
    rules = {"ignore": ["error-budget"], "approval": {"required": 0}}
    fleet = Fleet(tmp_path, errorBudgets=BUDGETS, emergency=rules)
    fleet.new_run("run-1", emergency=True, reason="it is the patch that stops the errors")
    await fleet.begin()
    fleet.metrics.share = 0.5
    assert (await fleet.gate(1)).state is GateState.OPEN


async def test_budget_that_begins_to_burn_in_mid_wave_stops_launching_and_what_runs_ends(tmp_path):
    fleet = await begun(tmp_path, rollout={"waves": [{"canary": {"count": 1}}, {"size": "100%"}]})
    await fleet.wave(1)
    await fleet.gate(2)
    fleet.site = replace(fleet.site, look_every=0.001, concurrency=1)
    fleet.metrics.share = 0.02
    summary = await fleet.apply(2)
    assert "stopped launching" in summary.sentence
    assert fleet.state == "held"
    assert "pending" in fleet.outcomes().values()
    assert "running" not in fleet.outcomes().values()
    assert not fleet.twice()


def limits(fleet: Fleet, kind: str) -> list[int]:
    """Give the limits of one kind that jobs claimed, in order: what counts over all workers."""
    taken = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.LEASE_TAKEN])
    return [claim["limit"] for entry in taken for claim in entry.body["claims"] if claim["kind"] == kind]


@pytest.mark.parametrize("share", [0.0, 0.0035])
async def test_budget_that_burns_slowly_halves_how_many_are_changed_at_once_in_all_domains_together(tmp_path, share):
    """Ticket level: three zones with two places each are three places, not six, and not three times one."""
    rules = {"failureDomain": "az", "maxUnavailable": 2, "waves": [{"canary": {"count": 1}}, {"size": "100%"}]}
    fleet = await begun(tmp_path, hosts=9, rollout=rules)
    zones = {item.target.domain("az") for item in fleet.frozen.targets}
    await fleet.wave(1)
    before = len(limits(fleet, "rollout"))
    fleet.metrics.share = share
    fleet.metrics.burning = {7200, 86400}
    await fleet.gate(2)
    await fleet.apply(2)
    assert (set(limits(fleet, "domain")), len(zones)) == ({2}, 3)
    assert set(limits(fleet, "rollout")[before:]) == {3 if share else 9}


async def test_budget_that_burns_slowly_in_mid_wave_counts_for_the_jobs_to_come(tmp_path):
    fleet = await begun(tmp_path, hosts=6, rollout={
        "failureDomain": None, "maxUnavailable": 4, "waves": [{"canary": {"count": 1}}, {"size": "100%"}],
    })  # fmt: skip
    await fleet.wave(1)
    await fleet.gate(2)
    before = len(limits(fleet, "rollout"))
    fleet.site = replace(fleet.site, look_every=0.001, concurrency=1)
    fleet.metrics.share = 0.0035
    fleet.metrics.burning = {7200, 86400}
    await fleet.apply(2)
    assert limits(fleet, "rollout")[-1] == 2
    assert set(limits(fleet, "rollout")[before:]) <= {2, 6}


async def test_last_wave_is_not_promoted_while_the_budget_burns(tmp_path):
    """No gate comes after it: the judge itself must look."""
    fleet = await begun(tmp_path, rollout={"waves": [{"canary": {"count": 1}}, {"size": "100%"}]})
    await fleet.wave(1)
    await fleet.gate(2)
    await fleet.apply(2)
    fleet.metrics.share = 0.02
    answer = await fleet.judge(2)
    assert answer.verdict is VerdictName.HOLD
    assert answer.sentence.startswith("error budget shop: burns 20.0 ×")
    assert fleet.state == "held"


async def test_budget_that_burns_while_a_wave_soaks_holds_at_once_and_the_soak_goes_on_when_resumed(tmp_path):
    """A long soak is no reason to look away: the next gate would be an hour too late."""
    waves = [{"canary": {"count": 1}, "soak": "1h"}, {"size": "100%"}]
    fleet = await begun(tmp_path, rollout={"waves": waves})
    await fleet.gate(1)
    await fleet.apply(1)
    answer = await fleet.judge(1)
    assert answer.again_at is not None
    assert (answer.again_at - fleet.clock()).total_seconds() <= 150
    fleet.metrics.share = 0.02
    fleet.clock.advance(minutes=3)
    answer = await fleet.judge(1)
    assert (answer.verdict, fleet.state) == (VerdictName.HOLD, "held")
    assert "or undo what it changed" in answer.sentence
    fleet.metrics.share = 0.0
    resume(fleet.ledger, fleet.rollout, "eva", "calm again")
    fleet.new_run("run-2")
    assert (await fleet.judge(1)).verdict is None


async def test_emergency_that_may_pass_the_error_budget_soaks_on(tmp_path):
    rules = {"ignore": ["error-budget"], "approval": {"required": 0}}
    waves = [{"canary": {"count": 1}, "soak": "1h"}, {"size": "100%"}]
    fleet = Fleet(tmp_path, errorBudgets=BUDGETS, emergency=rules, rollout={"waves": waves})
    fleet.new_run("run-1", emergency=True, reason="it is the patch that stops the errors")
    await fleet.begin()
    fleet.metrics.share = 0.5
    await fleet.gate(1)
    await fleet.apply(1)
    assert (await fleet.judge(1)).verdict is None
    assert fleet.state == "running"
