"""Stragglers (F1): tried again with backoff where time can mend it, each try a new generation; else not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.change import JobResult, Outcome, TargetState
from patching.ledger.entry import EntryKind
from patching.policy import Retry
from patching.rollout.answers import VerdictName
from patching.rollout.causes import MEANINGS, Cause
from patching.rollout.control import hold, resume
from patching.rollout.retries import next_try, pause
from unit.rollout.fleet import START, Fleet
from unit.rollout.test_crash_points import kill_at

SIGNATURES = {
    Cause.OFFLINE: "offline",
    Cause.CONNECTION: "unknown",
    Cause.NETWORK: "network:prepare:download:exit 44",
    Cause.LOCK: "lock:prepare:download:exit 100",
    Cause.LOGIN: "LoginRefused",
    Cause.SPACE: "space:prepare:download:exit 1",
    Cause.HOOK: "hook:drain",
    Cause.REBOOT: "reboot:lost",
    Cause.OVERDUE: "apply:install:overdue",
    Cause.CHECK: "probe:web",
    Cause.PACKAGE: "apply:install:exit 100",
}


def result(outcome: Outcome, cause: Cause) -> JobResult:
    return JobResult(outcome=outcome, reason="as it is", signature=SIGNATURES[cause])


@pytest.mark.parametrize("cause", list(Cause))
def test_only_what_time_can_mend_is_tried_again(cause: Cause) -> None:
    later = next_try(Retry(), result(Outcome.FAILED, cause), 0, START)
    assert (later is not None) == (cause in (Cause.OFFLINE, Cause.CONNECTION, Cause.NETWORK, Cause.LOCK))
    assert not (MEANINGS[cause].again and MEANINGS[cause].accuses)


@pytest.mark.parametrize("outcome", [Outcome.APPLIED, Outcome.NOTHING_TO_DO, Outcome.DRIFTED, Outcome.SKIPPED])
def test_what_did_not_go_wrong_is_not_tried_again(outcome: Outcome) -> None:
    assert next_try(Retry(), result(outcome, Cause.OFFLINE), 0, START) is None


def test_wait_is_said_with_its_length_and_reason_and_doubles() -> None:
    rules = Retry(times=3, wait=20.0, longest=60.0)
    said = [next_try(rules, result(Outcome.UNKNOWN, Cause.CONNECTION), number, START) for number in range(4)]
    assert [item.sentence for item in said if item] == [
        "waits 20s before its second try: connection lost",
        "waits 40s before its third try: connection lost",
        "waits 1m before its fourth try: connection lost",
    ]
    assert said[3] is None
    assert said[1] is not None
    assert said[1].not_before == START + timedelta(seconds=40)
    assert said[1].reason == "try 3 of 4: as it is"


@given(st.integers(0, 9), st.floats(0, 1000), st.floats(0, 5000))
def test_waits_never_shrink_and_never_exceed_the_longest(earlier: int, wait: float, longest: float) -> None:
    rules = Retry(times=9, wait=wait, longest=longest)
    assert pause(rules, earlier) <= pause(rules, earlier + 1) <= max(wait, longest)


def offline_until(fleet: Fleet, name: str, seconds: float) -> None:
    """Take a host down now, and let it answer again as soon as so much time has passed."""
    fleet.hosts.change(name, offline=True)
    back = fleet.clock.now + timedelta(seconds=seconds)
    inner = fleet.site.pause

    async def pause_(length: float) -> None:
        await inner(length)
        if fleet.clock.now >= back:
            fleet.hosts.change(name, offline=False)

    fleet.site = replace(fleet.site, pause=pause_)


def tries(fleet: Fleet, name: str) -> list[Any]:
    raised = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.GENERATION_RAISED], target=name)
    return [entry.body.get("try") for entry in raised]


def sentences(fleet: Fleet, name: str) -> list[str]:
    waits = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.WAITS], target=name)
    return [str(entry.body["sentence"]) for entry in waits]


async def canary_only(tmp_path: Path, **spec: Any) -> tuple[Fleet, str]:
    fleet = Fleet(tmp_path, hosts=3, verify=[], **spec)
    await fleet.begin()
    await fleet.gate(1)
    return fleet, fleet.frozen.waves[0].targets[0]


async def test_host_that_is_back_at_its_second_try_is_patched_and_its_wait_was_shown(tmp_path: Path) -> None:
    fleet, name = await canary_only(tmp_path)
    offline_until(fleet, name, 15)
    began = fleet.clock.now
    await fleet.apply(1)
    assert fleet.outcomes()[name] == "applied"
    assert tries(fleet, name) == [2]
    assert sentences(fleet, name)[0] == "waits 20s before its second try: it does not answer"
    assert fleet.clock.now - began >= timedelta(seconds=20)
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    assert not fleet.twice()


async def test_worker_killed_when_a_retry_is_written_leaves_one_that_the_next_worker_makes(
    tmp_path: Path,
) -> None:
    fleet, name = await canary_only(tmp_path)
    fleet.hosts.change(name, offline=True)
    assert kill_at(fleet, "retry-written", 1, "apply:1") == -9
    assert tries(fleet, name) == [2]
    fleet.hosts.change(name, offline=False)
    fleet.clock.advance(seconds=60)
    await fleet.apply(1)
    assert (fleet.outcomes()[name], tries(fleet, name)) == ("applied", [2])
    assert fleet.ledger.leases() == []
    assert not fleet.twice()


async def test_host_that_stays_down_is_offline_after_its_last_try_and_the_wave_goes_on(tmp_path: Path) -> None:
    fleet, name = await canary_only(tmp_path)
    fleet.hosts.change(name, offline=True)
    await fleet.apply(1)
    assert fleet.outcomes()[name] == "offline"
    assert tries(fleet, name) == [2, 3]
    assert fleet.ledger.leases() == []


async def test_connection_lost_in_mid_change_is_settled_by_its_id_and_gone_on_with_in_the_same_run(
    tmp_path: Path,
) -> None:
    """F1, F8: the step had begun, so it is looked for by its id first; its capacity is kept during the wait."""
    fleet, name = await canary_only(tmp_path)
    fleet.going_dark(name)
    held: list[list[str]] = []
    inner = fleet.site.pause

    async def pause_(length: float) -> None:
        held.append([lease.target for lease in fleet.ledger.leases()])
        fleet.as_before()
        fleet.hosts.change(name, offline=False)
        await inner(length)

    fleet.site = replace(fleet.site, pause=pause_)
    await fleet.apply(1)
    assert fleet.outcomes()[name] == "applied"
    assert held[0] == [name]
    assert tries(fleet, name)[0] == 2
    assert not fleet.twice()
    assert fleet.ledger.leases() == []


async def test_host_that_waits_for_its_next_try_takes_no_place_and_keeps_no_lease(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=6, verify=[], rollout={"maxUnavailable": 1, "failureDomain": None})
    fleet.site = replace(fleet.site, concurrency=1)
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    first, second = fleet.frozen.waves[1].targets[:2]
    offline_until(fleet, first, 15)
    await fleet.apply(2)
    ended = {row.target: row.ended_at for row in fleet.ledger.targets(fleet.rollout)}
    assert fleet.outcomes()[first] == fleet.outcomes()[second] == "applied"
    assert ended[second] is not None
    assert ended[first] is not None
    assert ended[second] < ended[first]


async def test_failed_package_is_not_tried_again(tmp_path: Path) -> None:
    fleet, name = await canary_only(tmp_path)
    fleet.hosts.change(name, fail=100)
    await fleet.apply(1)
    assert fleet.outcomes()[name] == "failed"
    assert tries(fleet, name) == []


async def test_no_further_try_where_the_policy_wants_none(tmp_path: Path) -> None:
    fleet, name = await canary_only(tmp_path, onFailure={"retry": {"times": 0}})
    fleet.hosts.change(name, offline=True)
    await fleet.apply(1)
    assert (fleet.outcomes()[name], tries(fleet, name)) == ("offline", [])


async def test_hold_ends_the_wait_and_the_next_run_waits_out_what_is_left_of_it(tmp_path: Path) -> None:
    fleet, name = await canary_only(tmp_path, onFailure={"retry": {"times": 1, "wait": "2m", "longest": "2m"}})
    fleet.hosts.change(name, offline=True)
    began, inner = fleet.clock.now, fleet.site.pause

    async def held(length: float) -> None:
        await inner(length)
        hold(fleet.ledger, fleet.rollout, "alice", "look first")

    fleet.site = replace(fleet.site, pause=held)
    await fleet.apply(1)
    row = fleet.ledger.target(fleet.rollout, name)
    assert row is not None
    assert (row.state, row.outcome) == (TargetState.WAITING, None)
    assert fleet.clock.now - began < timedelta(minutes=1)
    fleet.site = replace(fleet.site, pause=inner)
    fleet.hosts.change(name, offline=False)
    resume(fleet.ledger, fleet.rollout, "alice", "seen")
    fleet.new_run("run-2")
    await fleet.discover()
    assert await fleet.wave(1) is VerdictName.PROMOTE
    assert fleet.clock.now - began >= timedelta(minutes=2)
    assert tries(fleet, name) == [2]
