"""How many may be unavailable (F2, S3), and what a check can detect (S5): sentences and numbers before approval."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.plan.capacity import blocked_domains, domains, reboot_claims, target_claims
from patching.plan.document import PlannedWave
from patching.plan.freeze import freeze_plan
from patching.plan.power import plan_power, targets_to_see, undetected_share
from patching.plan.traffic import Traffic
from patching.policy import Check, RolloutRules
from unit.plan.made import NOW, candidate, fleet, policy, target


def rules(limit: int | str, label: str | None = "az") -> RolloutRules:
    return RolloutRules(failure_domain=label, max_unavailable=limit)


@pytest.mark.parametrize(
    ("limit", "size", "places"), [("10%", 9, 1), ("10%", 19, 1), ("25%", 8, 2), (3, 8, 3), ("100%", 4, 4), (1, 1, 1)]
)
def test_percent_rounds_down_but_one_may_always_move(limit: int | str, size: int, places: int) -> None:
    assert domains(rules(limit), fleet([size]), ())["az-0"].places == places


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 100))
def test_down_targets_take_places_and_never_give_any(size: int, down: int, percent: int) -> None:
    targets = fleet([size])
    gone = [item.name for item in targets[:down]]
    found = domains(rules(f"{percent}%"), targets, gone)["az-0"]
    assert found.places == max(max(size * percent // 100, 1) - len(gone), 0)


def test_domain_that_cannot_move_is_said_with_the_target_that_blocks_it() -> None:
    targets = fleet([2, 2])
    assert blocked_domains(rules(1), targets, ["web-1-0"]) == ("az-1 cannot move: web-1-0 is down, limit 1",)
    assert blocked_domains(rules(2), targets, ["web-1-0"]) == ()
    assert blocked_domains(rules(1, None), targets, ["web-1-0"]) == ("the fleet cannot move: web-1-0 is down, limit 1",)
    assert blocked_domains(rules(1), targets, ["web-1-0"], waiting=["web-0-1"]) == ()


def test_blocked_domain_is_left_out_of_the_plan_with_the_reason_and_the_others_go_on() -> None:
    everybody = fleet([2, 2])
    chosen = [candidate(item) for item in everybody if item.name != "web-1-0"]
    plan = freeze_plan(
        rollout="r", policy=policy(rollout={"failureDomain": "az", "maxUnavailable": 1}), now=NOW,
        candidates=chosen, exclusions=[], selected=everybody, down=["web-1-0"],
    )  # fmt: skip
    assert sorted(item.target.name for item in plan.targets) == ["web-0-0", "web-0-1"]
    assert [(item.target, item.code) for item in plan.exclusions] == [("web-1-1", "domain_blocked")]
    assert plan.blocked_domains == ("az-1 cannot move: web-1-0 is down, limit 1",)
    assert plan.domain_limits == {"az-0": 1, "az-1": 0}


def test_claims_are_the_target_a_place_in_its_domain_and_a_reboot() -> None:
    everybody = fleet([10])
    rollout = {"failureDomain": "az", "maxUnavailable": "30%"}
    plan = freeze_plan(
        rollout="r", policy=policy(rollout=rollout, reboot={"maxConcurrent": 2}), now=NOW,
        candidates=[candidate(item) for item in everybody[:4]], exclusions=[], selected=everybody,
        down=[everybody[9].name],
    )  # fmt: skip
    claims = target_claims(plan, everybody[0])
    assert [(item.kind, item.name, item.limit) for item in claims] == [
        ("target", "web-0-0", 1), ("domain", "web az=az-0", 2),
    ]  # fmt: skip
    assert [(item.kind, item.name, item.limit) for item in reboot_claims(plan, everybody[0])] == [("reboot", "web", 2)]


def test_plan_that_does_not_say_its_limits_counts_the_planned_targets() -> None:
    everybody = fleet([8])
    plan = freeze_plan(rollout="r", policy=policy(rollout={"failureDomain": "az", "maxUnavailable": "25%"}), now=NOW,
                       candidates=[candidate(item) for item in everybody], exclusions=[])  # fmt: skip
    assert target_claims(plan.model_copy(update={"domain_limits": {}}), everybody[0])[1].limit == 2


def waves(*sizes: int, soak: float = 600.0) -> list[PlannedWave]:
    made = [
        PlannedWave(index=number, canary=number == 1, targets=tuple(f"w{number}-{i}" for i in range(size)), soak=soak)
        for number, size in enumerate(sizes, 1)
    ]
    rest = [tuple(name for wave in made[number:] for name in wave.targets) for number in range(1, len(made) + 1)]
    return [wave.model_copy(update={"control": control}) for wave, control in zip(made, rest, strict=True)]


def metric(**compare: Any) -> Check:
    return Check.model_validate(
        {"name": "errors", "prometheus": {"connection": "p", "errors": "e", "requests": "r"}, "compare": compare}
    )


def probe() -> Check:
    return Check.model_validate({"name": "page", "http": {"url": "http://{address}"}})


@pytest.mark.parametrize(("share", "hosts"), [(0.5, 5), (0.2, 14), (0.1, 29), (0.05, 59), (0.01, 299)])
def test_canary_size_rule(share: float, hosts: int) -> None:
    assert targets_to_see(share) == hosts


@given(st.integers(1, 500))
def test_undetected_share_is_what_the_probability_says(hosts: int) -> None:
    """With exactly that share of bad hosts, none among n is seen with probability 5 %."""
    assert math.isclose((1 - undetected_share(hosts)) ** hosts, 0.05, rel_tol=1e-9)


def test_zero_failures_in_ten_hosts_still_allow_a_quarter() -> None:
    said = plan_power([probe()], waves(10, 90))[0]
    assert (
        said.statement == "if 10 targets pass, up to 26 % of all could still fail; 59 targets would show a share of 5 %"
    )
    assert plan_power([probe()], waves(100, 900))[0].statement == (
        "if all 100 targets pass, at most 3 % of all could still fail"
    )


@pytest.mark.parametrize(
    ("compare", "sizes", "expected"),
    [
        ({}, (3, 9), ["control", "before"]),
        ({"against": ["control", "threshold"], "threshold": "2%"}, (3, 9), ["control", "threshold"]),
        ({"against": ["control", "threshold"]}, (3, 9), ["control", "none"]),
        ({"against": ["threshold", "before"]}, (3, 9), ["before", "before"]),
        ({"against": ["control"]}, (5,), ["none"]),
    ],
)
def test_comparison_is_the_first_that_can_be_made(
    compare: dict[str, Any], sizes: tuple[int, ...], expected: list[str]
) -> None:
    said = [item for item in plan_power([metric(**compare)], waves(*sizes)) if item.check == "errors"]
    assert [item.comparison for item in said] == expected


def test_last_wave_says_that_no_control_is_left_and_requests_are_unknown() -> None:
    said = plan_power([metric()], waves(3, 9))
    assert said[0].statement == (
        "errors: how many requests come is not known: below 20 the wave is held, and 20 without an error still allow "
        "an error share of 14 %"
    )
    assert said[1].statement == (
        "3 targets against 9 unpatched over 10m; at best 2.8 × is seen in 4 of 5 rollouts, if hosts vary by 20 %"
    )
    assert said[2].statement.startswith("no control is left: 9 targets against their own time before over 10m")


def test_expected_traffic_is_what_the_plan_speaks_of() -> None:
    """Two requests a second and one error in a hundred, as the time before had it."""
    names = [name for wave in waves(3, 9) for name in wave.targets]
    rates = {"errors": {name: Traffic(errors=0.02, requests=2.0) for name in names}}
    said = plan_power([metric()], waves(3, 9), rates=rates)
    assert said[0].statement.startswith("errors: 1 440 requests a minute came before on 12 targets: below 20 the wave")
    assert said[1].statement == (
        "3 targets against 9 unpatched over 10m; 3.9 × is seen in 4 of 5 rollouts with 36 errors in 3 600 requests, "
        "as before, if hosts vary by 20 %; a host has 1 200 requests, one of the control 1 200"
    )
    assert "; 3.9 × is seen in 4 of 5 rollouts with 108 errors in 10 800 requests, as before, if time moves" in (
        said[2].statement
    )


def test_fewer_errors_and_another_limit_are_said_as_what_can_be_seen() -> None:
    def seen(errors: float, **compare: Any) -> str:
        rates = {"errors": {f"w1-{i}": Traffic(errors=errors, requests=1.0) for i in range(3)}}
        return plan_power([metric(**compare)], waves(3), rates=rates)[-1].statement

    assert "with 1.8 errors in 1 800 requests" in seen(0.001, against=["before"])
    assert "a share of 5 % is seen in 4 of 5 rollouts with 1 800" in seen(0.0, against=["threshold"], threshold="2%")
    assert "a fall to 0." in seen(0.5, against=["before"], direction="decrease")


def test_traffic_that_is_known_of_some_targets_only_is_not_spoken_of() -> None:
    rates = {"errors": {"w1-0": Traffic(errors=0.02, requests=2.0)}}
    assert "at best" in plan_power([metric()], waves(3, 9), rates=rates)[1].statement


def test_services_that_depend_have_their_power_said() -> None:
    rates = {"errors": {"front-1": Traffic(errors=1.0, requests=100.0)}}
    said = plan_power([metric()], waves(3, 9), {1: {"front": ("front-1",)}}, rates=rates)
    (found,) = [item for item in said if item.check == "errors of front"]
    assert "with 600 errors in 60 000 requests" in found.statement


def test_small_fleets_and_missing_checks_are_said() -> None:
    def of_fleet(*sizes: int, checks: tuple[Check, ...] = (probe(),)) -> list[str]:
        return [item.statement for item in plan_power(checks, waves(*sizes)) if item.check == "-"]

    assert of_fleet(1) == ["one target is the whole fleet: there is no control, and a bad patch reaches all of it"]
    assert of_fleet(2, 1) == ["a fleet of 3 has little power: only gross errors are told from chance"]
    assert of_fleet(3, 9) == []
    assert of_fleet(3, 9, checks=()) == [
        "no check: only the packages are verified; a bad patch that installs cleanly is not seen"
    ]
    assert plan_power([metric()], []) == ()
    assert "so few controls give little power" in plan_power([metric()], waves(2, 1))[2].statement
    assert "without a soak" in plan_power([metric()], waves(3, 9, soak=0))[1].statement


def test_target_without_the_domain_label_is_named_as_such() -> None:
    everybody = [target("a", az="x"), target("b"), target("c")]
    assert blocked_domains(rules(1), everybody, ["b"]) == (
        'targets without label "az" cannot move: b is down, limit 1',
    )
