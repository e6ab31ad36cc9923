"""Pid 1 of the lab: everything else is its child in its own namespaces, and ends when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from lab import cgroups, control, services
from lab.forwarder import REFUSE, SILENT, Forwarder, Route
from lab.layout import GATEWAY, PROMETHEUS_PORT, REPOSITORY_PORT, SERVICE_PORT, ZONES, Host, LabError, Layout, fleet
from lab.network import CORE, Network, mount
from lab.power import Machine, run

LAB = "the lab"


class Keeper:
    """A running lab."""

    def __init__(self, layout: Layout, plan: dict[str, Any]) -> None:
        self.layout = layout
        self.hosts = fleet(plan["hosts"], layout.octet, plan["ssh_port"])
        self.network = Network(layout, self.hosts)
        self.forwarder = Forwarder(self.network, routes(layout, self.hosts))
        self.cgroup = cgroups.home(layout.identity)
        layout.path("cgroup").write_text(str(self.cgroup or ""))
        self.machines = {host.name: Machine(host, layout, self.network, plan, self.cgroup) for host in self.hosts}
        self.stages: dict[str, float] = {}
        self.began = time.monotonic()

    def stage(self, name: str) -> None:
        """Note when a part of the start was done."""
        self.stages[name] = round(time.monotonic() - self.began, 2)

    async def up(self) -> None:
        """Start everything; who asked for it waits for the hosts themselves."""
        mount("tmpfs", "lab-live", self.layout.live, "mode=700,size=4m")
        self.network.up()
        self.stage("network")
        await self.forwarder.start()
        for name, argv in services.commands(self.layout, self.hosts).items():
            with (self.layout.logs / f"{name}.log").open("a") as log:
                await asyncio.create_subprocess_exec(
                    *self.network.enter(CORE), *argv, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
                )
        self.stage("services")
        for machine in self.machines.values():
            machine.start()
        self.stage("power on")
        await control.serve(self.layout.path("control.sock"), self.answer)

    async def answer(self, request: dict[str, Any]) -> Any:
        """Do one thing that was asked on the control socket."""
        what = request["do"]
        if what == "status":
            return {"stages": self.stages, "hosts": {name: self.host_status(name) for name in self.machines}}
        if what == "run":
            return await self.run(request)
        chosen = [self.machines[name] for name in self.select(request.get("who", []))]
        await asyncio.gather(*(self.act(what, machine, request) for machine in chosen))
        return [machine.host.name for machine in chosen]

    async def act(self, what: str, machine: Machine, request: dict[str, Any]) -> None:
        """Do something to one host."""
        match what:
            case "off" | "on" | "reset" | "free_disk":
                getattr(machine, what)()
            case "restore":
                await machine.restore()
            case "fill_disk":
                machine.fill_disk(int(request.get("leave_kib", 0)))
            case "cut":
                machine.plug(False)
                self.forwarder.cut_off(machine.host.name, REFUSE if request.get("refuse") else SILENT)
            case "heal":
                machine.plug(True)
                self.forwarder.restore(machine.host.name)
            case _:
                raise LabError(f"the lab cannot {what!r}")

    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a command in one host, or beside the hosts in the lab's network."""
        argv, stdin, within = request["argv"], request.get("stdin", ""), float(request.get("within", 60))
        if request["who"] == "net":
            return await run([*self.network.enter(CORE), *argv], stdin, within)
        (name,) = self.select([request["who"]])
        return await self.machines[name].run(argv, stdin, within)

    def select(self, who: list[str]) -> list[str]:
        """Turn names of hosts and zones into names of hosts; nothing means all.

        Raises:
            LabError: for a name that is neither.
        """
        chosen: list[str] = []
        for name in who or list(self.machines):
            if name in ZONES:
                chosen += [host.name for host in self.hosts if host.zone == name]
            elif name in self.machines:
                chosen.append(name)
            else:
                raise LabError(f"no host or zone {name!r}: hosts are {self.hosts[0].name} to {self.hosts[-1].name}")
        return chosen

    def host_status(self, name: str) -> dict[str, Any]:
        """Tell what the power supply and the cable know about a host."""
        machine = self.machines[name]
        power = "on" if machine.process else "starting" if machine.powered.is_set() else "off"
        return {"zone": machine.host.zone, "power": power, "boots": machine.boots, "cut": self.forwarder.cut.get(name)}


def routes(layout: Layout, hosts: list[Host]) -> list[Route]:
    """List the ports of this machine that lead into the lab."""
    found = [Route(LAB, (layout.gateway, port), (GATEWAY, port)) for port in (PROMETHEUS_PORT, REPOSITORY_PORT)]
    for host in hosts:
        found.append(Route(host.name, (host.loopback, host.ssh_port), (host.address, 22)))
        found.append(Route(host.name, (host.loopback, SERVICE_PORT), (host.address, SERVICE_PORT)))
    return found


async def keep(layout: Layout) -> None:
    """Bring a lab up and keep it until a SIGTERM."""
    keeper = Keeper(layout, json.loads(layout.path("plan.json").read_text()))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    cgroups.drop(keeper.cgroup)
    await keeper.up()
    await ended.wait()


def main() -> int:
    """Be pid 1: fork the keeper proper, and bury whatever is orphaned until it ends."""
    # Whoever starts a lab writes down which process it is before it says go: a lab that nobody can find must not start.
    if sys.stdin.readline() != "go\n":
        return 1
    layout = Layout.default(sys.argv[1], int(sys.argv[2]))
    child = os.fork()
    if not child:
        asyncio.run(keep(layout))
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        with suppress(InterruptedError):
            pid, status = os.wait()
            if pid == child:
                return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
