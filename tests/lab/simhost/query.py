"""Answers Prometheus's simplest queries where there is no Prometheus: a selector, and a selector with a range."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

from lab.simhost.shop import Shop

KEEP = 3600
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SELECTOR = re.compile(r"^\s*([a-zA-Z_:][\w:]*)?\s*(?:\{(.*)\})?\s*(?:\[(\d+)(ms|s|m|h)\])?\s*$", re.DOTALL)
MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*,?')
LABEL = re.compile(r'(\w+)="([^"]*)"')
STALE = 5.0
TOO_MUCH = "a simulated lab without Prometheus answers selectors only; install prometheus"

Labels = tuple[tuple[str, str], ...]


class Samples:
    """What was scraped in the last hour."""

    def __init__(self, shops: Mapping[str, Shop]) -> None:
        self.shops = shops
        self.series: dict[Labels, deque[tuple[float, float]]] = {}

    async def scrape(self) -> None:
        """Read every shop's counters each second, for ever."""
        while True:
            now = time.time()
            for name, shop in self.shops.items():
                host = shop.host.host
                own = {"instance": name, "job": "shopfront", **host.labels}
                serves = shop.host.serving() is not None
                self.add(now, {"__name__": "up", **own}, 1.0 if serves else 0.0)
                for line in shop.counters.text(shop.version).splitlines() if serves else ():
                    if not line.startswith("#"):
                        series, _, value = line.rpartition(" ")
                        labels = dict(LABEL.findall(series))
                        self.add(now, {"__name__": series.partition("{")[0], **labels, **own}, float(value))
            await asyncio.sleep(1)

    def add(self, at: float, labels: Mapping[str, str], value: float) -> None:
        """Remember one sample."""
        self.series.setdefault(tuple(sorted(labels.items())), deque(maxlen=KEEP)).append((at, value))

    def answer(self, query: str, at: float) -> dict[str, object]:
        """Answer one query, or say that it is too much to ask here."""
        parsed = SELECTOR.match(query)
        if parsed is None or not (parsed[1] or parsed[2]):
            return {"status": "error", "errorType": "bad_data", "error": TOO_MUCH}
        wanted = [("__name__", "=", parsed[1])] if parsed[1] else []
        wanted += [(name, how, json.loads(f'"{value}"')) for name, how, value in MATCHER.findall(parsed[2] or "")]
        window = int(parsed[3]) * SECONDS[parsed[4]] if parsed[3] else None
        result = []
        for series, samples in self.series.items():
            labels = dict(series)
            inside = [[t, str(v)] for t, v in list(samples) if at - (window or STALE) < t <= at]
            if inside and all(matches(labels.get(name, ""), how, value) for name, how, value in wanted):
                result.append({"metric": labels, **({"values": inside} if window else {"value": inside[-1]})})
        return {"status": "success", "data": {"resultType": "matrix" if window else "vector", "result": result}}


def matches(found: str, how: str, wanted: str) -> bool:
    """Tell whether a label's value is what a matcher wants."""
    equal = re.fullmatch(wanted, found) is not None if how.endswith("~") else found == wanted
    return equal is not how.startswith("!")


async def serve(address: str, port: int, shops: Mapping[str, Shop]) -> asyncio.Task[None]:
    """Scrape, and answer on Prometheus's own path."""
    samples = Samples(shops)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"(?i)content-length:\s*(\d+)", head)
            body = (await reader.readexactly(int(length[1]))).decode() if length else ""
            url = urlsplit(head.split(" ", 2)[1])
            form = dict(parse_qsl(url.query) + parse_qsl(body))
            told: object = {"status": "success"}
            if url.path == "/api/v1/query":
                told = samples.answer(form["query"], float(form.get("time", time.time())))
            text = json.dumps(told).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
            writer.write(f"Content-Length: {len(text)}\r\n\r\n".encode() + text)
            await writer.drain()
        writer.close()

    await asyncio.start_server(talk, address, port)
    return asyncio.create_task(samples.scrape())
