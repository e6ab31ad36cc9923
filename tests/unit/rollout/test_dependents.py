"""A patch that breaks who depends on it (F7): a metric of its own, an undo, and a report that says who and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patching.ledger.entry import EntryKind, NewEntry
from patching.report.plan_text import render_plan
from patching.rollout import control_targets
from patching.rollout.answers import VerdictName
from patching.rollout.brake import Brake
from patching.rollout.incidents import incidents
from patching.rollout.late_watch import watch_finished
from patching.rollout.record import Record
from patching.rollout.wave_guard import WaveGuard
from unit.rollout.fleet import Fleet

RULES: dict[str, Any] = {
    "dependsOn": {"web": ["db"]},
    "waves": [{"canary": {"count": 1}, "soak": "10m"}, {"size": "50%"}, {"size": "100%"}],
}


async def shop(folder: Path, waves: list[dict[str, Any]] | None = None, **spec: Any) -> Fleet:
    """Three databases, and the three web servers that ask them; the first database is changed."""
    rules = RULES | {"waves": waves or RULES["waves"]} | spec.pop("rollout", {})
    fleet = Fleet(folder, rollout=rules, **spec)
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


async def finished_shop(folder: Path, *, skipped: bool) -> Fleet:
    """All databases changed and the rollout completed; the web servers were changed after them, or left out."""
    fleet = await shop(folder, [{"canary": {"count": 1}}, {"size": "100%"}], rollout={"watch": "24h"})
    if skipped:
        for name in fleet.names[3:]:
            control_targets.skip(fleet.ledger, fleet.rollout, "eva", "another day", target=name)
    for wave in range(1, len(fleet.frozen.waves) + 1):
        await fleet.gate(wave)
        await fleet.apply(wave)
        fleet.clock.advance(minutes=11)
        assert (await fleet.judge(wave)).verdict is VerdictName.PROMOTE
        await fleet.undo(wave)
    assert (await fleet.finish()).good
    return fleet


@pytest.mark.parametrize("skipped", [False, True], ids=["changed after it", "left out"])
async def test_dependent_service_that_breaks_after_the_rollout_is_a_late_regression(
    tmp_path: Path, *, skipped: bool
) -> None:
    fleet = await finished_shop(tmp_path, skipped=skipped)
    fleet.metrics.errors = dict.fromkeys(fleet.names[3:], 0.3)
    fleet.clock.advance(hours=2)
    (said,) = await watch_finished(fleet.site)
    assert "errors of web: error share" in said
    assert "it only depends on what was changed, and moved by" in said
    (found,) = incidents(fleet.ledger)
    assert "errors of web" in found.cause
    verdict = fleet.ledger.find(fleet.rollout, "late-verdict")
    assert verdict is not None
    assert {check["name"]: check["verdict"] for check in verdict.body["checks"]}["errors of web"] == "undo"


async def test_dependent_service_that_a_later_rollout_changed_accuses_nobody(tmp_path: Path) -> None:
    fleet = await finished_shop(tmp_path, skipped=True)
    body = {"policy": "other", "emergency": False, "requested_by": "eva"}
    targets = [{"name": name, "wave": 1} for name in fleet.names[3:]]
    entries = [(EntryKind.ROLLOUT_OPENED, None, body), (EntryKind.PLAN_FROZEN, None, {"plan": "0", "targets": targets})]
    entries += [(EntryKind.TARGET_BEGAN, name, {"wave": 1}) for name in fleet.names[3:]]
    for kind, target, body in entries:
        key = f"{kind.value}:{target}"
        fleet.ledger.append(NewEntry(chain="later", kind=kind, key=key, target=target, body=body))
    fleet.metrics.errors = dict.fromkeys(fleet.names[3:], 0.3)
    fleet.clock.advance(hours=2)
    assert await watch_finished(fleet.site) == []


async def test_dependent_service_without_data_ends_the_watch_without_a_pass(tmp_path: Path) -> None:
    fleet = await finished_shop(tmp_path, skipped=True)
    fleet.metrics.silent = set(fleet.names[3:])
    fleet.clock.advance(hours=25)
    (said,) = await watch_finished(fleet.site)
    assert "errors of web" in said
    verdict = fleet.ledger.find(fleet.rollout, "late-verdict")
    assert verdict is not None
    assert verdict.body["verdict"] == "hold"
