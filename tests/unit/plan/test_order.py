"""Order (S3, F7): services wait for those that they depend on, leaders for their followers; a circle is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.errors import PlanError
from patching.plan.capacity import target_claims
from patching.plan.freeze import freeze_plan
from patching.plan.order import Order, service_cycle
from patching.plan.waves import plan_waves
from patching.policy import RolloutRules
from patching.target import Target
from unit.plan.made import NOW, candidate, policy, target


def rules(**depends_on: Sequence[str]) -> RolloutRules:
    return RolloutRules.model_validate({"dependsOn": depends_on, "failureDomain": "az"})


WEB, API, DB = (target(name, service=name) for name in ("web", "api", "db"))


def test_target_waits_for_all_targets_of_the_services_that_its_own_depends_on() -> None:
    dbs = [target(f"db-{number}", service="db") for number in range(3)]
    order = Order(rules(web=["db"]), [WEB, *dbs])
    assert order.before(WEB) == {"db-0", "db-1", "db-2"}
    assert order.before(dbs[0]) == frozenset()
    assert order.depth == {"web": 1, "db-0": 0, "db-1": 0, "db-2": 0}


def test_service_that_has_no_target_here_still_orders_those_around_it() -> None:
    order = Order(rules(web=["api"], api=["db"]), [WEB, DB])
    assert order.before(WEB) == {"db"}
    assert order.depth == {"web": 1, "db": 0}


def test_service_label_is_the_one_that_the_policy_names() -> None:
    found = RolloutRules.model_validate({"service": "app", "dependsOn": {"web": ["db"]}})
    web, db = target("w", app="web", service="db"), target("d", app="db", service="web")
    assert Order(found, [web, db]).before(web) == {"d"}


def test_circle_is_a_plan_error_that_names_it() -> None:
    assert service_cycle({"web": ("api",), "api": ("db",), "db": ("web",)}) is not None
    with pytest.raises(PlanError, match=r"circle: .*web → .*; nothing was planned|circle: .* → web"):
        Order(rules(web=["api"], api=["db"], db=["web"]), [WEB, API, DB])


def test_circle_over_roles_and_services_is_found_by_its_targets() -> None:
    """The leader waits for its follower, whose service waits for the leader's."""
    leader = target("pg-1", service="db", cluster="pg", role="leader")
    follower = target("pg-2", service="copy", cluster="pg", role="follower")
    with pytest.raises(PlanError, match="pg-1") as refused:
        Order(rules(copy=["db"]), [leader, follower])
    assert "pg-2" in str(refused.value)


def test_leader_comes_after_its_followers_and_they_never_go_together() -> None:
    leader = target("pg-1", cluster="pg", role="primary")
    followers = [target(f"pg-{number}", cluster="pg", role="replica") for number in (2, 3)]
    other = target("pg-9", cluster="other", role="replica")
    order = Order(rules(), [leader, *followers, other])
    assert order.before(leader) == {"pg-2", "pg-3"}
    plan = freeze_plan(rollout="r", policy=policy(), now=NOW, exclusions=[],
                       candidates=[candidate(item) for item in (leader, *followers, other)])  # fmt: skip
    found = {item.name: [c.limit for c in target_claims(plan, item) if (c.kind, c.name) == ("cluster", "pg")]
             for item in (leader, *followers, other)}  # fmt: skip
    assert found == {"pg-1": [1], "pg-2": [1], "pg-3": [1], "pg-9": []}


def test_canary_is_drawn_from_those_that_wait_for_nobody() -> None:
    targets = [target(f"web-{n}", service="web", az=f"az-{n % 3}") for n in range(9)]
    targets += [target(f"db-{n}", service="db", az="az-0") for n in range(3)]
    found = RolloutRules.model_validate(
        {"dependsOn": {"web": ["db"]}, "failureDomain": "az",
         "waves": [{"canary": {"count": 1, "per": "az"}}, {"size": "50%"}, {"size": "100%"}]}
    )  # fmt: skip
    depth = Order(found, targets).depth
    waves = plan_waves(found, targets, "seed", depths=depth)
    assert len(waves[0].targets) == 1
    assert waves[0].targets[0].startswith("db-")


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Mapping[str, list[str]], list[Target]]:
    services = [f"s{number}" for number in range(draw(st.integers(1, 5)))]
    depends = {
        name: draw(st.lists(st.sampled_from(services[:index]), unique=True, max_size=3)) if index else []
        for index, name in enumerate(services)
    }
    count = draw(st.integers(1, 25))
    targets = [
        target(f"t{number}", service=draw(st.sampled_from([*services, "free"])), az=draw(st.sampled_from("abc")))
        for number in range(count)
    ]
    return depends, targets


@settings(max_examples=80, deadline=None)
@given(fleets(), st.integers(1, 3), st.sampled_from(["10%", "40%", "70%"]))
def test_nobody_is_in_an_earlier_wave_or_place_than_what_it_waits_for(
    fleet: tuple[Mapping[str, list[str]], list[Target]], count: int, size: str
) -> None:
    depends, targets = fleet
    found = RolloutRules.model_validate(
        {"dependsOn": depends, "failureDomain": "az",
         "waves": [{"canary": {"count": count, "per": "az"}}, {"size": size}, {"size": "100%"}]}
    )  # fmt: skip
    order = Order(found, targets)
    waves = plan_waves(found, targets, "seed", depths=order.depth)
    place = {name: (wave.index, spot) for wave in waves for spot, name in enumerate(wave.targets)}
    assert sorted(place) == sorted(item.name for item in targets)
    for item in targets:
        for earlier in order.before(item):
            assert place[earlier] < place[item.name]
