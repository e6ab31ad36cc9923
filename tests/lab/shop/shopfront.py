"""The lab's small web shop: answers, counts what it answered and tells Prometheus."""

import http.server
import socket
import time

import libshop
from counters import Counters

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
            self.send(200, COUNTERS.text(libshop.VERSION))
        elif self.path == "/healthz":
            self.send(200, "ok\n")
        else:
            self.sell()

    def sell(self) -> None:
        began = time.monotonic()
        number = COUNTERS.begin()
        time.sleep(libshop.pause(number))
        code = libshop.answer(number)
        self.send(code, f"{libshop.VERSION}\n")
        COUNTERS.end(code, time.monotonic() - began)


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
