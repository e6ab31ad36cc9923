"""A Prometheus for tests: on loopback, with a folder that the test gives, gone at the end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.absent import not_installed
from servers.loopback import free_port


@contextmanager
def prometheus_server(folder: Path, config: str) -> Iterator[int]:
    """Run one on the folder's ``data`` and give its port once it is ready; skips where there is none."""
    binary = shutil.which("prometheus") or not_installed("no Prometheus: apt-get install prometheus")
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    command = [
        binary,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _ready(f"http://127.0.0.1:{port}/-/ready", process, within=30)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _ready(url: str, process: subprocess.Popen[bytes], within: float) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "prometheus ended"
            assert time.monotonic() < deadline, f"{url} did not answer within {within:g} s"
            threading.Event().wait(0.05)
