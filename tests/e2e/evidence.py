"""What hosts show of a rollout that faults met: steps that run, when each host was in change, what the report says."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psutil

from e2e.conftest import World
from lab import LabError
from patching.change import Phase

STEPS = "/var/lib/patching/steps"


@dataclass(frozen=True)
class Running:
    """A step of a change that runs on a host, and the process that waits for it."""

    host: str
    step: str
    task: psutil.Process


def shell(world: World, host: str, script: str) -> str:
    """Run a script in a host, past its network; raises LabError where it fails or the host is off."""
    return world.lab.run(host, ["sh", "-c", script], check=True).stdout


def holds(world: World, host: str, test: str) -> bool:
    """Tell whether a shell test holds in a host; raises LabError where the host is off."""
    return world.lab.run(host, ["sh", "-c", test]).code == 0


def rollout_of(world: World, policy: str) -> str:
    """Give the policy's rollout, from the ledger alone: Airflow may be dead; empty where there is none yet."""
    return next((row.id for row in world.ledger.rollouts(limit=1000) if row.policy == policy), "")


def running(world: World, policy: str, wave: int, zone: str = "") -> Running | None:
    """Find a step of a wave that has begun on a host and whose end the ledger does not know."""
    rollout = rollout_of(world, policy)
    for lease in world.ledger.leases():
        if lease.rollout != rollout or f"wave_{wave}.apply" not in lease.owner:
            continue
        if zone in ("", world.lab.host(lease.target).zone):
            intents = world.ledger.intents(rollout=rollout, target=lease.target)
            with suppress(LabError, psutil.NoSuchProcess):
                begun = world.markers(lease.target)
                for intent in intents:
                    if intent.step_id in begun:
                        task = airflow_worker(psutil.Process(int(lease.owner.split(":")[1])))
                        return Running(lease.target, intent.step_id, task)
    return None


def airflow_worker(process: psutil.Process) -> psutil.Process:
    """Make sure that a process is a worker of Airflow, or its task; raises NoSuchProcess where it is somebody else."""
    if "airflow worker" not in " ".join(process.cmdline()):
        raise psutil.NoSuchProcess(process.pid, msg="another process has this pid by now")
    return process


def changes(world: World, rollout: str, host: str) -> list[tuple[float, float]]:
    """Give when a host was in change, and when in undo, from its own files: first to last step, in epoch seconds."""
    steps: dict[bool, list[str]] = {False: [], True: []}
    for item in world.ledger.intents(rollout=rollout, target=host, open_only=False):
        if item.step["phase"] != Phase.PREPARE.value:
            steps[item.step["phase"] == Phase.UNDO.value].append(item.step_id)
    spans = []
    for ids in steps.values():
        files = " ".join(f"{STEPS}/{step}/{name}" for step in ids for name in ("started", "exit"))
        times = shell(world, host, f"stat -c %.9Y {files} 2>/dev/null || true").split() if ids else []
        if times:
            spans.append((min(map(float, times)), max(map(float, times))))
    return spans


def reported(world: World, rollout: str) -> dict[str, str | None]:
    """Give what the rollout's report says became of each target; of one that was left out, the code that says why."""
    report = world.admin.get(f"/patching/api/rollouts/{rollout}/report")["report"]
    left_out = {item["target"]: item["code"] for item in report["exclusions"]}
    return left_out | {item["target"]: item["outcome"] for item in report["targets"]}
