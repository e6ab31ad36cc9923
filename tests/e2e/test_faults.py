"""Faults through a real Airflow: its processes killed -9, a zone cut off, a host without power in mid-install (F8, S4).

Two rollouts run at the same time on hosts of their own; what is asserted is what the hosts themselves show.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from chaos.checks import most_at_once
from e2e.conftest import Run, World
from e2e.evidence import STEPS, airflow_worker, changes, holds, reported, rollout_of, running, shell
from patching.ledger.entry import EntryKind

pytest_plugins = ["lab.fixtures"]
pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.airflow]

TAKEN_OVER = EntryKind.LEASE_TAKEN_OVER
NEW = "1.0.0-1+deb12u1"
ONE_ZONE = ["web-01", "web-04", "web-07"]
TWO_ZONES = ["web-02", "web-05", "web-03", "web-06"]
ONE_AT_A_TIME = ("maxUnavailable: 100%", "maxUnavailable: 1")
SLOW = ("  reboot:", '  hooks: [{command: {name: slow, enter: "sleep 4"}}]\n  reboot:')
LONG_DPKG = """
cat > /root/slow.sh <<'END'
[ "$DPKG_HOOK_ACTION" = unpack ] && [ -e /root/slow ] || exit 0
rm /root/slow; sync; touch /run/half-way; sleep 300
END
echo 'post-invoke=sh /root/slow.sh' > /etc/dpkg/dpkg.cfg.d/slow
touch /root/slow
"""


def processes_killed(world: World) -> Run:
    """First the API server is killed -9, in the next wave scheduler, worker and task, each in the middle of a step."""
    world.policy("processes-killed", ONE_ZONE, ONE_AT_A_TIME, SLOW)
    run = world.trigger("patch__processes-killed", {"reason": "end-to-end: processes killed"})
    run.until("a step of the canary runs", lambda: running(world, "processes-killed", 1), 120)
    world.airflow.kill("api-server")
    world.airflow.restart("api-server")
    task = run.until("a step of the second wave runs", lambda: running(world, "processes-killed", 2), 180).task
    worker = airflow_worker(task.parent())
    world.airflow.kill("scheduler")
    worker.kill()
    task.kill()
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
    dark = run.until("a step runs in the zone", lambda: running(world, "zone-and-power", 2, zone), 180)
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


def holds_after_every_fault(world: World, run: Run, hosts: list[str]) -> None:
    """Assert what must hold whatever happened: on the hosts, in the ledger, in the report."""
    rollout = rollout_of(world, run.dag_id.removeprefix("patch__"))
    assert run.state() == "success", run.note()
    assert world.versions(hosts) == dict.fromkeys(hosts, NEW)
    assert [host for host in hosts if not holds(world, host, "systemctl is-active shopfront")] == []
    begun = sorted(mark for host in hosts for mark in world.markers(host))
    assert begun == sorted(item.step_id for item in world.ledger.intents(rollout=rollout, open_only=False))
    assert world.twice(hosts) == []
    for zone in {world.lab.host(host).zone for host in hosts}:
        mine = [host for host in hosts if world.lab.host(host).zone == zone]
        assert most_at_once([span for host in mine for span in changes(world, rollout, host)]) == 1, zone
    assert reported(world, rollout) == dict.fromkeys(hosts, "applied")
    assert [lease.target for lease in world.ledger.leases() if lease.rollout == rollout] == []
    assert world.ledger.verify(rollout) == []


def test_api_server_scheduler_worker_and_task_killed_in_mid_step_leave_every_host_right(
    world: World, campaign: dict[str, Future[Any]]
) -> None:
    run = campaign["processes_killed"].result()
    holds_after_every_fault(world, run, ONE_ZONE)
    taken_over = [
        entry.target
        for entry in world.ledger.entries(rollout_of(world, "processes-killed"))
        if entry.kind is TAKEN_OVER
    ]
    assert taken_over


def test_zone_cut_off_and_power_lost_in_mid_install_leave_every_host_right(
    world: World, campaign: dict[str, Future[Any]]
) -> None:
    run, victim = campaign["zone_and_power"].result()
    holds_after_every_fault(world, run, TWO_ZONES)
    intents = world.ledger.intents(rollout=rollout_of(world, "zone-and-power"), target=victim, open_only=False)
    assert max(item.generation for item in intents if item.step["name"] == "install") >= 1
