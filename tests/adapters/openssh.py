"""A real OpenSSH server on a loopback port, with keys, configuration and known_hosts of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from patching.sources.base import Connection
from patching.target import Member, Target

ADDRESS = "127.0.0.1"


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """Make a key pair; gives the public half as text."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path.with_name(path.name + ".pub").read_text().strip()


class OpenSsh:
    """An sshd that this test started, and everything needed to log in to it as root."""

    def __init__(self, directory: Path, *extra: str) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind((ADDRESS, 0))
            self.port = probe.getsockname()[1]
        self.host_key = keygen(directory / "host")
        (directory / "authorized_keys").write_text(keygen(directory / "client") + "\n")
        self.known_hosts = directory / "known_hosts"
        self.trust(self.host_key)
        # What root's shell does here at a login is no part of a test: it may take its time, or wait for the lock of a
        # session that a test has cut.
        home = f"SetEnv HOME={directory / 'home'}"
        (directory / "home").mkdir(exist_ok=True)
        # The first line of a kind counts, so what a test wants comes first. Keys are read as root, because the folders
        # of a test are closed to other users.
        lines = (
            *extra, home, "AuthorizedKeysCommandUser root",
            f"AuthorizedKeysCommand /usr/bin/cat {directory / 'authorized_keys'}", "AuthorizedKeysFile none",
            f"Port {self.port}", f"ListenAddress {ADDRESS}", f"HostKey {directory / 'host'}", "PidFile none",
            "StrictModes no", "UsePAM no", "UseDNS no",
            "PermitRootLogin yes", "PasswordAuthentication no", "MaxStartups 100",
        )  # fmt: skip
        (directory / "sshd_config").write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def trust(self, public_key: str) -> None:
        """Write the one key that the client accepts for this server."""
        self.known_hosts.write_text(f"[{ADDRESS}]:{self.port} {public_key}\n")

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        with (self.directory / "sshd.log").open("ab") as log:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.directory / "sshd_config")]
            self.process = subprocess.Popen(command, stderr=log, start_new_session=True)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex((ADDRESS, self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.directory / "sshd.log").read_text()
        raise AssertionError("sshd did not listen within 10 s")

    def stop(self) -> None:
        """Stop the listener; sessions go on, as when the service is restarted."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def cut_sessions(self) -> int:
        """Kill the processes of all open sessions, and nothing that they started; gives how many."""
        assert self.process is not None
        found = _children(self.process.pid)
        found += [grandchild for child in found for grandchild in _children(child) if _name(grandchild) == "sshd"]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def connection(self, **extra: str) -> Connection:
        """Give the connection that logs in to this server."""
        given = {"key_file": str(self.directory / "client"), "known_hosts_file": str(self.known_hosts), **extra}
        return Connection(id="ssh_test", login="root", port=self.port, extra=given)

    def target(self, name: str = "box") -> Target:
        """Give the target that is this server."""
        return Target(name=name, members=(Member(address=ADDRESS, port=self.port),))


@contextmanager
def system_user(password: str, sudoers: str = "") -> Iterator[str]:
    """Give a user of this machine for the time of a test; ``sudoers`` is what follows its name in a rule."""
    name = f"patch{os.getpid()}x{uuid4().hex[:6]}"
    made = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password, text=True, capture_output=True)
    rule = Path("/etc/sudoers.d") / name
    command = ["useradd", "--no-create-home", "--home-dir", "/", "--shell", "/bin/sh", "--password"]
    subprocess.run([*command, made.stdout.strip(), name], check=True)
    try:
        if sudoers:
            rule.write_text(f"{name} {sudoers}\n")
            rule.chmod(0o440)
        yield name
    finally:
        rule.unlink(missing_ok=True)
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)


@contextmanager
def ssh_agent(directory: Path, *keys: Path) -> Iterator[str]:
    """Start a real agent that holds some keys; gives its socket."""
    socket_path = directory / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket_path)], stdout=subprocess.DEVNULL)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(socket_path)}
    end = time.monotonic() + 10
    try:
        while not socket_path.exists():
            assert process.poll() is None
            assert time.monotonic() < end, "no agent within 10 s"
        for key in keys:
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment, capture_output=True)
        yield str(socket_path)
    finally:
        process.terminate()
        process.wait(10)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
