"""A patch that breaks who depends on it (F7): a metric of its own, an undo, and a report that says who and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patching.ledger.entry import EntryKind
from patching.report.plan_text import render_plan
from patching.rollout.answers import VerdictName
from patching.rollout.brake import Brake
from patching.rollout.record import Record
from patching.rollout.wave_guard import WaveGuard
from unit.rollout.fleet import Fleet

RULES: dict[str, Any] = {
    "dependsOn": {"web": ["db"]},
    "waves": [{"canary": {"count": 1}, "soak": "10m"}, {"size": "50%"}, {"size": "100%"}],
}


async def shop(folder: Path, waves: list[dict[str, Any]] | None = None, **spec: Any) -> Fleet:
    """Three databases, and the three web servers that ask them; the first database is changed."""
    fleet = Fleet(folder, rollout=RULES | {"waves": waves or RULES["waves"]}, **spec)
    found = folder / "policies" / "inventories" / "web.json"
    document = json.loads(found.read_text())
    for index, name in enumerate(fleet.names):
        document["_meta"]["hostvars"][name]["labels"]["service"] = "db" if index < 3 else "web"
    found.write_text(json.dumps(document))
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    return fleet


async def test_errors_of_a_dependent_service_undo_the_patch_that_caused_them(tmp_path: Path) -> None:
    fleet = await shop(tmp_path)
    fleet.metrics.errors = dict.fromkeys(fleet.names[3:], 0.3)
    fleet.clock.advance(minutes=10)
    answer = await fleet.judge(1)
    assert answer.verdict is VerdictName.UNDO
    assert answer.sentence.startswith("errors of web: error share 30 % of 3 000 requests")
    assert "moved by 12:10:" in answer.sentence
    verdict = fleet.ledger.find(fleet.rollout, "verdict:1")
    assert verdict is not None
    assert [(check["name"], check["verdict"]) for check in verdict.body["checks"]] == [
        ("errors", "promote"),
        ("errors of web", "undo"),
    ]
    measured = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.MEASURED])
    assert [entry.body["check"] for entry in measured] == ["errors", "errors of web"]
    await fleet.undo(1)
    report = (await fleet.finish()).markdown
    row = next(line for line in report.splitlines() if line.startswith("| 1 | errors of web | undo | before |"))
    assert row.endswith("2026-11-24 12:10:00Z |")


async def test_early_look_watches_who_depends(tmp_path: Path) -> None:
    fleet = await shop(tmp_path)
    fleet.metrics.errors = dict.fromkeys(fleet.names[3:], 0.3)
    fleet.clock.advance(minutes=4)
    answer = await fleet.judge(1)
    assert answer.verdict is VerdictName.UNDO
    assert answer.sentence.endswith("found while the wave soaked")


@pytest.mark.parametrize("silent", [False, True])
async def test_dependent_service_without_data_is_no_pass(tmp_path: Path, *, silent: bool) -> None:
    fleet = await shop(tmp_path)
    fleet.metrics.silent = set(fleet.names[3:]) if silent else set()
    fleet.clock.advance(minutes=11)
    assert (await fleet.judge(1)).verdict is (VerdictName.HOLD if silent else VerdictName.PROMOTE)


async def test_who_depends_is_no_control_and_has_a_share_of_the_bound(tmp_path: Path) -> None:
    """Errors that the patch causes there would hide those that it causes on what it changed."""
    fleet = await shop(tmp_path)
    started = fleet.ledger.find(fleet.rollout, "wave-started:1")
    assert started is not None
    assert len(started.body["control"]) == 2
    assert set(started.body["control"]) < set(fleet.names[:3])
    said = render_plan(fleet.frozen)
    assert "check errors: 1 target against 2 unpatched over 10m" in said
    assert "check errors of web: depends on what is changed: 3 targets against their own time before" in said


async def test_who_depends_is_no_control_of_the_guard_either(tmp_path: Path) -> None:
    fleet = await shop(tmp_path, [{"canary": {"count": 2}, "soak": "10m"}, {"size": "100%"}])
    record = Record(fleet.site, fleet.rollout)
    guard = WaveGuard(fleet.site, fleet.frozen, 1, Brake(record, fleet.frozen, 1, lambda: None))
    fleet.clock.advance(minutes=7)
    await guard.look()
    await record.close()
    block = fleet.ledger.find(fleet.rollout, "guard:1:errors:1")
    assert block is not None
    assert (block.body["treated"], block.body["control"]) == (2, 1)
