"""A connection that is missing is said in the plan, before anybody approves it (S3)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unit.rollout.fleet import Fleet

HOOKS = [
    {"drain": "haproxy", "connection": "lb_prod"},
    {"silence": "alertmanager", "connection": "alerts", "matchers": {"i": "{name}"}, "onError": "ignore"},
    {"command": {"name": "flush", "enter": "true"}},
]


async def test_plan_warns_of_hooks_whose_connection_is_missing_and_says_what_would_happen(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=1, hooks=HOOKS)
    await fleet.plan()
    (target,) = fleet.frozen.targets
    said = [item.message for item in target.warnings if item.code == "hook-connection"]
    assert len(said) == 2
    assert '"lb_prod", which does not exist: the target would fail before it is touched' in said[0]
    assert '"alerts", which does not exist: it would be passed over' in said[1]


async def test_planning_says_who_would_not_be_told(tmp_path: Path) -> None:
    said: list[str] = []
    fleet = Fleet(tmp_path, hosts=1, notify=[{"events": ["held"], "connection": "slack"}])
    fleet.site = replace(fleet.site, log=said.append)
    await fleet.plan()
    assert any('connection "slack" of "notify" does not exist' in line for line in said)
