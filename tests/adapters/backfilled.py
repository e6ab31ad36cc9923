"""A real Prometheus with samples from a file: hours of them, and nothing waits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patching.sources.base import Connection
from servers.absent import not_installed
from servers.prometheus import prometheus_server


@contextmanager
def backfilled(folder: Path, samples: str) -> Iterator[Connection]:
    """Run a Prometheus that has these samples (OpenMetrics) and scrapes nothing."""
    promtool = shutil.which("promtool") or not_installed("no promtool: apt-get install prometheus")
    (folder / "in.om").write_text(samples)
    backfill = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(folder / "in.om"), str(folder / "data")]
    subprocess.run(backfill, check=True, capture_output=True)
    with prometheus_server(folder, "global: {scrape_interval: 1s}\n") as port:
        yield Connection(id="prom", host="127.0.0.1", port=port, schema_="http")
