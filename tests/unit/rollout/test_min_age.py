"""``minAge`` (S2): what no advisory dates is as old as our own record shows; nothing younger is ever installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from patching.ledger.base import Problem
from unit.rollout.fleet import Fleet, Moment

MIN_AGE = {"patches": {"securityOrigins": ["Lab-Security:*"], "minAge": "2d"}}


def reasons(fleet: Fleet) -> dict[str, tuple[str, str]]:
    return {item.target: (item.code, item.reason) for item in fleet.frozen.exclusions}


async def plan_again(fleet: Fleet, run: str, **asked: Any) -> list[tuple[str, str | None]]:
    """Plan anew in another run; gives what would be installed."""
    fleet.new_run(run, **asked)
    await fleet.plan()
    return sorted({(patch.component, patch.after) for item in fleet.frozen.targets for patch in item.patches})


async def test_an_update_that_nobody_dates_waits_from_the_day_it_was_first_seen(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, **MIN_AGE)
    assert await plan_again(fleet, "monday") == []
    assert {code for code, _ in reasons(fleet).values()} == {"too_young"}
    assert "due 2026-11-26 12:00 UTC" in reasons(fleet)["web-01"][1]
    fleet.clock.advance(days=1, hours=23)
    assert await plan_again(fleet, "almost") == []
    assert "first seen here 1d23h" in reasons(fleet)["web-01"][1]
    fleet.clock.advance(hours=1)
    assert await plan_again(fleet, "wednesday") == [("shop", "1.1")]


async def test_a_newer_version_begins_to_age_when_it_appears(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, **MIN_AGE)
    await plan_again(fleet, "first")
    fleet.clock.advance(days=3)
    for name in fleet.names:
        fleet.hosts.change(name, offers={"shop": "1.2"})
    assert await plan_again(fleet, "second") == []
    assert "→ 1.2" in reasons(fleet)["web-01"][1]
    fleet.clock.advance(days=2)
    assert await plan_again(fleet, "third") == [("shop", "1.2")]


async def test_what_one_target_was_offered_is_known_for_a_target_that_comes_later(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, **MIN_AGE)
    fleet.hosts.change("web-06", offline=True)
    await plan_again(fleet, "first")
    fleet.clock.advance(days=2)
    fleet.hosts.change("web-06", offline=False)
    await plan_again(fleet, "second")
    assert "web-06" in {item.target.name for item in fleet.frozen.targets}


async def test_planning_again_after_a_crash_finds_the_same_dates(tmp_path: Path) -> None:
    """The crash comes after the offers were written down and before the plan was frozen."""
    from patching.rollout.planning import Planning

    fleet = Fleet(tmp_path, **MIN_AGE)
    await fleet.discover()
    first, second = Planning(fleet.site, fleet.rollout), Planning(fleet.site, fleet.rollout)
    await first.plan()
    fleet.clock.advance(hours=5)
    await second.plan()
    assert first.ages.seen == second.ages.seen


async def test_a_component_that_comes_along_must_be_old_enough_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsed transaction brings dependencies that no policy asked for."""
    from patching.change import Patch
    from patching.drivers.simulated import SimulatedDriver
    from patching.target import Transaction

    parse = SimulatedDriver.parse

    def with_dependency(self: Any, target: Any, wanted: Any, replies: Any) -> Any:
        actions = {"libnew": (None, "9.0"), **{item.component: (item.before, item.after) for item in wanted}}
        return parse(self, target, wanted, replies).model_copy(update={"transaction": Transaction(actions=actions)})

    def whole(_self: Any, snapshot: Any, wanted: Any) -> list[Patch]:
        return [*wanted, Patch(component="libnew", before=None, after="9.0", reason="needed by shop")]

    fleet = Fleet(tmp_path, **MIN_AGE)
    await plan_again(fleet, "first")
    monkeypatch.setattr(SimulatedDriver, "parse", with_dependency)
    monkeypatch.setattr(SimulatedDriver, "transaction", whole)
    fleet.clock.advance(days=2)
    assert await plan_again(fleet, "second") == []
    assert reasons(fleet)["web-01"][0] == "too_young"
    assert "it would come along: libnew None → 9.0" in reasons(fleet)["web-01"][1]
    fleet.clock.advance(days=2)
    assert await plan_again(fleet, "third") == [("libnew", "9.0"), ("shop", "1.1")]


@pytest.mark.parametrize(("ignore", "planned"), [([], []), (["window"], []), (["min-age"], [("shop", "1.1")])])
async def test_an_emergency_passes_min_age_only_where_the_policy_lets_it(
    tmp_path: Path, ignore: list[str], planned: list[tuple[str, str]]
) -> None:
    fleet = Fleet(tmp_path, **MIN_AGE, emergency={"ignore": ignore, "approval": {"required": 1}})
    assert await plan_again(fleet, "emergency", emergency=True, reason="exploited") == planned


async def test_a_run_that_is_no_emergency_never_passes_min_age(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, **MIN_AGE, emergency={"ignore": ["min-age"], "approval": {"required": 1}})
    assert await plan_again(fleet, "first") == []


async def test_what_was_seen_is_a_document_that_the_ledger_verifies(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, **MIN_AGE)
    await plan_again(fleet, "first")
    problems: list[Problem] = fleet.ledger.verify()
    assert problems == []


async def test_without_min_age_nothing_is_kept_for_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    assert await plan_again(fleet, "first") == [("shop", "1.1")]
    assert not [entry for entry in fleet.ledger.entries("control") if entry.kind.value == "offers_seen"]


def test_what_nobody_has_offered_for_a_year_is_forgotten(tmp_path: Path) -> None:
    from patching.ledger.store import open_ledger
    from patching.rollout.first_seen import first_seen

    clock = Moment()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite", clock=clock)
    begin = clock.now
    first_seen(ledger, "a", {"gone=1", "kept=1"}, begin)
    clock.advance(days=401)
    later = clock.now
    assert first_seen(ledger, "b", {"kept=1", "new=1"}, later) == {"kept=1": begin, "new=1": later}
