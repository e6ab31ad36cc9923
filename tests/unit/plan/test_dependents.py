"""Dependents of a wave (F7): who feels a change that it did not get, by labels and ``dependsOn``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.canary.dependent import dependent_check, service_of
from patching.plan.dependents import dependents
from patching.policy import Check, Compare, PrometheusCheck, RolloutRules
from patching.target import Member, Target

CHECK = Check(name="errors", prometheus=PrometheusCheck(connection="p", errors="e{$series}", requests="r{$series}"))
RULES = RolloutRules(depends_on={"web": ("api",), "api": ("db", "cache"), "mail": ("smtp",)})
SERVICES = ("db", "cache", "api", "web", "mail", "smtp", "")


def named(service: str, number: int = 0, label: str = "service") -> Target:
    labels = {label: service} if service else {}
    return Target(name=f"{service or 'none'}-{number}", labels=labels, members=(Member(address="127.0.0.1"),))


FLEET = [named(service, number) for service in SERVICES for number in (0, 1)]


@pytest.mark.parametrize(
    ("wave", "services"),
    [
        (["db-0"], ["api", "web"]),
        (["db-0", "api-1"], ["web"]),
        (["web-0"], []),
        (["smtp-0", "none-0"], ["mail"]),
        (["none-0"], []),
        ([], []),
    ],
)
def test_dependents_are_all_services_behind_one_of_the_wave(wave: list[str], services: list[str]) -> None:
    found = dependents(RULES, FLEET, wave)
    assert list(found) == services
    assert all(names == (f"{service}-0", f"{service}-1") for service, names in found.items())


def test_services_have_the_label_that_the_policy_names() -> None:
    rules = RULES.model_copy(update={"service": "app"})
    fleet = [named("db", label="app"), named("api", label="app"), named("web")]
    assert dependents(rules, fleet, ["db-0"]) == {"api": ("api-0",)}
    assert dependents(RolloutRules(), fleet, ["db-0"]) == {}


services = st.sampled_from(SERVICES[:-1])


@given(st.dictionaries(services, st.lists(services, max_size=3).map(tuple)), st.lists(st.sampled_from(FLEET)))
def test_no_dependent_is_of_a_service_of_the_wave(depends_on, chosen):  # type: ignore[no-untyped-def]
    """Also where services depend on each other in a circle, which the policy's rules refuse."""
    rules = RolloutRules(depends_on=depends_on)
    wave = {target.name for target in chosen}
    inside = {target.labels.get("service") for target in chosen}
    found = dependents(rules, FLEET, wave)
    assert not inside & set(found)
    assert not wave & {name for names in found.values() for name in names}


@pytest.mark.parametrize(
    ("against", "expected"),
    [
        (("control", "before", "threshold"), ("before", "threshold")),
        (("control",), ("before",)),
        (("threshold",), ("threshold",)),
    ],
)
def test_service_that_only_depends_has_no_control(against, expected):  # type: ignore[no-untyped-def]
    check = dependent_check(CHECK.model_copy(update={"compare": Compare(against=against)}), "web")
    assert (check.name, check.compare.against) == ("errors of web", expected)
    assert service_of(check.name, CHECK) == "web"
    assert service_of("errors", CHECK) is None
