"""Faults through a real Airflow: its processes killed -9, a zone cut off, a host without power in mid-install (F8, S4).

Two rollouts run at the same time on hosts of their own; what is asserted is what the hosts themselves show.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from e2e.conftest import Run, World
from patching.ledger.entry import EntryKind

pytest_plugins = ["lab.fixtures"]
pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.airflow]

TAKEN_OVER = EntryKind.LEASE_TAKEN_OVER
NEW = "1.0.0-1+deb12u1"
ONE_ZONE = ["web-01", "web-04", "web-07"]
TWO_ZONES = ["web-02", "web-05", "web-03", "web-06"]
ONE_AT_A_TIME = ("maxUnavailable: 100%", "maxUnavailable: 1")
SLOW = ("  reboot:", '  hooks: [{command: {name: slow, enter: "sleep 4"}}]\n  reboot:')
STEPS = "/var/lib/patching/steps"
LONG_DPKG = """
cat > /root/slow.sh <<'END'
[ "$DPKG_HOOK_ACTION" = unpack ] && [ -e /root/slow ] || exit 0
rm /root/slow; sync; touch /run/half-way; sleep 300
END
echo 'post-invoke=sh /root/slow.sh' > /etc/dpkg/dpkg.cfg.d/slow
touch /root/slow
"""


@dataclass(frozen=True)
class Change:
    """When a host was in change, by the files of its own steps, in seconds since the epoch."""

    host: str
    began: float
    ended: float


@dataclass(frozen=True)
class Running:
    """A step of a change that runs on a host, and the process that waits for it."""

    host: str
    step: str
    pid: int


def shell(world: World, host: str, script: str) -> str:
    return world.lab.run(host, ["sh", "-c", script], check=True).stdout


def holds(world: World, host: str, test: str) -> bool:
    return world.lab.run(host, ["sh", "-c", test]).code == 0


def rollout_of(run: Run) -> str:
    return str((run.view().get("rollout") or {}).get("id") or "")


def running(world: World, run: Run, wave: int, zone: str = "") -> Running | None:
    """Find a step of a wave that has begun on a host and whose end the ledger does not know."""
    rollout = rollout_of(run)
    for lease in world.ledger.leases():
        if lease.rollout != rollout or f"wave_{wave}.apply" not in lease.owner:
            continue
        if zone in ("", world.lab.host(lease.target).zone):
            begun = world.markers(lease.target)
            for intent in world.ledger.intents(rollout=rollout, target=lease.target):
                if intent.step_id in begun:
                    return Running(lease.target, intent.step_id, int(lease.owner.split(":")[1]))
    return None


def processes_killed(world: World) -> Run:
    """First the API server is killed -9, in the next wave scheduler, worker and task, each in the middle of a step."""
    world.policy("processes-killed", ONE_ZONE, ONE_AT_A_TIME, SLOW)
    run = world.trigger("patch__processes-killed", {"reason": "end-to-end: processes killed"})
    run.until("a step of the canary runs", lambda: running(world, run, 1), 120)
    world.airflow.kill("api-server")
    world.airflow.restart("api-server")
    task = run.until("a step of the second wave runs", lambda: running(world, run, 2), 180).pid
    worker = psutil.Process(task).ppid()
    world.airflow.kill("scheduler")
    for pid in (worker, task):
        os.kill(pid, signal.SIGKILL)
    world.airflow.restart("scheduler")
    run.ends(within=240)
    return run


def zone_and_power(world: World) -> tuple[Run, str]:
    """A zone is cut off in mid-step, and a host of another zone loses its power in mid-install; both come back."""
    world.policy("zone-and-power", TWO_ZONES, ONE_AT_A_TIME, SLOW)
    run = world.trigger("patch__zone-and-power", {"reason": "end-to-end: zone cut off, power lost"})
    canary = run.until("the canary is drawn", lambda: canary_of(run), 120)
    of_zone = {zone: [host for host in TWO_ZONES if world.lab.host(host).zone == zone] for zone in ("az-b", "az-c")}
    zone, other = sorted(of_zone, key=lambda name: canary in of_zone[name])
    (victim,) = set(of_zone[other]) - {canary}
    shell(world, victim, LONG_DPKG)
    boot = world.lab.boot_id(victim)
    dark = run.until("a step runs in the zone", lambda: running(world, run, 2, zone), 180)
    world.lab.cut(zone, refuse=True)
    run.until("half of the install is done", lambda: holds(world, victim, "test -e /run/half-way"), 120)
    assert "[iU]" in world.lab.versions(victim)["shopfront"]
    world.lab.off(victim)
    ended = f"test -e {STEPS}/{dark.step}/exit"
    run.until("the step ended in the dark", lambda: holds(world, dark.host, ended), 60)
    world.lab.heal(zone)
    world.lab.on(victim)
    world.lab.ready(victim)
    assert world.lab.boot_id(victim) != boot
    run.ends(within=240)
    return run, victim


def canary_of(run: Run) -> str | None:
    return next((item["name"] for item in run.view().get("targets", []) if item["wave"] == 1), None)


@pytest.fixture(scope="module")
def campaign(world: World) -> Iterator[dict[str, Future[Any]]]:
    """Start both rollouts on hosts that are as new, and leave them as new for the tests that follow."""
    world.lab.restore(*ONE_ZONE, *TWO_ZONES)
    world.lab.publish("v2")
    world.stage.sync_advisories()
    with ThreadPoolExecutor(2) as pool:
        yield {act.__name__: pool.submit(act, world) for act in (processes_killed, zone_and_power)}
    world.lab.restore(*ONE_ZONE, *TWO_ZONES)


def changes(world: World, rollout: str, hosts: list[str]) -> list[Change]:
    """Read from the hosts when each was in change: from its first step after the preparation to the end of its last."""
    found = []
    for host in hosts:
        intents = world.ledger.intents(rollout=rollout, target=host, open_only=False)
        steps = [f"{STEPS}/{item.step_id}" for item in intents if item.step["phase"] != "prepare"]
        files = " ".join(f"{step}/started {step}/exit" for step in steps)
        times = [float(line) for line in shell(world, host, f"stat -c %.9Y {files} 2>/dev/null || true").split()]
        found.append(Change(host, min(times), max(times)))
    return found


def together(world: World, found: list[Change]) -> list[tuple[str, str]]:
    """Name the pairs of hosts of one zone that were in change at the same time."""
    return [
        (one.host, other.host)
        for one, other in itertools.combinations(sorted(found, key=lambda change: change.began), 2)
        if world.lab.host(one.host).zone == world.lab.host(other.host).zone and other.began < one.ended
    ]


def reported(world: World, rollout: str) -> dict[str, str]:
    answer = world.admin.get(f"/patching/api/rollouts/{rollout}/report")
    return {item["target"]: item["outcome"] for item in answer["report"]["targets"]}


def holds_after_every_fault(world: World, run: Run, hosts: list[str]) -> None:
    """Assert what must hold whatever happened: on the hosts, in the ledger, in the report."""
    rollout = rollout_of(run)
    assert run.state() == "success", run.note()
    assert world.versions(hosts) == dict.fromkeys(hosts, NEW)
    assert [host for host in hosts if not holds(world, host, "systemctl is-active shopfront")] == []
    begun = sorted(mark for host in hosts for mark in world.markers(host))
    assert begun == sorted(item.step_id for item in world.ledger.intents(rollout=rollout, open_only=False))
    assert world.twice(hosts) == []
    assert together(world, changes(world, rollout, hosts)) == []
    assert reported(world, rollout) == dict.fromkeys(hosts, "applied")
    assert [lease.target for lease in world.ledger.leases() if lease.rollout == rollout] == []
    assert world.ledger.verify(rollout) == []


def test_api_server_scheduler_worker_and_task_killed_in_mid_step_leave_every_host_right(
    world: World, campaign: dict[str, Future[Any]]
) -> None:
    run = campaign["processes_killed"].result()
    holds_after_every_fault(world, run, ONE_ZONE)
    taken_over = [entry.target for entry in world.ledger.entries(rollout_of(run)) if entry.kind is TAKEN_OVER]
    assert taken_over


def test_zone_cut_off_and_power_lost_in_mid_install_leave_every_host_right(
    world: World, campaign: dict[str, Future[Any]]
) -> None:
    run, victim = campaign["zone_and_power"].result()
    holds_after_every_fault(world, run, TWO_ZONES)
    intents = world.ledger.intents(rollout=rollout_of(run), target=victim, open_only=False)
    assert max(item.generation for item in intents if item.step["name"] == "install") >= 1
