"""A real Prometheus with samples from a file: hours of them, and nothing waits."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from patching.sources.base import Connection

BINARIES = [shutil.which("prometheus"), shutil.which("promtool")]
if not all(BINARIES):
    if os.environ.get("CI") == "true":
        pytest.fail("prometheus and promtool are missing: apt install prometheus", pytrace=False)
    pytest.skip("prometheus and promtool are missing: apt install prometheus", allow_module_level=True)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(url: str, process: subprocess.Popen[bytes], within: float) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "prometheus ended"
            assert time.monotonic() < deadline, f"{url} did not answer within {within:g} s"
            threading.Event().wait(0.05)


@contextmanager
def backfilled(folder: Path, samples: str) -> Iterator[Connection]:
    """Run a Prometheus that has these samples (OpenMetrics) and scrapes nothing."""
    (folder / "in.om").write_text(samples)
    backfill = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "in.om"), str(folder / "data")]
    subprocess.run(backfill, check=True, capture_output=True)
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n")
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            answers(f"http://127.0.0.1:{port}/-/ready", process, within=30)
            yield Connection(id="prom", host="127.0.0.1", port=port, schema_="http")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
