"""An Alertmanager for tests: on loopback, without cluster, with a folder of its own, gone at the end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.absent import not_installed
from servers.loopback import free_port, listening


@contextmanager
def alertmanager() -> Iterator[int]:
    """Run one and give its port; skips with the reason where there is none, fails under CI."""
    binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if binary is None:
        not_installed("no Alertmanager: apt-get install prometheus-alertmanager")
    with tempfile.TemporaryDirectory(prefix="patching-alertmanager-") as folder:
        port, config = free_port(), Path(folder) / "config.yml"
        config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
        command = [
            binary,
            f"--config.file={config}",
            f"--storage.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            listening(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(20)
