"""The control is chosen by the planner (S6): the same service, spread over the wave's zones, the same again."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from patching.plan.control import CONTROLS_A_TARGET, FEWEST_CONTROLS, choose_control, represented
from patching.plan.document import Plan, PlannedWave
from patching.plan.freeze import freeze_plan
from patching.policy import RolloutRules
from patching.target import Target
from unit.plan.made import NOW, candidate, policy, target

RULES = RolloutRules.model_validate({"failureDomain": "az"})
CHECK = {"name": "errors", "prometheus": {"connection": "p", "errors": "e{$series}", "requests": "r{$series}"}}


def hosts(service: str, **zones: int) -> list[Target]:
    return [
        target(f"{service}-{zone}-{number}", az=zone, service=service)
        for zone, size in zones.items()
        for number in range(size)
    ]


def names(found: list[Target]) -> list[str]:
    return [item.name for item in found]


def frozen(targets: list[Target], **rollout: Any) -> Plan:
    rules = {"failureDomain": "az", "waves": [{"canary": {"count": 1, "per": "az"}, "soak": "10m"}, {"size": "100%"}]}
    made = policy(rollout={**rules, **rollout}, verify=[CHECK])
    return freeze_plan(rollout="r", policy=made, now=NOW, candidates=[candidate(one) for one in targets], exclusions=[])


def test_hosts_of_another_service_are_no_control() -> None:
    web, db = hosts("web", a=3, b=3), hosts("db", a=3, b=3)
    plan = frozen([*web, *db], dependsOn={"db": ["web"]})
    assert set(plan.waves[0].targets) <= set(names(web))
    assert plan.control(1) == tuple(sorted(set(names(web)) - set(plan.waves[0].targets)))
    assert plan.control(2) == ()


def test_label_that_the_policy_names_is_the_service() -> None:
    everybody = [target("x1", role="web"), target("x2", role="web"), target("y1", role="db")]
    rules = RolloutRules.model_validate({"service": "role"})
    assert choose_control(rules, everybody, ["x1"], ["x2", "y1"], "s") == ("x2",)


def test_control_of_a_large_fleet_has_the_zones_of_the_wave_in_its_proportion() -> None:
    """A zone that holds nine tenths of the fleet must not be nine tenths of what two equal zones are compared with."""
    everybody = hosts("web", a=900, b=60, c=40)
    wave = ["web-a-0", "web-a-1", "web-b-0", "web-b-1"]
    later = [name for name in names(everybody) if name not in wave]
    control = choose_control(RULES, everybody, wave, later, "seed")
    assert Counter(name.split("-")[1] for name in control) == {"a": 20, "b": 20}
    assert control == choose_control(RULES, everybody[::-1], wave, later[::-1], "seed")
    assert control != choose_control(RULES, everybody, wave, later, "another")


def test_zones_without_a_changed_target_fill_up_what_the_others_lack() -> None:
    everybody = hosts("web", a=3, b=40)
    control = choose_control(RULES, everybody, ["web-a-0"], names(everybody)[1:], "seed")
    assert Counter(name.split("-")[1] for name in control) == {"a": 2, "b": FEWEST_CONTROLS - 2}


@given(st.lists(st.integers(0, 25), min_size=3, max_size=3), st.integers(1, 6), st.text(max_size=3))
def test_control_is_later_alike_and_as_large_as_it_may_be(sizes: list[int], changed: int, seed: str) -> None:
    web, db = hosts("web", a=sizes[0] + 6, b=sizes[1]), hosts("db", a=sizes[2])
    wave, later = names(web)[:changed], names([*web[changed:], *db])
    control = choose_control(RULES, [*web, *db], wave, later, seed)
    most = max(CONTROLS_A_TARGET * changed, FEWEST_CONTROLS)
    assert len(control) == len(set(control)) == min(most, len(web) - changed)
    assert set(control) <= set(names(web[changed:]))


def test_plan_says_whom_the_control_represents_and_whom_not() -> None:
    def said(wave: list[str], control: list[str]) -> str:
        everybody = [*hosts("web", a=2, b=2), *hosts("db", a=1)]
        part = PlannedWave(index=1, canary=True, targets=tuple(wave), control=tuple(control))
        return represented(RULES, everybody, part)

    lot = "; load not known, so chosen by service, zone and lot"
    assert said(["web-a-0"], ["web-a-1", "web-b-0"]) == f"2 of web in 2 of 2 zones{lot}"
    assert said(["web-a-0", "web-b-0", "db-a-0"], ["web-a-1"]) == (
        f"1 of db and web in 1 of 2 zones; no control of service db; no control in zone b{lot}"
    )
    assert said(["db-a-0"], []) == "none, as no later target is of db"


def test_statement_stands_with_its_wave() -> None:
    plan = frozen(hosts("web", a=4, b=4, c=4))
    ((wave, said),) = [(item.wave, item.statement) for item in plan.power if item.check == "control"]
    assert (wave, said.split(";")[0]) == (1, "9 of web in 3 of 3 zones")


def test_plan_of_an_older_release_takes_whoever_comes_later() -> None:
    plan = frozen([*hosts("web", a=3), *hosts("db", a=3)], dependsOn={"db": ["web"]})
    document = plan.model_dump(mode="json")
    for wave in document["waves"]:
        del wave["control"]
    del document["loads"]
    older = Plan.frozen(document, "earlier")
    assert set(older.control(1)) == {"web-a-0", "web-a-1", "web-a-2"} - set(older.waves[0].targets)
    unordered = older.policy.spec.rollout.model_copy(update={"depends_on": {}})
    spec = older.policy.spec.model_copy(update={"rollout": unordered})
    older = older.model_copy(update={"policy": older.policy.model_copy(update={"spec": spec})})
    assert {"db-a-0", "db-a-1", "db-a-2"} <= set(older.control(1))
