"""The process behind a simulated lab: SSH servers, shops, metrics and the control socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from typing import Any

import asyncssh

from lab import control, services
from lab.forwarder import REFUSE, SILENT, Forwarder, Route
from lab.keys import client_key
from lab.layout import PROMETHEUS_PORT, SERVICE_PORT, ZONES, LabError, Layout, fleet
from lab.simhost import query, state
from lab.simhost.hosts import SimulatedHost, end_marked
from lab.simhost.session import session
from lab.simhost.shop import Shop


class LocalSockets:
    """Stands for the network of the real lab: hosts listen on abstract names, so that nothing is left of them."""

    def socket(self) -> socket.socket:
        """Make a socket that reaches a simulated host."""
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class SimulatedKeeper:
    """A running simulated lab."""

    def __init__(self, layout: Layout, plan: dict[str, Any]) -> None:
        self.layout = layout
        hosts = fleet(plan["hosts"], layout.octet, plan["ssh_port"])
        self.hosts = {host.name: SimulatedHost(host, layout, plan["post_seconds"]) for host in hosts}
        self.shops = {name: Shop(host) for name, host in self.hosts.items()}
        self.acceptors: dict[str, asyncssh.SSHAcceptor] = {}
        self.connections: dict[str, set[asyncssh.SSHServerConnection]] = {name: set() for name in self.hosts}
        routes = []
        for host in hosts:
            routes.append(Route(host.name, (host.loopback, host.ssh_port), self.name(host.name, "ssh")))
            routes.append(Route(host.name, (host.loopback, SERVICE_PORT), self.name(host.name, "shop")))
        self.forwarder = Forwarder(LocalSockets(), routes)
        self.cut: dict[str, str] = {}

    def name(self, host: str, what: str) -> str:
        """Give the abstract address of one of a host's services."""
        return f"\0{self.layout.identity}-{host}-{what}"

    async def up(self) -> None:
        """Start everything."""
        for name, host in self.hosts.items():
            host.new_disk()
            host.boot()
            await self.listen(name, self.layout.keys / "hosts" / name)
            await asyncio.start_unix_server(self.shops[name].talk, self.name(name, "shop"))
        await self.forwarder.start()
        await self.metrics()
        await control.serve(self.layout.path("control.sock"), self.answer)

    async def metrics(self) -> None:
        """Start the traffic, and Prometheus where it is installed, else something that answers simple queries."""
        hosts = [host.host for host in self.hosts.values()]
        commands = services.outside(self.layout, hosts)
        if not shutil.which("prometheus"):
            del commands["prometheus"]
            self.scraping = await query.serve(self.layout.gateway, PROMETHEUS_PORT, self.shops)
        for name, argv in commands.items():
            with (self.layout.logs / f"{name}.log").open("a") as log:
                marked = os.environ | {state.MARK: str(self.layout.directory)}
                await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log, env=marked)

    async def listen(self, name: str, key: Any) -> None:
        """Start a host's SSH server with a key."""
        if name in self.acceptors:
            self.acceptors[name].close()
            await self.acceptors[name].wait_closed()
        door = socket.socket(socket.AF_UNIX)
        door.bind(self.name(name, "ssh"))
        door.setblocking(False)
        host, connections = self.hosts[name], self.connections[name]

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.mine = conn
                connections.add(conn)

            def connection_lost(self, exc: Exception | None) -> None:
                connections.discard(self.mine)

            def begin_auth(self, username: str) -> bool:
                return True

        self.acceptors[name] = await asyncssh.listen(
            sock=door, server_factory=Server, server_host_keys=[str(key)], encoding=None,
            authorized_client_keys=str(client_key(self.layout).with_suffix(".pub")), process_factory=session(host),
            keepalive_interval=0, login_timeout=30, sftp_factory=False, agent_forwarding=False,
        )  # fmt: skip

    async def answer(self, request: dict[str, Any]) -> Any:
        """Do one thing that was asked on the control socket."""
        what = request["do"]
        if what == "status":
            return {"stages": {}, "hosts": {name: self.host_status(name) for name in self.hosts}}
        if what == "run":
            (name,) = self.select([request["who"]])
            return await self.hosts[name].run(
                request["argv"], request.get("stdin", ""), float(request.get("within", 60))
            )
        chosen = self.select(request.get("who", []))
        await asyncio.gather(*(self.act(what, name, request) for name in chosen))
        return chosen

    async def act(self, what: str, name: str, request: dict[str, Any]) -> None:
        """Do something to one host."""
        host = self.hosts[name]
        match what:
            case "off" | "reset" | "restore" | "on":
                await self.power(what, name)
            case "cut":
                self.cut[name] = REFUSE if request.get("refuse") else SILENT
                self.forwarder.cut_off(name, self.cut[name])
            case "heal":
                self.cut.pop(name, None)
                if host.up.is_set():
                    self.forwarder.restore(name)
            case "fill_disk" | "free_disk":
                with state.changing(host.root) as remembered:
                    remembered["disk_full"] = what == "fill_disk"
            case "change_host_key":
                key = asyncssh.generate_private_key("ssh-ed25519")
                path = host.root / "changed-key"
                key.write_private_key(str(path))
                await self.listen(name, path)
            case _:
                raise LabError(f"a simulated lab cannot {what!r}")

    async def power(self, what: str, name: str) -> None:
        """Press a host's power button, or give it a new disk."""
        host = self.hosts[name]
        host.off = what == "off"
        if what == "on":
            if not host.up.is_set():
                self.power_up(name)
            return
        self.power_down(name)
        if what == "reset":
            self.later(name)
        elif what == "restore":
            host.new_disk()
            await self.listen(name, self.layout.keys / "hosts" / name)
            self.power_up(name)

    def power_down(self, name: str) -> None:
        """Take a host's power: its connections stay open and silent, as a real one's would."""
        self.forwarder.cut_off(name, SILENT)
        self.hosts[name].unplug()
        for connection in list(self.connections[name]):
            connection.abort()

    def power_up(self, name: str) -> None:
        """Boot a host and let it be reached, unless it is cut off."""
        self.hosts[name].boot()
        if name not in self.cut:
            self.forwarder.restore(name)

    def later(self, name: str) -> None:
        """Boot a host after what a firmware would take."""
        host = self.hosts[name]
        call = asyncio.get_running_loop().call_later
        call(host.post_seconds, lambda: None if host.off or host.up.is_set() else self.power_up(name))

    def select(self, who: list[str]) -> list[str]:
        """Turn names of hosts and zones into names of hosts; nothing means all.

        Raises:
            LabError: for a name that is neither.
        """
        for name in who:
            if name not in ZONES and name not in self.hosts:
                raise LabError(f"no host or zone {name!r} in this simulated lab")
        return [name for name, host in self.hosts.items() if not who or name in who or host.host.zone in who]

    def host_status(self, name: str) -> dict[str, Any]:
        """Tell about one host."""
        host = self.hosts[name]
        power = "on" if host.up.is_set() else "off" if host.off else "starting"
        return {"zone": host.host.zone, "power": power, "boots": host.boots, "cut": self.cut.get(name)}


async def keep(layout: Layout) -> None:
    """Bring a simulated lab up and keep it until a SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await SimulatedKeeper(layout, json.loads(layout.path("plan.json").read_text())).up()
    await ended.wait()
    end_marked(state.MARK, str(layout.directory))


def main() -> int:
    """Run until told to end."""
    if sys.stdin.readline() != "go\n":
        return 1
    asyncio.run(keep(Layout.default(sys.argv[1], int(sys.argv[2]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
