"""Waves (S3, P5): every target in exactly one, the canary first and never alone, spread over the failure domains."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.plan.document import PlannedWave
from patching.plan.waves import plan_waves
from patching.policy import RolloutRules
from patching.quantity import resolve
from patching.target import Target
from unit.plan.made import fleet, target


def rules(*waves: dict[str, Any], domain: str | None = "az") -> RolloutRules:
    return RolloutRules.model_validate({"failureDomain": domain, "waves": list(waves)})


def planned(targets: list[Target], *waves: dict[str, Any], domain: str | None = "az", **more: Any) -> list[int]:
    return [len(wave.targets) for wave in plan_waves(rules(*waves, domain=domain), targets, "seed", **more)]


CANARY, REST = {"canary": {"count": 1}}, {"size": "100%"}
PER_AZ = {"canary": {"count": 1, "per": "az"}}

percents = st.integers(1, 99).map(lambda number: f"{number}%")
sizes = st.one_of(st.integers(1, 60), percents)
canaries = st.builds(
    lambda count, per: {"canary": {"count": count, **({"per": per} if per else {})}},
    st.integers(1, 8),
    st.sampled_from([None, "az", "rack", "no-such-label"]),
)
shapes = st.builds(
    lambda canary, middle: [canary, *({"size": size} for size in middle), REST],
    canaries,
    st.lists(sizes, max_size=6),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[Target]:
    labels = st.fixed_dictionaries(
        {}, optional={"az": st.sampled_from("abc"), "rack": st.sampled_from(["r1", "r2", "r3", "r4"])}
    )
    found = draw(st.lists(labels, min_size=1, max_size=70))
    return [target(f"web-{number}", **each) for number, each in enumerate(found)]


@given(fleets(), shapes, st.text(max_size=5))
def test_every_target_is_in_exactly_one_wave_and_no_wave_is_empty(
    targets: list[Target], shape: list[dict[str, Any]], seed: str
) -> None:
    waves = plan_waves(rules(*shape), targets, seed)
    assert Counter(name for wave in waves for name in wave.targets) == Counter(item.name for item in targets)
    assert all(wave.targets for wave in waves)
    assert [wave.index for wave in waves] == list(range(1, len(waves) + 1))


@given(fleets(), shapes)
def test_canary_is_first_and_leaves_a_control_where_one_can_be_left(
    targets: list[Target], shape: list[dict[str, Any]]
) -> None:
    waves = plan_waves(rules(*shape), targets, "seed")
    assert [wave.canary for wave in waves] == [True, *[False] * (len(waves) - 1)]
    assert len(waves[0].targets) <= max(len(targets) - 1, 1)


@given(fleets(), shapes)
def test_after_each_wave_no_more_is_done_than_its_size_allows_but_always_one_more(
    targets: list[Target], shape: list[dict[str, Any]]
) -> None:
    """A wave whose size the canary has used up already still takes one target: a wave that is empty says nothing."""
    waves = plan_waves(rules(*shape), targets, "seed")
    done = len(waves[0].targets)
    for wave, rule in zip(waves[1:-1], shape[1:-1], strict=False):
        goal = max(resolve(rule["size"], len(targets)), done + 1)
        done += len(wave.targets)
        assert done == min(goal, len(targets))


@given(st.integers(1, 5), st.integers(1, 12), shapes)
def test_equal_domains_are_never_more_than_one_target_apart(
    domains: int, each: int, shape: list[dict[str, Any]]
) -> None:
    waves = plan_waves(
        rules(*(shape if "per" not in shape[0]["canary"] else [CANARY, *shape[1:]])), fleet([each] * domains), "s"
    )
    done: Counter[str] = Counter({f"az-{number}": 0 for number in range(domains)})
    for wave in waves:
        done.update(f"az-{name.split('-')[1]}" for name in wave.targets)
        assert max(done.values()) - min(done.values()) <= 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.lists(percents, max_size=5))
def test_unequal_domains_move_with_their_share(domain_sizes: list[int], middle: list[str]) -> None:
    """Sainte-Laguë's bound: with m domains of T targets, one of size s is ahead of its share by at most this."""
    targets, most = (
        fleet(domain_sizes),
        0.5 + 0.5 * max(len(domain_sizes) - 2, 0) * max(domain_sizes) / sum(domain_sizes),
    )
    waves = plan_waves(rules(*({"size": size} for size in middle), REST), targets, "seed")
    done: Counter[str] = Counter()
    for wave in waves:
        done.update(name.split("-")[1] for name in wave.targets)
        share = done.total() / len(targets)
        for domain, size in enumerate(domain_sizes):
            assert done[str(domain)] <= share * size + most + 1e-9


def test_small_domains_do_not_wait_until_the_large_one_is_done() -> None:
    half = plan_waves(rules({"size": "50%"}, REST), fleet([20, *[1] * 20]), "seed")[0]
    assert 9 <= sum(name.startswith("web-0-") for name in half.targets) <= 11


@given(fleets(), shapes, st.randoms(use_true_random=False))
def test_same_fleet_in_another_order_gives_the_same_waves(
    targets: list[Target], shape: list[dict[str, Any]], mix: Any
) -> None:
    shuffled = list(targets)
    mix.shuffle(shuffled)
    assert plan_waves(rules(*shape), targets, "seed") == plan_waves(rules(*shape), shuffled, "seed")


@pytest.mark.parametrize(
    ("count", "waves", "expected"),
    [
        (12, [PER_AZ, {"size": "50%"}, REST], [3, 3, 6]),
        (12, [CANARY, {"size": "10%"}, REST], [1, 1, 10]),
        (12, [CANARY, {"size": "25%"}, {"size": "50%"}, REST], [1, 2, 3, 6]),
        (12, [{"canary": {"count": 7}}, {"size": "50%"}, REST], [7, 1, 4]),
        (12, [CANARY, {"size": 5}, REST], [1, 4, 7]),
        (12, [CANARY, {"size": 50}, REST], [1, 11]),
        (12, [{"canary": {"count": 50}}, {"size": "50%"}, REST], [11, 1]),
        (3, [PER_AZ, REST], [2, 1]),
        (3, [CANARY, {"size": "50%"}, REST], [1, 1, 1]),
        (2, [PER_AZ, {"size": "50%"}, REST], [1, 1]),
        (1, [PER_AZ, {"size": "10%"}, REST], [1]),
        (10_000, [PER_AZ, {"size": "1%"}, {"size": "10%"}, REST], [3, 97, 900, 9000]),
    ],
)
def test_cumulative_sizes_of_known_fleets(count: int, waves: list[dict[str, Any]], expected: list[int]) -> None:
    each = [count // 3 + (number < count % 3) for number in range(3)]
    assert planned(fleet(each), *waves) == expected


def test_no_target_gives_no_wave() -> None:
    assert plan_waves(rules(CANARY, REST), [], "seed") == ()


def test_canary_per_domain_takes_one_of_each_even_if_one_domain_is_small() -> None:
    first = plan_waves(rules(PER_AZ, REST), fleet([40, 3, 1]), "seed")[0]
    assert Counter(name.split("-")[1] for name in first.targets) == {"0": 1, "1": 1, "2": 1}


def test_canary_per_another_label_than_the_failure_domain_counts_by_that_label() -> None:
    targets = [target(f"web-{n}", az="abc"[n % 3], role=["web", "api"][n % 2]) for n in range(12)]
    first = plan_waves(rules({"canary": {"count": 2, "per": "role"}}, REST), targets, "seed")[0]
    role = {item.name: item.labels["role"] for item in targets}
    assert Counter(role[name] for name in first.targets) == {"web": 2, "api": 2}


def test_draw_changes_with_the_seed_and_never_always_takes_the_same_hosts() -> None:
    targets = fleet([4, 4, 4])
    drawn = {plan_waves(rules(CANARY, REST), targets, f"rollout-{number}")[0].targets for number in range(40)}
    assert len(drawn) > 5


def waves_by_rank(ranks: dict[str, int]) -> tuple[PlannedWave, ...]:
    return plan_waves(rules(CANARY, {"size": "50%"}, REST, domain=None), fleet([10]), "seed", ranks)


def test_urgent_targets_come_before_others_in_later_waves() -> None:
    urgent = {"web-0-7", "web-0-2", "web-0-5"}
    waves = waves_by_rank({item.name: 0 if item.name in urgent else 3 for item in fleet([10])})
    assert urgent <= set(waves[0].targets + waves[1].targets)


def test_canary_is_drawn_by_chance_of_the_seed_not_by_urgency() -> None:
    """What is compared must be alike: canaries that are all of the most urgent kind differ from their control (E6)."""
    assert waves_by_rank({})[0].targets == waves_by_rank({f"web-0-{n}": n % 3 for n in range(10)})[0].targets
