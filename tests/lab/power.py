"""The power of one host: boots it in fresh namespaces, again after a reboot, and not after a power-off."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import cgroups
from lab.layout import SOURCE, Host, LabError, Layout
from lab.network import Network, call, mount
from lab.process import children

REBOOTED = {-signal.SIGHUP, 128 + signal.SIGHUP}
POWERED_OFF = {-signal.SIGINT, 128 + signal.SIGINT}


class Machine:
    """One host: its disk, its namespaces, its power button."""

    def __init__(self, host: Host, layout: Layout, network: Network, plan: dict[str, Any], cgroup: Path | None) -> None:
        self.host = host
        self.layout = layout
        self.network = network
        self.lower: str = plan["lower"]
        self.disk_size: str = plan["disk_size"]
        self.post_seconds: float = plan["post_seconds"]
        self.cgroup: Path | None = cgroup / host.name if cgroup else None
        self.disk = layout.live / "hosts" / host.name
        self.powered = asyncio.Event()
        self.stopped = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.cycling = False
        self.renewed = False
        self.plugged = True
        self.boots = 0
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Give the host its disk and switch it on."""
        self.new_disk()
        self.stopped.set()
        self.powered.set()
        self.task = asyncio.create_task(self.supervise(), name=self.host.name)

    def new_disk(self) -> None:
        """Mount an empty disk and lay the host's identity on it."""
        mount("tmpfs", f"disk-{self.host.name}", self.disk, f"mode=755,size={self.disk_size}")
        for name in ("upper", "work", "root"):
            (self.disk / name).mkdir()
        ssh = self.disk / "upper" / "etc" / "ssh"
        ssh.mkdir(parents=True)
        (ssh / "ssh_host_ed25519_key").touch(0o600)
        key = self.layout.keys / "hosts" / self.host.name
        (ssh / "ssh_host_ed25519_key").write_bytes(key.read_bytes())
        shutil.copyfile(key.with_name(f"{key.name}.pub"), ssh / "ssh_host_ed25519_key.pub")
        etc = ssh.parent
        (etc / "hostname").write_text(f"{self.host.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.host.address} {self.host.name}\n")
        (etc / "machine-id").write_text(f"{self.host.number:032x}\n")

    async def supervise(self) -> None:
        """Boot the host whenever it is powered and does not run."""
        while True:
            await self.powered.wait()
            self.network.link(self.host, up=self.plugged)
            code = await self.boot()
            # A machine without power answers nothing, where a namespace without processes still refuses connections.
            self.network.link(self.host, up=False)
            self.note(code)
            if self.renewed:
                self.renewed = False
                continue
            if self.cycling:
                self.cycling = False
            elif code in POWERED_OFF:
                self.powered.clear()
            elif code not in REBOOTED and self.powered.is_set():
                await asyncio.sleep(1)
            # What a machine's firmware takes before it boots; it is what makes a reboot visible to its clients.
            await asyncio.sleep(self.post_seconds)

    async def boot(self) -> int:
        """Run the host once, from power-on until its pid 1 is gone."""
        cgroups.drop(self.cgroup)
        since = -uptime()
        argv = [
            *self.network.enter(self.host.name),
            "unshare", "--mount", "--pid", "--uts", "--ipc", "--time", f"--boottime={since}", f"--monotonic={since}",
            "--fork", "--kill-child", "--", "/bin/sh", str(SOURCE / "hostinit.sh"),
        ]  # fmt: skip
        given = {"NAME": self.host.name, "LOWER": self.lower, "DISK": str(self.disk), "CGROUP": str(self.cgroup or "")}
        log = self.layout.logs / f"{self.host.name}.console"
        with log.open("a") as console:
            self.process = await asyncio.create_subprocess_exec(
                *argv, env=os.environ | given, stdout=console, stderr=console, stdin=asyncio.subprocess.DEVNULL
            )
        self.stopped.clear()
        self.boots += 1
        code = await self.process.wait()
        self.process = None
        self.stopped.set()
        return code

    def note(self, code: int) -> None:
        """Write down how a boot ended: tests count reboots by it."""
        with (self.layout.logs / "power.jsonl").open("a") as out:
            out.write(json.dumps({"at": time.time(), "host": self.host.name, "boots": self.boots, "code": code}) + "\n")

    @property
    def init(self) -> int | None:
        """The host's pid 1, as the lab sees it."""
        if self.process is None:
            return None
        found = children(self.process.pid)
        return found[0] if found else None

    def unplug(self) -> None:
        """Take the power away, in the middle of whatever the host does."""
        self.network.link(self.host, up=False)
        if (pid := self.init) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def plug(self, in_: bool) -> None:
        """Pull the network cable, or plug it in."""
        self.plugged = in_
        self.network.link(self.host, up=in_ and self.process is not None)

    def off(self) -> None:
        """Switch the host off and leave it off."""
        self.powered.clear()
        self.unplug()

    def on(self) -> None:
        """Switch the host on."""
        self.powered.set()

    def reset(self) -> None:
        """Take the power away and give it back."""
        self.cycling = self.process is not None
        self.powered.set()
        self.unplug()

    async def restore(self) -> None:
        """Give the host a new disk with the first release on it, and boot it."""
        # Not a reboot that anybody should wait for, but a new machine.
        self.renewed = self.process is not None
        self.off()
        await self.stopped.wait()
        call(["umount", "--lazy", str(self.disk)])
        self.new_disk()
        self.on()

    def fill_disk(self, leave_kib: int) -> None:
        """Shrink the disk to what is on it, so that nothing more can be written."""
        state = os.statvfs(self.disk)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize // 1024
        call(["mount", "-o", f"remount,size={max(used + leave_kib, 4)}k", str(self.disk)])

    def free_disk(self) -> None:
        """Give the disk its size back."""
        call(["mount", "-o", f"remount,size={self.disk_size}", str(self.disk)])

    async def run(self, argv: list[str], stdin: str, within: float) -> dict[str, Any]:
        """Run a command inside the host, past its network and its SSH server.

        Raises:
            LabError: when the host is off, or the command takes too long.
        """
        pid = self.init
        if pid is None:
            raise LabError(f"{self.host.name} is off")
        clean = ["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        return await run(["nsenter", f"--target={pid}", "--all", "--", *clean, *argv], stdin, within)


async def run(words: list[str], stdin: str, within: float) -> dict[str, Any]:
    """Run a command and give back its exit code and output.

    Raises:
        LabError: when it takes too long; it is killed then.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), within)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise LabError(f"{' '.join(words[-3:])}: did not end within {within:.0f} s") from None
    return {"code": process.returncode, "stdout": out.decode(errors="replace"), "stderr": err.decode(errors="replace")}


def uptime() -> int:
    """Tell for how many seconds this machine has run: a host's clocks begin at its own boot."""
    return int(float(Path("/proc/uptime").read_text().split()[0]))
