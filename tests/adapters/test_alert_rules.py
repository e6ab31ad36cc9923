"""The committed alert rules, checked and run by Prometheus's own tool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from patching.cli.heartbeat import METRIC
from servers.absent import not_installed

RULES = Path(__file__).parents[2] / "docs/alerts/heartbeat.rules.yaml"
SERIES = f'{METRIC}{{name="patch_reconcile"}}'
TEST = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: '{series}'
        values: '{values}'
    alert_rule_test:
      - {{alertname: PatchingSchedulerSilent, eval_time: {at}, exp_alerts: {silent}}}
      - {{alertname: PatchingHeartbeatMissing, eval_time: {at}, exp_alerts: {missing}}}
"""
FIRES = (
    "[{{exp_labels: {{severity: page, name: patch_reconcile}}, "
    "exp_annotations: {{summary: '{summary}', description: '{said}'}}}}]"
)


def expected(number: int) -> str:
    """Give what promtool expects of a firing alert: its labels and the annotations of the committed file."""
    found = yaml.safe_load(RULES.read_text())["groups"][0]["rules"][number]["annotations"]
    said = found["description"].replace("'", "''")
    return FIRES.format(summary=found["summary"].replace("'", "''"), said=said)


@pytest.fixture
def promtool() -> str:
    return shutil.which("promtool") or not_installed("no promtool: apt-get install prometheus")


def test_rules_are_valid(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "at", "silent", "missing"),
    [
        # The heartbeat is a moment: 60 more each minute is alive, one that stays is silent, "_" is not collected.
        ("0+60x60", "50m", False, False),
        ("0x60", "16m", False, False),
        ("0x60", "19m", True, False),
        ("_x60", "9m", False, False),
        ("_x60", "12m", False, True),
    ],
)
def test_silence_pages_after_a_quarter_of_an_hour_and_so_does_a_heartbeat_that_is_not_collected(
    promtool: str, tmp_path: Path, values: str, at: str, silent: bool, missing: bool
) -> None:
    text = TEST.format(
        rules=RULES,
        series=SERIES,
        values=values,
        at=at,
        silent=expected(0) if silent else "[]",
        missing=expected(1) if missing else "[]",
    )
    path = tmp_path / "test.yaml"
    path.write_text(text)
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
