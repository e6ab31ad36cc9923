"""A bare asyncssh loop that sends what the engine sends, keeps nothing, checks nothing: python -m bench.fleet.bare."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import asyncssh

from patching.channels.remote_job import JobPaths, framed, remote_command, start_program

READ = "cat /srv/host.json"


async def one(host: dict[str, Any], place: dict[str, Any], room: asyncio.Semaphore) -> None:
    """Log in once, then: read, start and wait, read."""
    paths = JobPaths(host["name"])
    programs = [
        (READ, False), (start_program(paths, "/srv/upgrade shop 1.1", run_as=place["user"], wait=300.0), True),
        (READ, False),
    ]  # fmt: skip
    async with room, asyncssh.connect(
        host["address"], place["port"], username=place["user"], client_keys=[place["client_key"]],
        known_hosts=place["known_hosts"], config=None, agent_path=None,
    ) as connection:  # fmt: skip
        for program, sudo in programs:
            command = remote_command(sudo=sudo, seconds=315.0)
            await connection.run(command, input=framed(program), check=True)


async def main(place: dict[str, Any], window: int) -> None:
    """Carry out the fleet."""
    room = asyncio.Semaphore(window)
    began = time.perf_counter()
    await asyncio.gather(*(one(host, place, room) for host in place["hosts"]))
    print(json.dumps({"window_s": time.perf_counter() - began}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])))
