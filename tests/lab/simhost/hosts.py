"""One simulated host: its folder, its processes, its power."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

from lab import packages
from lab.layout import Host, LabError, Layout
from lab.simhost import archive, state
from lab.simhost.commands import COMMANDS

# Whatever a command names in these places is meant to be the host's own. Commands run as this user, in no container,
# so the words are changed instead: the only way without namespaces.
OWN = re.compile(r"(?<![\w./}-])(/proc/sys/kernel/random/boot_id|/(?:var|etc|run|boot|home|root)(?=[/'\"\s;)]|$))")
SYSTEM_PATH = re.compile(r"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
STAND_IN = '#!/bin/sh\nexec {python} -I -S {program} {name} "$@"\n'


class SimulatedHost:
    """A host that is only a folder."""

    def __init__(self, host: Host, layout: Layout, post_seconds: float) -> None:
        self.host = host
        self.layout = layout
        self.post_seconds = post_seconds
        self.root = layout.path("hosts") / host.name
        self.boots = 0
        self.up = asyncio.Event()
        self.off = False

    def new_disk(self) -> None:
        """Lay out the folder as a host that was just installed."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name in (
            "bin",
            "run/lock",
            "var/lib/dpkg/updates",
            "var/tmp",
            "var/log",
            "etc",
            "boot",
            "home/patch",
            "root",
        ):
            (self.root / name).mkdir(parents=True)
        (self.root / "var/run").symlink_to("../run")
        first = packages.installed_first()
        state.write(self.root, state.new({binary.package: binary.version for binary in first}))
        for binary in first:
            archive.keep(self.root, binary)
        program = Path(__file__).with_name("commands.py")
        for name in COMMANDS:
            script = self.root / "bin" / name
            script.write_text(STAND_IN.format(python=sys.executable, program=program, name=name))
            script.chmod(0o755)
        (self.root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
        (self.root / "etc/hostname").write_text(f"{self.host.name}\n")

    @property
    def boot_id(self) -> Path:
        """Where the host keeps the name of its boot."""
        return self.root / "proc-boot-id"

    def boot(self) -> None:
        """Start anew: /run is empty, the boot has another name, the service loads what is installed."""
        shutil.rmtree(self.root / "run", ignore_errors=True)
        (self.root / "run/lock").mkdir(parents=True)
        (self.root / "run/systemd/system").mkdir(parents=True)
        self.boot_id.write_text(f"{uuid.uuid4()}\n")
        with state.changing(self.root) as host:
            host["units"]["shopfront"] = True
            if host["packages"][packages.SOURCE_PACKAGE]["status"] == "ii":
                host["serving"] = host["packages"][packages.SOURCE_PACKAGE]["version"]
        self.boots += 1
        self.up.set()

    def rewrite(self, text: str) -> str:
        """Change the places in a command to the host's own."""
        text = SYSTEM_PATH.sub(lambda _: f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin", text)

        def own(found: re.Match[str]) -> str:
            return str(self.boot_id) if found[1].startswith("/proc") else f"{self.root}{found[1]}"

        return OWN.sub(own, text)

    @property
    def environment(self) -> dict[str, str]:
        """What a login on the host has in its environment."""
        return {
            "PATH": f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.root / "home/patch"),
            "LANG": "C.UTF-8",
            state.ROOT: str(self.root),
            state.MARK: str(self.layout.directory),
        }

    async def start(self, argv: list[str]) -> asyncio.subprocess.Process:
        """Start a command in the host."""
        pipe = asyncio.subprocess.PIPE
        words = [self.rewrite(word) for word in argv]
        where = self.root / "home/patch"
        return await asyncio.create_subprocess_exec(
            *words, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment, cwd=where, start_new_session=True
        )

    async def run(self, argv: list[str], stdin: str, within: float) -> dict[str, object]:
        """Run a command in the host and give back how it ended.

        Raises:
            LabError: when the host is off, or the command takes too long.
        """
        if not self.up.is_set():
            raise LabError(f"{self.host.name} is off")
        process = await self.start(argv)
        try:
            out, err = await asyncio.wait_for(process.communicate(self.rewrite(stdin).encode()), within)
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise LabError(f"{self.host.name}: did not end within {within:.0f} s") from None
        return {
            "code": process.returncode,
            "stdout": out.decode(errors="replace"),
            "stderr": err.decode(errors="replace"),
        }

    def unplug(self) -> None:
        """End everything that runs in the host."""
        self.up.clear()
        end_marked(state.ROOT, str(self.root))

    def serving(self) -> packages.Release | None:
        """Tell which release the host's service runs; None when it does not run."""
        try:
            host = state.read(self.root)
        except (OSError, json.JSONDecodeError):
            return None
        return packages.release(host["serving"]) if self.up.is_set() and host["units"]["shopfront"] else None


def end_marked(name: str, value: str) -> None:
    """Kill the processes of this user that carry a mark in their environment: nothing else can carry this folder's."""
    mark = f"{name}={value}".encode()
    deadline = time.monotonic() + 5
    while (found := marked(mark)) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def marked(mark: bytes) -> list[int]:
    """List the processes of this user that carry a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found
