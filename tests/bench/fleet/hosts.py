"""Simulated hosts behind real SSH servers: python -m bench.fleet.hosts PLACE; ends when its stdin does.

One process, no fork: a command is understood by what it is, so that the hosts' cost hides nobody's. Hosts know the
programs of ``channels.remote_job`` (start, wait, look), ``cat /srv/host.json`` and ``/srv/upgrade NAME VERSION``, which
takes the host's own seconds, alone. A step that is started twice under one id runs once, as on a real host.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh

STEP = re.compile(r"dir=(?:'([^']+)'|(\S+))")
PAYLOAD = re.compile(r"^  printf '%s\\n' (.*?) > \"\$new/script\"$", re.M | re.S)


class Host:
    """One host: what is installed, and the steps it was given."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.boot = f"boot-{name}"
        self.installed = {"shop": "1.0"}
        self.offers = {"shop": "1.1"}
        self.ran: Counter[str] = Counter()
        self.steps: dict[str, asyncio.Task[int]] = {}
        self.turn = asyncio.Lock()

    def state(self) -> str:
        """Give the host's file."""
        return json.dumps({"installed": self.installed, "offers": self.offers, "boot_id": self.boot})

    async def run(self, script: str) -> tuple[int, str]:
        """Run a plain script; gives exit code and output."""
        words = shlex.split(script)
        if words[:2] == ["cat", "/srv/host.json"]:
            return 0, self.state()
        if words[:1] == ["/srv/upgrade"] and len(words) == 3:
            async with self.turn:
                await asyncio.sleep(self.seconds)
                self.installed[words[1]] = words[2]
            return 0, ""
        return 127, f"{self.name} does not know: {script[:80]}"

    async def program(self, text: str, say: Callable[[str], None]) -> tuple[str, int]:
        """Answer what came on standard input; gives what it was and the exit code."""
        found = STEP.search(text)
        if found is None:
            code, out = await self.run(text.removeprefix("{\n").removesuffix("\n} </dev/null\n"))
            say(out)
            return "read", code
        step = (found[1] or found[2]).rsplit("/", 1)[1]
        starts, waits = "setsid -f" in text, "flock -s -w" in text
        payload = PAYLOAD.search(text) if starts else None
        if payload is not None and step not in self.steps:
            script = shlex.split(payload[1])[0]
            self.ran[step] += 1
            self.steps[step] = asyncio.create_task(self._payload(script))
        if starts or not waits:
            say(self.look(step))
        if waits:
            if step in self.steps:
                await asyncio.shield(self.steps[step])
            say(self.look(step))
        return "start" if starts else "wait" if waits else "look", 0

    async def _payload(self, script: str) -> int:
        code, _ = await self.run(script)
        return code

    def look(self, step: str) -> str:
        """Say what became of a step, as ``remote_job`` prints it."""
        task = self.steps.get(step)
        lines = ["patching-step=1", f"boot={self.boot}", f"directory={int(task is not None)}"]
        if task is None:
            return "\n".join(lines) + "\n\n"
        done = task.done()
        lines += [f"lock={int(not done)}", f"exit={int(done)}", "started=1", f"alive={int(not done)}"]
        lines += [f"recorded={self.boot}", f"code={task.result() if done else ''}"]
        return "\n".join([*lines, *(["out=0", "err=0"] if done else [])]) + "\n\n"


class Fleet:
    """All hosts of one process, their servers, and what they were asked."""

    def __init__(self, place: dict[str, Any]) -> None:
        self.place = place
        self.asked: Counter[str] = Counter()
        self.open = self.most = 0
        self.hosts: dict[str, Host] = {}

    async def listen(self) -> None:
        """Start a server for every host, each on an address of its own."""
        key = asyncssh.read_private_key(self.place["host_key"])
        for item in self.place["hosts"]:
            host = Host(item["name"], item["seconds"])
            self.hosts[item["address"]] = host
            await asyncssh.listen(
                item["address"], self.place["port"], server_host_keys=[key], process_factory=self.session(host),
                server_factory=lambda: Door(self), encoding=None, line_editor=False, keepalive_interval=0,
                authorized_client_keys=self.place["authorized"], backlog=16,
            )  # fmt: skip

    def session(self, host: Host) -> Any:
        """Give what answers one command on a host."""

        async def carry(process: asyncssh.SSHServerProcess[bytes]) -> None:
            command = process.command or ""

            def say(text: str) -> None:
                process.stdout.write(text.encode())

            with suppress(OSError, asyncssh.Error):
                if command.startswith("exec "):
                    kind, code = await host.program((await process.stdin.read()).decode(), say)
                else:
                    kind, (code, out) = "plain", await host.run(command)
                    say(out)
                self.asked[kind] += 1
                process.exit(code)

        return carry

    def facts(self) -> str:
        """Say what the hosts saw: commands by kind, connections, steps that ran twice, what is installed."""
        versions = Counter(host.installed["shop"] for host in self.hosts.values())
        twice = sum(count > 1 for host in self.hosts.values() for count in host.ran.values())
        return json.dumps({"asked": self.asked, "connections": self.most, "twice": twice, "versions": versions})

    def renew(self) -> None:
        """Make every host as it was before."""
        self.asked.clear()
        self.most = 0
        for host in self.hosts.values():
            host.installed["shop"] = "1.0"
            host.steps.clear()
            host.ran.clear()


class Door(asyncssh.SSHServer):
    """Counts connections."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Count one more."""
        self.fleet.most += 1


async def serve(place: dict[str, Any]) -> None:
    """Serve; each line on stdin is answered with the facts, ``renew`` resets the hosts afterwards."""
    fleet = Fleet(place)
    await fleet.listen()
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(fleet.facts(), flush=True)
        if line == b"renew\n":
            fleet.renew()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text())))
