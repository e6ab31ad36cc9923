"""A service that tells its numbers as JSON, on loopback: what it answers is set path by path, and it counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = tuple[int, bytes]


@dataclass
class Status:
    """``answer`` gives status and body for a path; ``asked`` counts, ``headers`` are those of the last request."""

    port: int = 0
    answer: Callable[[str], Answer] = field(default=lambda _path: (404, b""))
    asked: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tell(self, document: Any) -> None:
        """Answer every path with one document."""
        body = json.dumps(document).encode()
        self.answer = lambda _path: (200, body)


@contextmanager
def status_server() -> Iterator[Status]:
    """Run it until the end of the block."""
    kept = Status()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kept.asked[self.path] += 1
            kept.headers = dict(self.headers)
            status, body = kept.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kept.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
