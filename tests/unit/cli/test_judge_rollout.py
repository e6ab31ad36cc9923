"""``patching judge --rollout``: the ledger's own evidence gives the recorded verdict again (S5, S7)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patching.cli.main import run
from unit.rollout.fleet import Fleet
from unit.rollout.test_wave_guard import applying, blocks

pytestmark = pytest.mark.slow

POLICY = """apiVersion: patching/v1alpha1
kind: PatchPolicy
metadata: {{name: web}}
spec:
  driver: {{name: apt, connection: ssh_prod}}
  targets: {{inventory: fleet.yaml}}
  verify:
    - name: errors
      prometheus: {{connection: prom, errors: 'e{{$series}}', requests: 'r{{$series}}'}}
      compare: {{maxRelativeIncrease: {tolerated}}}
"""


def judged(tmp_path: Path, capsys: pytest.CaptureFixture[str], rollout: str, tolerated: str = "50%") -> tuple[int, str]:
    policy = tmp_path / "web.yaml"
    policy.write_text(POLICY.format(tolerated=tolerated))
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    code = run(["judge", "--policy", str(policy), "--rollout", rollout, "--url", url, "--json"])
    said = capsys.readouterr()
    return code, said.out or said.err


@pytest.mark.parametrize(("share", "code"), [(0.0, 0), (0.3, 1)])
async def test_evidence_of_the_ledger_gives_the_recorded_verdict_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float, code: int
) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = share
    await fleet.wave(1)
    found, out = judged(tmp_path, capsys, fleet.rollout)
    assert found == code, out
    again = json.loads(out)["waves"][0]["checks"][0]
    recorded = fleet.ledger.find(fleet.rollout, "verdict:1")
    assert recorded is not None
    assert again["reason"] == recorded.body["checks"][0]["reason"]


async def test_block_of_the_guard_is_judged_again_as_a_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stopped launching had its block's part of the guard's share, beside the control only."""
    fleet = await applying(tmp_path, 0.3)
    await fleet.apply(2)
    await fleet.judge(2)
    code, out = judged(tmp_path, capsys, fleet.rollout)
    assert code == 1, out
    again = next(wave for wave in json.loads(out)["waves"] if wave["wave"] == 2)["checks"][0]
    recorded = fleet.ledger.find(fleet.rollout, "verdict:2")
    assert recorded is not None
    first = recorded.body["checks"][0]
    assert (again["comparison"], again["numbers"]["looks"]) == ("control", 1)
    for one, looks in ((first, fleet.frozen.looks), (again, 5)):
        number = int(blocks(fleet)[-1].body["block"])
        assert one["numbers"]["alpha"] == pytest.approx(0.05 / looks / (number * (number + 1)))


async def test_rollout_without_evidence_is_wrong_use_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    code, said = judged(tmp_path, capsys, fleet.rollout)
    assert code == 2
    assert "it measured nothing" in said
