"""The lab as tests and the demo use it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import control, probes, startup
from lab.keys import client_key
from lab.layout import DEFAULT_HOSTS, Host, LabError, Layout, fleet
from lab.preflight import preflight
from lab.process import only_one
from lab.repository import Repository

SHOP = ("shopfront", "libshop", "shop-tls", "shop-conf", "shop-tools")


@dataclass(frozen=True)
class Ran:
    """How a command inside a host ended."""

    code: int
    stdout: str
    stderr: str


class Lab:
    """A running lab of real hosts; ``advisories`` is the directory of those whose fix is published."""

    simulated = False

    def __init__(self, layout: Layout, hosts: list[Host]) -> None:
        self.layout = layout
        self.advisories = layout.path("advisories")
        self.hosts = hosts
        self.repository = Repository(layout)
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def up(
        cls, hosts: int = DEFAULT_HOSTS, *, directory: Path | str | None = None, octet: int | None = None,
        say: startup.Say = startup.say_nothing, within: float = 60,
    ) -> Lab:  # fmt: skip
        """Bring a lab up, or give the one that is up.

        Raises:
            LabError: when the machine cannot, when another number of hosts is up, or when hosts do not come up in time.
        """
        layout = Layout.default(directory, octet)
        with only_one(startup.lock_file(layout)):
            if startup.running(layout):
                lab = cls.attach(directory)
                if len(lab.hosts) != hosts:
                    raise LabError(f"{len(lab.hosts)} hosts are up in {layout.directory}: run `patching lab down`")
            else:
                startup.clear(layout)
                problems = preflight(layout, hosts)
                if problems:
                    raise LabError("; ".join(str(problem) for problem in problems))
                lab = cls(layout, startup.prepare(layout, hosts, say))
                with startup.timed(say, "power on"):
                    lab._process = startup.launch(layout)
        with startup.timed(say, f"{hosts} hosts answer"):
            lab.ready(within=within)
        return lab

    @classmethod
    def attach(cls, directory: Path | str | None = None) -> Lab:
        """Give the lab that is up.

        Raises:
            LabError: when none is.
        """
        layout = Layout.default(directory)
        if not startup.running(layout):
            raise LabError(f"no lab is up in {layout.directory}: run `patching lab up`")
        about = json.loads(layout.path("lab.json").read_text())
        layout = Layout.default(directory, about["octet"])
        if about["kind"] == "simulated":
            from lab.simulated import SimulatedLab

            cls = SimulatedLab
        return cls(layout, fleet(len(about["hosts"]), about["octet"], about["hosts"][0]["ssh_port"]))

    def down(self) -> None:
        """End everything and leave no process, mount or namespace.

        Raises:
            LabError: when a process does not end.
        """
        with only_one(startup.lock_file(self.layout)):
            startup.clear(self.layout)
        if self._process is not None:
            self._process.wait()

    @property
    def about(self) -> dict[str, Any]:
        """What lab.json says."""
        return dict(json.loads(self.layout.path("lab.json").read_text()))

    @property
    def service_urls(self) -> dict[str, str]:
        """What answers when the lab's own services are up."""
        repository = f"{self.layout.repository_url}/dists/lab/InRelease"
        return {"prometheus": f"{self.layout.prometheus_url}/-/ready", "repository": repository}

    def host(self, name: str) -> Host:
        """Find a host by its name.

        Raises:
            LabError: when there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"no host {name!r}: hosts are {self.hosts[0].name} to {self.hosts[-1].name}")

    def ask(self, what: str, *who: str, within: float = 60, **more: Any) -> Any:
        """Ask the keeper for something."""
        return control.ask(self.layout.path("control.sock"), within, do=what, who=list(who), **more)

    def ready(self, *who: str, within: float = 60) -> None:
        """Wait until hosts answer on SSH and HTTP (all, and the lab's services too, when none is named).

        Raises:
            LabError: when they do not in time, with their names.
        """
        chosen = [self.host(name) for name in who] or self.hosts
        urls = {} if who else self.service_urls
        late = probes.wait(chosen, urls, within, lambda: startup.running(self.layout))
        if late and not startup.running(self.layout):
            raise LabError(f"the lab ended: {startup.last_line(self.layout.logs / 'keeper.log')}")
        if late:
            raise LabError(f"not up after {within:.0f} s: {', '.join(late)} (logs: {self.layout.logs})")

    def status(self) -> dict[str, Any]:
        """Tell about every host and what is published."""
        told = self.ask("status")
        return {"kind": self.about["kind"], "published": self.repository.published(), **told}

    def run(self, host: str, argv: Sequence[str], *, stdin: str = "", within: float = 60, check: bool = False) -> Ran:
        """Run a command in a host past its network and SSH (``net``: beside the hosts).

        Raises:
            LabError: when the host is off or the command takes too long; with ``check`` also when it fails.
        """
        path = self.layout.path("control.sock")
        more = {"argv": list(argv), "stdin": stdin, "who": host}
        told = control.ask(path, within + 5, do="run", within=within, **more)
        ran = Ran(**told)
        if check and ran.code:
            said = ran.stderr.strip() or ran.stdout.strip()
            raise LabError(f"{host}: {' '.join(argv)} failed with {ran.code}: {said}")
        return ran

    def ssh_command(self, host: str, *argv: str) -> list[str]:
        """Give the ssh command that logs in to a host and checks its key."""
        return ["ssh", "-F", str(self.layout.path("ssh_config")), self.host(host).name, *argv]

    @property
    def ssh_key(self) -> Path:
        """The private key that logs in to every host."""
        return client_key(self.layout)

    def versions(self, host: str) -> dict[str, str]:
        """Tell which of the lab's packages a host has; half-installed ones are shown as ``version [iF]``."""
        shown = "-f=${db:Status-Abbrev} ${Package} ${Version}\n"
        rows = self.run(host, ["dpkg-query", "-W", shown, *SHOP]).stdout.splitlines()
        found = {}
        for state, name, *version in (row.split() for row in rows):
            if version and state not in ("un", "rc"):
                found[name] = version[0] if state in ("ii", "hi") else f"{version[0]} [{state}]"
        return found

    def boot_id(self, host: str) -> str:
        """Tell which boot of a host this is."""
        return self.run(host, ["cat", "/proc/sys/kernel/random/boot_id"], check=True).stdout.strip()

    def publish(self, what: str) -> dict[str, str]:
        """Put a release into the index and take the one before out of it."""
        return self.repository.publish(what)

    def cut(self, *who: str, refuse: bool = False) -> None:
        """Cut hosts or zones off: they fall silent, or refuse connections."""
        self.ask("cut", *who, refuse=refuse)

    def heal(self, *who: str) -> None:
        """Undo a cut."""
        self.ask("heal", *who)

    def off(self, *who: str) -> None:
        """Take the power away from hosts or zones."""
        self.ask("off", *who)

    def on(self, *who: str) -> None:
        """Give hosts or zones their power back."""
        self.ask("on", *who)

    def reset(self, *who: str) -> None:
        """Take the power away and give it back."""
        self.ask("reset", *who)

    def restore(self, *who: str, wait: bool = True) -> None:
        """Make hosts new, with the first release on them, and everything that was cut or filled whole again."""
        self.heal(*who)
        self.ask("restore", *who)
        if wait:
            self.ready(*who)

    def fill_disk(self, *who: str, leave_kib: int = 0) -> None:
        """Let a host's disk be full."""
        self.ask("fill_disk", *who, leave_kib=leave_kib)

    def free_disk(self, *who: str) -> None:
        """Undo a full disk."""
        self.ask("free_disk", *who)

    def change_host_key(self, host: str) -> None:
        """Give a host another SSH key than the one in known_hosts; a restore undoes it."""
        key = "/etc/ssh/ssh_host_ed25519_key"
        make = f"rm -f {key} {key}.pub && ssh-keygen -q -t ed25519 -N '' -f {key} && systemctl restart ssh"
        self.run(host, ["sh", "-c", make], check=True)

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        """Ask Prometheus for the present value of a query; an empty list means no data, which is not zero.

        Raises:
            LabError: when it refuses the query.
        """
        return probes.ask_prometheus(self.layout.prometheus_url, query)

    def eventually(self, what: str, within: float, true: Any) -> Any:
        """Wait until ``true()`` gives something true, and give it back.

        Raises:
            LabError: when it does not in time.
        """
        deadline = time.monotonic() + within
        while not (result := true()):
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {within:.0f} s")
            time.sleep(0.1)
        return result
