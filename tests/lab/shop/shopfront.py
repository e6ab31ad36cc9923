"""The lab's small web shop: answers, counts what it answered and tells Prometheus."""

import bisect
import http.server
import socket
import threading
import time

import libshop

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Counters:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = 0
        # Every series exists from the start: a rate over a series that appears later loses its first step.
        self.codes: dict[int, int] = {200: 0, 500: 0}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def begin(self) -> int:
        with self.lock:
            self.requests += 1
            return self.requests

    def end(self, code: int, seconds: float) -> None:
        with self.lock:
            self.codes[code] = self.codes.get(code, 0) + 1
            self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
            self.seconds += seconds

    def text(self) -> str:
        with self.lock:
            lines = ["# TYPE http_requests_total counter"]
            lines += [f'http_requests_total{{code="{code}"}} {count}' for code, count in sorted(self.codes.items())]
            lines.append("# TYPE http_request_duration_seconds histogram")
            total = 0
            for bound, count in zip((*BOUNDS, "+Inf"), self.buckets, strict=True):
                total += count
                lines.append(f'http_request_duration_seconds_bucket{{le="{bound}"}} {total}')
            lines.append(f"http_request_duration_seconds_sum {self.seconds:.6f}")
            lines.append(f"http_request_duration_seconds_count {total}")
        lines += ["# TYPE shopfront_info gauge", f'shopfront_info{{version="{libshop.VERSION}"}} 1', ""]
        return "\n".join(lines)


COUNTERS = Counters()


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def send(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/metrics":
            return self.send(200, COUNTERS.text())
        if self.path == "/healthz":
            return self.send(200, "ok\n")
        began = time.monotonic()
        code = libshop.answer(COUNTERS.begin())
        self.send(code, f"{libshop.VERSION}\n")
        return COUNTERS.end(code, time.monotonic() - began)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        # Not HTTPServer's own: it asks a resolver for the name, and a lab host has none.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


if __name__ == "__main__":
    # A host has one network, the lab's.
    Server(("0.0.0.0", 8000), Shop).serve_forever()  # noqa: S104
