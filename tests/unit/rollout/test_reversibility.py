"""What stays changed (pure), and the turns of an undo: whole services, nothing below what stays, backwards."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from patching.change import Irreversible, TargetState, Undo
from patching.ledger.base import TargetRow
from patching.plan.document import Plan
from patching.plan.freeze import freeze_plan
from patching.rollout.backwards import Backwards
from patching.rollout.reversibility import Proof, staying, told
from unit.plan.made import NOW, candidate, patch, policy, target

SERVICES = ("web", "api", "db", "cache")
DEPENDS = {"web": ["api", "cache"], "api": ["db"]}
BELOW = {"web": {"api", "cache", "db"}, "api": {"db"}, "db": set(), "cache": set()}
CHANGE = patch("shop:all", "1", "2")
ACCEPTED = {"match": ["*"], "reason": "-", "accept": {"withoutBackup": "-", "withoutDrill": "-"}}


def plan_of(stuck: set[str], found_by: str = "policy", per: int = 2, **rollout: Any) -> Plan:
    """Plan ``per`` targets for each service; those called in ``stuck`` (``db-0``) cannot be undone."""

    def undo(name: str) -> Undo:
        said = {"components": ("shop:all",), "found_by": found_by, "reason": "migrated"}
        found = (Irreversible.model_validate(said),) if name in stuck else ()
        return Undo(possible=not found, covered=1, total=1, irreversible=found)

    rules = {"service": "svc", "dependsOn": DEPENDS, "maxUnavailable": "100%", **rollout}
    names = [(f"{service}-{number}", service) for service in SERVICES for number in range(per)]
    chosen = [candidate(target(name, svc=service), patches=(CHANGE,), undo=undo(name)) for name, service in names]
    made = policy(rollout=rules, patches={"irreversible": [ACCEPTED]})
    return freeze_plan(rollout="r", policy=made, now=NOW, candidates=chosen, exclusions=[])


def service(name: str) -> str:
    return name.split("-")[0]


targets = st.sets(st.sampled_from([f"{name}-{number}" for name in SERVICES for number in range(2)]))


@given(stuck=targets, changed=targets, restored=targets)
def test_whole_services_and_what_they_stand_on_stay_and_nothing_else(
    stuck: set[str], changed: set[str], restored: set[str]
) -> None:
    found = staying(plan_of(stuck), changed, Proof(restored=frozenset(restored)))
    roots = {service(name) for name in (stuck & changed) - restored}
    whole = roots | {below for name in roots for below in BELOW[name]}
    assert set(found) == {name for name in changed if service(name) in whole}
    assert all(found.values())


@given(stuck=targets, changed=targets)
def test_a_drill_with_the_same_patches_lifts_what_was_declared_and_not_what_the_driver_found(
    stuck: set[str], changed: set[str]
) -> None:
    drilled = Proof(drilled=frozenset({(CHANGE.component, CHANGE.before, CHANGE.after)}))
    other = Proof(drilled=frozenset({(CHANGE.component, "0.9", CHANGE.after)}))
    assert staying(plan_of(stuck), changed, drilled) == {}
    assert staying(plan_of(stuck), changed, other) == staying(plan_of(stuck), changed, Proof())
    by_driver = plan_of(stuck, "driver")
    assert staying(by_driver, changed, drilled) == staying(by_driver, changed, Proof())


def test_without_labels_each_target_is_on_its_own() -> None:
    plan = plan_of({"web-0"}, service=None, dependsOn={})
    assert set(staying(plan, {"web-0", "web-1", "db-0"}, Proof())) == {"web-0"}


def test_reasons_are_told_once() -> None:
    assert told({"a": "x", "b": "x", "c": "y"}) == "a, b: x; c: y"


def rows(*names: str) -> list[TargetRow]:
    return [TargetRow(rollout="r", target=name, wave=1, state=TargetState.ENDED) for name in names]


async def order_of(names: list[str], busy: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Undo targets in their turns; a busy one waits until the last other has ended, as for a place that it holds."""
    turns, ended, done = Backwards(plan_of(set()), rows(*names)), [], asyncio.Event()

    async def one(name: str) -> None:
        await turns.turn(name)
        if name in busy:
            turns.passed(name)
            await done.wait()
        ended.append(name)
        turns.passed(name)
        if set(ended) >= set(names) - busy:
            done.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as jobs:
        for name in names:
            jobs.create_task(one(name))
    return ended


@given(st.permutations([f"{name}-0" for name in SERVICES]))
def test_who_depends_on_others_is_undone_before_them(names: list[str]) -> None:
    ended = asyncio.run(order_of(list(names)))
    assert ended.index("web-0") < ended.index("api-0") < ended.index("db-0")
    assert ended.index("web-0") < ended.index("cache-0")


@given(st.permutations([f"{name}-0" for name in SERVICES]), st.sets(st.sampled_from(["web-0", "api-0"])))
def test_who_waits_for_a_place_holds_nobody_up(names: list[str], busy: set[str]) -> None:
    assert sorted(asyncio.run(order_of(list(names), busy))) == sorted(names)
