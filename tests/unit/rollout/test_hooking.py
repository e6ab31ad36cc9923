"""Command hooks around whole change jobs: entered once, left always, nothing else undone (S4, F8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.ledger.entry import EntryKind
from patching.rollout.control import stop_all
from patching.rollout.states import RolloutState
from unit.rollout.fleet import Fleet
from unit.rollout.test_crash_points import kill_at

HOOKS = [
    {"command": {"name": "drain", "enter": "drain", "leave": "undrain"}},
    {"command": {"name": "quiet", "enter": "quiet", "leave": "loud"}},
]
ONE = {"waves": [{"canary": {"count": 1}}]}


class Died(Exception):
    """Stands for the death of a worker at a crash point."""


async def begun(tmp_path: Path, **spec: Any) -> Fleet:
    fleet = Fleet(tmp_path, hosts=1, hooks=HOOKS, rollout=ONE, **spec)
    await fleet.begin()
    await fleet.gate(1)
    return fleet


def ran(fleet: Fleet) -> list[str]:
    """Give phase and name of every step that really ran on the host, in order."""
    intents = fleet.ledger.intents(rollout=fleet.rollout, open_only=False)
    known = {item.step_id: f"{item.step['phase']} {item.step['name']}" for item in intents}
    return [known[mark] for mark in fleet.hosts.markers("web-01")]


def hooks_of(fleet: Fleet) -> list[str]:
    return [step for step in ran(fleet) if step.split()[0] in ("enter", "leave")]


WHOLE = ["enter hook-drain", "enter hook-quiet", "leave hook-quiet", "leave hook-drain"]


async def test_hooks_are_entered_in_order_and_left_in_reverse_around_the_change(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    await fleet.apply(1)
    steps = ran(fleet)
    assert hooks_of(fleet) == WHOLE
    change = [number for number, step in enumerate(steps) if step.startswith("apply")]
    assert steps.index("enter hook-quiet") < change[0]
    assert change[-1] < steps.index("leave hook-quiet")


async def test_failed_change_leaves_its_hooks(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)

    def break_it(point: str) -> None:
        entered = [item for item in fleet.ledger.intents(open_only=False) if item.step["phase"] == "enter"]
        if point == "outcome-written" and len(entered) == 2:
            fleet.hosts.change("web-01", fail=0 if fleet.hosts.state("web-01").get("fail") else 1)

    fleet.site = replace(fleet.site, crash=break_it)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "failed"}
    assert hooks_of(fleet) == WHOLE


async def test_hook_that_cannot_be_entered_touches_nothing_and_later_hooks_are_neither_entered_nor_left(
    tmp_path: Path,
) -> None:
    fleet = await begun(tmp_path)
    fleet.hosts.change("web-01", fail=1)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "failed"}
    assert ran(fleet) == ["enter hook-drain", "leave hook-drain"]
    assert fleet.versions() == {"web-01": "1.0"}


def dying(fleet: Fleet, point: str, phase: str, nth: int = 1) -> Callable[[str], None]:
    """Make a crash function that dies at a point of the n-th step of a phase."""

    def crash(passed: str) -> None:
        steps = [item for item in fleet.ledger.intents(open_only=False) if item.step["phase"] == phase]
        if passed == point and len(steps) == nth:
            raise Died

    return crash


POINTS = ["intent-written", "started", "ended", "outcome-written"]


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("phase", ["enter", "leave"])
@pytest.mark.parametrize("point", POINTS)
async def test_worker_that_died_in_a_hook_is_gone_on_with_and_every_hook_runs_once(
    tmp_path: Path, point: str, phase: str, nth: int
) -> None:
    fleet = await begun(tmp_path)
    here = fleet.site
    fleet.site = replace(here, crash=dying(fleet, point, phase, nth), owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    fleet.clock.advance(seconds=60)
    fleet.site = replace(here, owner="next")
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    assert hooks_of(fleet) == WHOLE
    assert not fleet.twice()
    assert fleet.ledger.leases() == []


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "nth"), [("enter", 1), ("enter", 2), ("apply", 1), ("leave", 1), ("leave", 2)])
@pytest.mark.parametrize("point", POINTS)
async def test_undo_leaves_what_a_dead_change_job_had_entered(tmp_path: Path, point: str, phase: str, nth: int) -> None:
    fleet = await begun(tmp_path)
    here = fleet.site
    fleet.site = replace(here, crash=dying(fleet, point, phase, nth), owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    fleet.clock.advance(seconds=60)
    fleet.site = replace(here, owner="next")
    fleet.ledger.transition(fleet.rollout, RolloutState.UNDOING, reason="alice: odd")
    await fleet.undo(None)
    assert fleet.state == "undone"
    assert fleet.versions() == {"web-01": "1.0"}
    steps = hooks_of(fleet)
    for name in ("hook-drain", "hook-quiet"):
        assert steps.count(f"leave {name}") >= steps.count(f"enter {name}")
        assert steps.count(f"enter {name}") <= 1
    assert not fleet.twice()


async def test_stopped_before_anything_changed_leaves_its_hooks_and_enters_them_anew_when_it_goes_on(
    tmp_path: Path,
) -> None:
    fleet = await begun(tmp_path)

    def stop(point: str) -> None:
        entered = [item for item in fleet.ledger.intents(open_only=False) if item.step["phase"] == "enter"]
        if point == "outcome-written" and len(entered) == 2 and not fleet.ledger.stopped():
            stop_all(fleet.ledger, "alice", "incident")

    here = fleet.site
    fleet.site = replace(here, crash=stop)
    await fleet.apply(1)
    assert hooks_of(fleet) == WHOLE
    assert fleet.ledger.leases() == []
    fleet.site = here
    stop_all(fleet.ledger, "alice", "over", on=False)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    assert hooks_of(fleet) == WHOLE * 2
    assert not fleet.twice()


async def test_target_that_somebody_else_patched_meanwhile_leaves_what_a_dead_job_had_entered(tmp_path: Path) -> None:
    fleet = await begun(tmp_path)
    here = fleet.site
    fleet.site = replace(here, crash=dying(fleet, "outcome-written", "enter", 2), owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    fleet.hosts.change("web-01", installed={"shop": "1.1"})
    fleet.clock.advance(seconds=60)
    fleet.site = replace(here, owner="next")
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "nothing_to_do"}
    assert hooks_of(fleet) == WHOLE


async def test_policy_without_hooks_writes_no_hook_entries(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=1, rollout=ONE)
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    phases = [entry.body["phase"] for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.STEPS_RESOLVED])]
    assert "leave" not in phases


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("point", POINTS)
async def test_worker_killed_in_any_hook_or_step_is_gone_on_with_and_everything_runs_once(
    tmp_path: Path, point: str, nth: int
) -> None:
    """The steps are two entering hooks, the change, two leaving hooks; the worker dies by SIGKILL in one of them."""
    fleet = await begun(tmp_path)
    fleet.site = replace(fleet.site, lease_ttl=0.3)
    assert kill_at(fleet, point, nth, "apply:1") == -9
    fleet.clock.advance(seconds=60)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    assert hooks_of(fleet) == WHOLE
    assert not fleet.twice()
