"""``patching quarantine`` tells which targets no rollout touches, why, and until when (F1)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patching.cli import main as cli
from patching.report.quarantine_view import NOBODY, quarantine_view
from patching.rollout.quarantine import quarantined
from unit.cli.test_status import Api, api  # noqa: F401 - it is a fixture
from unit.rollout.test_quarantine import failed_canary


async def test_cause_step_and_date_are_shown_and_how_it_ends(
    tmp_path: Path,
    api: Api,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    fleet, canary = await failed_canary(tmp_path, quarantineFor="14d")
    now = fleet.clock()
    kept = quarantined(fleet.ledger, now)
    document = quarantine_view(kept, now, readable=lambda _rollout: True)
    api.answers["/patching/api/quarantine"] = [document]
    assert cli.run(["quarantine"]) == 0
    out = capsys.readouterr().out
    assert kept[0].until is not None
    assert f"  {canary}  since " in out
    assert f"until {kept[0].until:%Y-%m-%d %H:%MZ}  rollout {fleet.rollout}" in out
    assert "step install-shop, exit 100; tries: 1" in out
    assert "patching release TARGET" in out
    assert cli.run(["quarantine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


async def test_output_of_a_step_and_rollouts_that_one_may_not_read_are_left_out(tmp_path: Path) -> None:
    fleet, _ = await failed_canary(tmp_path)
    now = fleet.clock()
    kept = quarantined(fleet.ledger, now)
    assert kept[0].evidence is not None
    assert kept[0].evidence.output
    shown = quarantine_view(kept, now, readable=lambda _rollout: True)["quarantined"]
    assert "output" not in shown[0]["evidence"]
    assert quarantine_view(kept, now, readable=lambda _rollout: False)["quarantined"] == []


def test_an_empty_quarantine_says_so(api: Api, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    api.answers["/patching/api/quarantine"] = [
        {"schema_version": 1, "as_of": "2026-11-24T22:30:00Z", "quarantined": []}
    ]
    assert cli.run(["quarantine"]) == 0
    assert capsys.readouterr().out.strip() == NOBODY
