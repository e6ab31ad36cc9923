"""Which hosts a schedule runs on: files, or real SSH servers that one process of the harness starts once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.schedule import Schedule
from chaos.servers import Machines, machines
from chaos.ssh_fleet import SshFleet
from chaos.world import Fleet, SimulatedHosts

MACHINES = 3


@contextmanager
def shared_servers(channel: str, folder: Path) -> Iterator[Machines | None]:
    """Give what the fleets of many seeds share: nothing for files."""
    if channel != "ssh":
        yield None
        return
    with machines(folder, MACHINES) as made:
        yield made


def fleet_of(plan: Schedule, folder: Path, servers: Machines | None) -> Fleet:
    """Make the hosts of a run, as the schedule draws them."""
    old = {"shop": "1.0", **({"kernel": "1.0"} if plan.kernel else {})}
    if servers is not None:
        return SshFleet(folder / "hosts", servers, old, plan.bad, plan.pace)
    hosts = SimulatedHosts(folder / "hosts")
    for number in range(plan.hosts):
        hosts.add(
            f"web-{number + 1:02d}",
            installed=old,
            offers=dict.fromkeys(old, "1.1"),
            bad=number in plan.bad,
            pace=plan.pace,
            reboot_required=False,
        )
    return hosts
