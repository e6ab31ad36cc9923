"""The simulated tier: the same lab to its users where real hosts are not possible; it proves nothing about Debian."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lab import advisories, inventory, services, startup
from lab.api import Lab
from lab.keys import host_key
from lab.layout import DEFAULT_HOSTS, Host, LabError, Layout, fleet, free_port
from lab.preflight import simulated_problems
from lab.process import only_one
from lab.repository import Repository


class SimulatedRepository(Repository):
    """What simulated hosts are told is published: no index, no signature."""

    def replace(self, published: dict[str, str]) -> dict[str, str]:
        """Offer exactly these versions."""
        with only_one(self.layout.directory / "repository.lock"):
            self.root.mkdir(parents=True, exist_ok=True)
            partial = self.state.with_suffix(".partial")
            partial.write_text(json.dumps(published))
            partial.rename(self.state)
        advisories.write(self.layout.path("advisories"), published)
        return published


class SimulatedLab(Lab):
    """A lab whose hosts are folders behind real SSH servers."""

    simulated = True

    def __init__(self, layout: Layout, hosts: list[Host]) -> None:
        super().__init__(layout, hosts)
        self.repository = SimulatedRepository(layout)

    @classmethod
    def up(
        cls, hosts: int = DEFAULT_HOSTS, *, directory: Path | str | None = None, octet: int | None = None,
        say: startup.Say = startup.say_nothing, within: float = 60,
    ) -> Lab:  # fmt: skip
        """Bring a simulated lab up, or give the lab that is up.

        Raises:
            LabError: when the machine cannot, or when it does not come up in time.
        """
        layout = Layout.default(directory, octet)
        with only_one(startup.lock_file(layout)):
            if startup.running(layout):
                return Lab.attach(directory)
            startup.clear(layout)
            problems = simulated_problems(layout, hosts)
            if problems:
                raise LabError("; ".join(str(problem) for problem in problems))
            lab = cls(layout, prepare(layout, hosts))
            argv = [sys.executable, "-m", "lab.simhost.server", str(layout.directory), str(layout.octet)]
            lab._process = startup.spawn(layout, argv)
            startup.go(layout, lab._process, {"keeper.pid": lab._process.pid})
        with startup.timed(say, f"{hosts} simulated hosts answer"):
            lab.ready(within=within)
        return lab

    @property
    def service_urls(self) -> dict[str, str]:
        """There is no repository to wait for."""
        return {"prometheus": f"{self.layout.prometheus_url}/-/ready"}

    def change_host_key(self, host: str) -> None:
        """Give a host another SSH key than the one in known_hosts; a restore undoes it."""
        self.ask("change_host_key", host)


def prepare(layout: Layout, count: int) -> list[Host]:
    """Write the lab's directory."""
    with only_one(layout.cache / "lock"):
        hosts = fleet(count, layout.octet, free_port(f"127.{layout.octet}.1.1", *startup.ssh_ports()))
        for host in hosts:
            host_key(layout, host)
    layout.logs.mkdir(parents=True, exist_ok=True)
    SimulatedRepository(layout).replace({})
    plan = {"hosts": count, "ssh_port": hosts[0].ssh_port, "post_seconds": startup.POST_SECONDS}
    layout.path("plan.json").write_text(json.dumps(plan, indent=2))
    config = services.prometheus_config(hosts, layout.gateway, loopback=True)
    layout.path("prometheus.yml").write_text(config)
    inventory.write(layout, hosts, "simulated")
    return hosts
