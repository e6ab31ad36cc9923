"""Fleets and their waves (S3), as cases: sizes of every wave, and how the canary is spread over failure domains."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from patching.plan.waves import plan_waves
from patching.policy import RolloutRules
from unit.plan.made import target

CASES = sorted((Path(__file__).parents[2] / "cases" / "waves").glob("*.json"))


def test_there_are_cases() -> None:
    assert len(CASES) >= 12


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    rules = RolloutRules.model_validate(case["rules"])
    targets = [
        target(f"{domain}-{number}", **({} if domain == "-" else {"az": domain}))
        for domain, count in case["domains"].items()
        for number in range(count)
    ]
    waves = plan_waves(rules, targets, seed="s")
    assert [len(wave.targets) for wave in waves] == case["sizes"], case["says"]
    if not waves:
        return
    assert waves[0].canary
    domain_of = {item.name: item.domain(rules.failure_domain) for item in targets}
    spread = Counter(domain_of[name] for name in waves[0].targets)
    assert sorted(spread.values()) == sorted(case["canary_spread"].values()), case["says"]


def test_ten_thousand_targets_are_planned_in_seconds() -> None:
    targets = [target(f"h{number}", az=f"az-{number % 3}") for number in range(10_000)]
    waves = plan_waves(RolloutRules(failure_domain="az"), targets, seed="s")
    assert [len(wave.targets) for wave in waves] == [1, 999, 9000]
