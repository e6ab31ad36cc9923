"""Controls are about as busy as what is changed (S6): chosen by the load before, each once, the same again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.plan.control import CONTROLS_A_TARGET, FEWEST_CONTROLS, choose_control, represented
from patching.plan.document import Plan, PlannedWave
from patching.plan.freeze import freeze_plan
from patching.plan.load import Loads, by_requests, by_value, nearest_first
from patching.policy import Check, RolloutRules
from patching.target import Target
from unit.plan.made import NOW, candidate, policy, target

RULES = RolloutRules.model_validate({"failureDomain": "az"})
LOADS = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))


def requests(**of: float) -> Loads:
    return Loads(check="errors", unit="requests", of=of)


def check(name: str, against: tuple[str, ...] = ("control",)) -> Check:
    counters = {"connection": "p", "errors": "e{$series}", "requests": "r{$series}"}
    return Check.model_validate({"name": name, "prometheus": counters, "compare": {"against": list(against)}})


def zone(name: str, size: int) -> list[Target]:
    return [target(f"{name}{number}", az=name, service="web") for number in range(size)]


def test_changed_targets_choose_in_turn_the_nearest_by_ratio() -> None:
    """5 is four fifths further from 1 than 20 is from 100, though nearer by difference."""
    loads = requests(busy=100, calm=1, a=90, b=20, c=5, d=1.1)
    assert nearest_first(loads, ["calm", "busy"], ["a", "b", "c", "d"]) == ["a", "d", "b", "c"]


def test_of_two_equally_near_the_one_that_was_drawn_first() -> None:
    loads = Loads(check="lag", unit="value", of={"web": 0, "a": 0, "b": 0, "below": -2, "above": 2})
    assert nearest_first(loads, ["web"], ["above", "b", "below", "a"]) == ["b", "a", "above", "below"]
    assert nearest_first(loads, ["web"], ["below", "a", "above", "b"]) == ["a", "b", "below", "above"]


def test_idle_targets_are_alike_and_who_is_not_known_comes_last() -> None:
    loads = requests(web=0, a=50, b=0.0009, c=0)
    assert nearest_first(loads, ["web"], ["new", "a", "b", "c"]) == ["b", "c", "a", "new"]
    assert nearest_first(loads, ["new"], ["a", "c", "b"]) == ["a", "c", "b"]
    assert nearest_first(None, ["web"], ["a", "c", "b"]) == ["a", "c", "b"]


def test_gauge_that_may_be_below_zero_is_near_by_its_difference() -> None:
    loads = Loads(check="lag", unit="value", of={"web": -1, "a": -10, "b": 2, "c": 0})
    assert nearest_first(loads, ["web"], ["a", "b", "c"]) == ["c", "b", "a"]


@given(st.dictionaries(st.sampled_from("abcdefghij"), LOADS), st.permutations("abcdefghij"), st.integers(1, 4))
def test_every_other_stands_once_and_a_single_chooser_sees_them_ever_further(
    of: dict[str, float], drawn: list[str], changed: int
) -> None:
    loads, others = requests(**of), drawn[changed:]
    ordered = nearest_first(loads, drawn[:changed], others)
    assert sorted(ordered) == sorted(others)
    assert ordered == nearest_first(loads, drawn[:changed], others)
    at, known = loads.positions(), [name in of for name in ordered]
    if not set(of).isdisjoint(drawn[:changed]):
        assert known == sorted(known, reverse=True)
    if changed == 1 and drawn[0] in at:
        away = [abs(at[name] - at[drawn[0]]) for name in ordered if name in at]
        assert all(near <= far for near, far in pairwise(away))


@given(st.lists(LOADS, min_size=60, max_size=60), st.integers(1, 5), st.integers(0, 40), st.text(max_size=2))
def test_load_moves_nobody_between_zones_and_changes_no_number(
    of: list[float], changed: int, other_zone: int, seed: str
) -> None:
    """What was promised without loads holds with them: how many, which zones, and never a target that is changed."""
    everybody = [*zone("a", 60 - other_zone), *zone("b", other_zone)]
    names = [one.name for one in everybody]
    loads = requests(**dict(zip(names, of, strict=True)))
    by_lot = choose_control(RULES, everybody, names[:changed], names[changed:], seed)
    by_load = choose_control(RULES, everybody, names[:changed], names[changed:], seed, loads)
    assert Counter(name[0] for name in by_load) == Counter(name[0] for name in by_lot)
    assert len(set(by_load)) == len(by_load) == min(max(CONTROLS_A_TARGET * changed, FEWEST_CONTROLS), 60 - changed)
    assert not set(by_load) & set(names[:changed])


def test_two_kinds_of_hosts_are_compared_with_their_own_kind() -> None:
    """A tenth of the fleet takes most of the traffic: by lot, a busy canary would stand beside idle hosts."""
    everybody = zone("a", 400)
    names = [one.name for one in everybody]
    loads = requests(**{name: 500.0 + number if number % 10 == 0 else 5.0 for number, name in enumerate(names)})
    control = choose_control(RULES, everybody, ["a0"], names[1:], "seed", loads)
    assert len(control) == FEWEST_CONTROLS
    assert {loads.of[name] for name in control} == {500.0 + 10 * number for number in range(1, FEWEST_CONTROLS + 1)}


def test_zone_whose_changed_targets_have_no_load_takes_those_of_the_service() -> None:
    everybody = [*zone("a", 40), *zone("b", 40)]
    loads = requests(**{one.name: float(number % 40 + 1) for number, one in enumerate(everybody) if one.name != "b0"})
    wave = ["a20", "b0"]
    later = [one.name for one in everybody if one.name not in wave]
    control = choose_control(RULES, everybody, wave, later, "seed", loads)
    assert sorted(int(name[1:]) for name in control if name[0] == "b") == list(range(14, 29))


def frozen(everybody: list[Target], loads: Loads | None) -> Plan:
    rules = {"failureDomain": "az", "waves": [{"canary": {"count": 1}, "soak": "10m"}, {"size": "100%"}]}
    made, chosen = policy(rollout=rules, verify=[check("errors").model_dump(by_alias=True)]), map(candidate, everybody)
    return freeze_plan(rollout="r", policy=made, now=NOW, candidates=[*chosen], exclusions=[], loads=loads)


def test_plan_freezes_the_loads_by_which_it_chose_and_says_how_they_compare() -> None:
    everybody = zone("a", 100)
    loads = requests(**{one.name: float(number + 1) for number, one in enumerate(everybody)}, gone=3.0)
    plan = frozen(everybody, loads)
    assert plan.loads == loads.among([one.name for one in everybody])
    (canary,) = plan.waves[0].targets
    wanted = nearest_first(plan.loads, [canary], sorted(loads.of))[: FEWEST_CONTROLS + 1]
    assert set(plan.control(1)) < set(wanted)
    (said,) = [item.statement for item in plan.power if item.check == "control"]
    assert f"{loads.of[canary]:.3g} requests a second a host before, " in said
    document = plan.model_dump(mode="json")
    assert Plan.frozen(document, "d").loads == plan.loads
    assert frozen(everybody, None).loads is None


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({"w1": 60, "w2": 40, "c1": 45, "c2": 35}, "50 requests a second a host before, 40 at the control (1.2 ×)"),
        (
            {"w1": 600, "w2": 4, "c1": 400, "c2": 1},
            "302 requests a second a host before, 200 at the control (1.5 ×); no control within 2 × the load of w2",
        ),
        (
            {"w1": 1.5, "c1": 0},
            "1.5 requests a second a host before, 0 at the control; no control within 2 × the load of w1; "
            "load of w2 not known",
        ),
        ({"c1": 3, "c2": 4}, "load not known, so chosen by service, zone and lot"),
        ({"w1": 3, "w2": 4}, "load not known, so chosen by service, zone and lot"),
    ],
)
def test_representativeness_is_a_ratio_of_means_and_whom_nobody_is_like(of: dict[str, float], expected: str) -> None:
    everybody = [target(name) for name in ("w1", "w2", "c1", "c2")]
    wave = PlannedWave(index=1, canary=True, targets=("w1", "w2"), control=("c1", "c2"))
    assert represented(RolloutRules(), everybody, wave, requests(**of)) == f"2 targets; {expected}"


def test_load_is_what_the_check_beside_a_control_counts_on_most_targets() -> None:
    counted = {"few": {"a": 1.0}, "errors": {"a": 2.0, "b": 3.00004}, "slow": {"a": 9.0, "b": 9.0}}
    assert by_requests([check("few"), check("errors"), check("slow")], counted) == requests(a=2.0, b=3.0)
    assert by_requests([check("errors", ("before",))], counted) is None
    assert by_requests([check("other")], counted) is None


def test_load_of_a_gauge_is_the_mean_of_what_it_had() -> None:
    found = by_value(check("heap"), {"b": [1.0, None, 2.0], "a": [None, None]})
    assert found == Loads(check="heap", unit="value", of={"b": 1.5})
    assert by_value(check("heap"), {"a": [None]}) is None
