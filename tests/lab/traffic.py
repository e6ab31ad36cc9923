"""Steady requests to every host, and a count of how they went. Runs in the lab's network."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import suppress

PER_SECOND = 5
PATIENCE = 1.0
COUNTS: Counter[tuple[str, str]] = Counter()


async def one_host(name: str, address: str, port: int) -> None:
    """Ask one host steadily, for ever; a host that is down costs one attempt a second."""
    loop = asyncio.get_running_loop()
    for outcome in ("ok", "error", "unreachable"):
        COUNTS[name, outcome] = 0
    stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    due = loop.time()
    while True:
        due = max(due + 1 / PER_SECOND, loop.time() - 1)
        try:
            if stream is None:
                stream = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE)
            COUNTS[name, await asyncio.wait_for(ask(*stream, name), PATIENCE)] += 1
        except (OSError, TimeoutError, ValueError, EOFError):
            COUNTS[name, "unreachable"] += 1
            if stream is not None:
                stream[1].close()
            stream = None
            due = loop.time() + 1 / PER_SECOND
        await asyncio.sleep(max(0, due - loop.time()))


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> str:
    """Send one request on an open connection; anything but a 2xx is an error."""
    writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    sizes = [line for line in lines if line.lower().startswith("content-length:")]
    await reader.readexactly(int(sizes[0].partition(":")[2]))
    return "ok" if lines[0].split()[1].startswith("2") else "error"


async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a scrape: what the callers of each host have seen."""
    with suppress(OSError, EOFError, asyncio.LimitOverrunError):
        await reader.readuntil(b"\r\n\r\n")
        rows = [f'traffic_requests_total{{instance="{n}",outcome="{o}"}} {c}\n' for (n, o), c in sorted(COUNTS.items())]
        body = "".join(["# TYPE traffic_requests_total counter\n", *rows])
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
        await writer.drain()
    writer.close()


async def main(listen: str, targets: list[str]) -> None:
    """Ask every ``name=address:port`` and tell about it on ``address:port``."""
    where, port = listen.rsplit(":", 1)
    server = await asyncio.start_server(tell, where, int(port))
    async with server:
        wanted = []
        for target in targets:
            name, address = target.split("=")
            host, number = address.rsplit(":", 1)
            wanted.append(one_host(name, host, int(number)))
        await asyncio.gather(*wanted)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
