"""Real SSH servers as hosts: each has process, mount and boot of its own, so that a reboot kills what runs on it.

Only the network and the machine's files are shared. The engine's state directory is a small disk of the host's own,
which can be full; what the steps change and log lies beside it.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

from adapters.openssh import ADDRESS, OpenSsh
from patching.sources.base import Connection

STATE = "/mnt"
RUN = """\
mount -t tmpfs -o size=768k none {disk}
while [ -e {on} ]; do
  cat /proc/sys/kernel/random/uuid > {boot}
  echo "$(date +%s.%N) boot !" >> {log}
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc /bin/sh {init}
done
"""
INIT = """\
mount --bind {boot} /proc/sys/kernel/random/boot_id
mount --bind {disk} {state}
(
  while :; do
    if [ -e {dark} ]; then sleep "$(cat {dark})"; rm -f {dark}; fi
    /usr/sbin/sshd -D -e -f {config} 2>> {directory}/sshd.log
    sleep 0.05
  done
) &
read word < {power}
"""


class Machine(OpenSsh):
    """One host: an sshd that is restarted when it ends, in a machine that is booted anew when it goes down."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.disk, self.on, self.log = directory / "disk", directory / "on", directory / "changes.log"
        self.power, self.dark = directory / "power", directory / "dark"
        self.disk.mkdir()
        os.mkfifo(self.power)
        words = {
            "disk": self.disk, "on": self.on, "boot": directory / "boot_id", "log": self.log, "power": self.power,
            "init": directory / "init", "dark": self.dark, "config": directory / "sshd_config",
            "directory": directory, "state": STATE,
        }  # fmt: skip
        quoted = {name: quote(str(path)) for name, path in words.items()}
        (directory / "run").write_text(RUN.format(**quoted))
        (directory / "init").write_text(INIT.format(**quoted))

    def start(self) -> None:
        """Switch the machine on and wait until it lets somebody in."""
        self.on.touch()
        # Whatever ends the harness, its machines end with it.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "/bin/sh", str(self.directory / "run")]
        self.process = subprocess.Popen(command, start_new_session=True)
        self.until(lambda: self.listener() is not None)

    def stop(self) -> None:
        """Switch the machine off; nothing of it is left."""
        if self.process is None:
            return
        self.on.unlink(missing_ok=True)
        self.reset()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(3)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(3)
        self.process = None

    def until(self, true) -> None:  # type: ignore[no-untyped-def]
        """Wait for something on the machine, at most 10 s."""
        end = time.monotonic() + 10
        while not true():
            if time.monotonic() > end:
                raise AssertionError(f"{self.directory.name} did not come up within 10 s")
            time.sleep(0.01)

    def reset(self) -> None:
        """Take the power for a moment; nothing to take where it is just being booted."""
        try:
            pipe = os.open(self.power, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        with suppress(BrokenPipeError):
            os.write(pipe, b"off\n")
        os.close(pipe)

    def inside(self, path: Path) -> Path:
        """Give a path as the machine sees it: its disk is mounted nowhere else."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{path}")

    def listener(self) -> int | None:
        """Find the sshd that accepts connections."""
        if self.process is None:
            return None
        found = [pid for pid in _descendants(self.process.pid, 4) if _command(pid).startswith("sshd: /usr/sbin/sshd")]
        return found[0] if found else None

    def restart_service(self) -> None:
        """End the listener; the machine starts another, and sessions go on."""
        pid = self.listener()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def cut_sessions(self) -> int:
        """Kill the processes of all open sessions, and nothing that they started; gives how many."""
        pid = self.listener()
        sessions = [item for item in _descendants(pid, 2) if _command(item).startswith("sshd")] if pid else []
        for item in sessions:
            with suppress(ProcessLookupError):
                os.kill(item, signal.SIGKILL)
        return len(sessions)

    def go_dark(self, seconds: float) -> None:
        """Refuse every connection for some time."""
        self.dark.write_text(f"{seconds:.2f}\n")
        self.cut_sessions()
        self.restart_service()

    def fill(self, seconds: float) -> None:
        """Fill the disk, for some time."""
        ballast = quote(str(self.inside(self.disk / "ballast")))
        script = f"cat /dev/zero > {ballast} 2>/dev/null; sleep {seconds:.2f}; rm -f {ballast}"
        subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)
        self.until(lambda: not _room(self.inside(self.disk)))

    def wiped(self) -> None:
        """Give the disk and the log of a machine that was just installed."""
        for path in (*self.inside(self.disk).iterdir(), self.log):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def healed(self) -> None:
        """End every fault, and wait until the machine lets somebody in."""
        self.dark.unlink(missing_ok=True)
        self.inside(self.disk / "ballast").unlink(missing_ok=True)
        self.until(lambda: self.listener() is not None)


def _room(disk: Path) -> bool:
    found = os.statvfs(disk)
    return found.f_bavail > 0


def _descendants(pid: int, depth: int) -> list[int]:
    """Give the processes below one, the nearest first."""
    try:
        children = [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [item for child in children if depth > 1 for item in _descendants(child, depth - 1)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Machines:
    """Some machines with one key that opens all of them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.machines = [Machine(folder / f"machine-{number}") for number in range(count)]
        first = self.machines[0]
        for machine in self.machines[1:]:
            shutil.copy(first.directory / "authorized_keys", machine.directory / "authorized_keys")
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text("".join(machine.known_hosts.read_text() for machine in self.machines))
        extra = {"key_file": str(first.directory / "client"), "known_hosts_file": str(self.known_hosts)}
        self.connection = Connection(id="ssh_chaos", login="root", extra=extra)


@contextmanager
def machines(folder: Path, count: int) -> Iterator[Machines]:
    """Start machines and end them again."""
    folder.mkdir()
    made = Machines(folder, count)
    try:
        for machine in made.machines:
            machine.start()
        yield made
    finally:
        for machine in made.machines:
            machine.stop()


__all__ = ["ADDRESS", "STATE", "Machine", "Machines", "machines"]
