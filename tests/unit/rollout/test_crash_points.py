"""A worker killed at every named crash point (F8): each step's marker is there once, and the rollout ends right."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from patching.rollout.answers import VerdictName
from unit.rollout.fleet import Fleet

pytestmark = pytest.mark.slow

POINTS = [
    "lease-taken",
    "steps-resolved",
    "intent-written",
    "started",
    "ended",
    "outcome-written",
    "target-outcome-written",
]
WORKER = Path(__file__).with_name("crashing_worker.py")


def kill_at(fleet: Fleet, point: str, nth: int, task: str) -> int:
    """Run a worker that dies at a crash point; gives its exit status (negative: the signal)."""
    fleet.keep()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(fleet.folder), point, str(nth), task],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (-9, 0), done.stderr
    return done.returncode


async def prepared(tmp_path: Path, **spec) -> Fleet:
    fleet = Fleet(tmp_path, hosts=3, rollout={"waves": [{"canary": {"count": 1}}, {"size": "100%"}]}, **spec)
    fleet.site = replace(fleet.site, lease_ttl=0.3)
    await fleet.begin()
    await fleet.gate(1)
    return fleet


@pytest.mark.parametrize("point", POINTS)
async def test_worker_killed_in_apply_runs_no_step_twice_and_the_rollout_completes(tmp_path, point):
    fleet = await prepared(tmp_path)
    assert kill_at(fleet, point, 1, "apply:1") == -9
    fleet.clock.advance(seconds=60)
    await fleet.apply(1)
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    await fleet.wave(2)
    closing = await fleet.finish()
    assert closing.good, closing.sentence
    assert set(fleet.versions().values()) == {"1.1"}
    assert not fleet.twice()
    assert [len(fleet.hosts.markers(name)) for name in fleet.names] == [1, 1, 1]
    assert fleet.ledger.verify() == []
    assert fleet.ledger.leases() == []


@pytest.mark.parametrize("point", POINTS)
async def test_worker_killed_in_undo_undoes_once_and_the_rollout_ends_undone(tmp_path, point):
    fleet = await prepared(tmp_path)
    canary = next(item.target.name for item in fleet.frozen.targets if item.wave == 1)
    fleet.metrics.errors[canary] = 0.3
    await fleet.apply(1)
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
    assert kill_at(fleet, point, 1, "undo") == -9
    fleet.clock.advance(seconds=60)
    await fleet.finish()
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {"1.0"}
    assert not fleet.twice()
    assert len(fleet.hosts.markers(canary)) == 2
    assert fleet.ledger.verify() == []
