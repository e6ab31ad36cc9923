"""Logging in to a real OpenSSH server (S1, S4): key, agent, password, sudo, jump host; no secret is ever shown."""

# ruff: noqa: ASYNC221 -- short blocking calls of a test disturb nobody

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncssh
import pytest

from adapters.openssh import ADDRESS, OpenSsh, keygen, ssh_agent, system_user
from patching.change import Phase, Reply, Step, StepKind
from patching.channels.ssh import SshChannel
from patching.channels.ssh_login import Address, log_in
from patching.errors import HostKeyChanged, HostKeyUnknown, LoginRefused, TargetOffline
from patching.sources.base import Connection

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a test sshd that lets root in needs root"),
    pytest.mark.skipif(shutil.which("sshd", path="/usr/sbin:/usr/bin") is None, reason="openssh-server is missing"),
]
needs_sudo = pytest.mark.skipif(shutil.which("sudo") is None, reason="sudo is missing")

PASSWORD = "it's $HOME \"and\" more\\n 'ä"
PASSPHRASE = "open sesame 4711"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSsh]:
    sshd = OpenSsh(tmp_path_factory.mktemp("sshd"), "PasswordAuthentication yes")
    sshd.start()
    yield sshd
    sshd.stop()


@pytest.fixture(autouse=True)
def nothing_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No key and no agent of the person who runs the tests may let us in; every log line is kept."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    caplog.set_level(logging.DEBUG)


def connection(server: OpenSsh, login: str = "root", password: str | None = None, **extra: str) -> Connection:
    given = {"known_hosts_file": str(server.known_hosts), **extra}
    return Connection(id="ssh_test", login=login, port=server.port, password=password, extra=given)


def act(script: str, *, sudo: bool = True) -> Step:
    call = {"script": script, "sudo": sudo}
    return Step.model_validate(
        {"name": "act", "phase": Phase.APPLY, "kind": StepKind.ACT, "call": call, "deadline": 30.0}
    )


async def said(channel: SshChannel, server: OpenSsh, step: Step, *, detached: bool = False) -> Reply:
    """Run one step, at once or as a detached one, and give its reply."""
    session = await channel.open(server.target())
    try:
        if not detached:
            return await session.read(step)
        progress = await session.wait(await session.start(uuid4().hex, step), step)
        assert progress.reply is not None
        return progress.reply
    finally:
        await session.close()


async def who(channel: SshChannel, server: OpenSsh) -> str:
    return (await said(channel, server, act("id -un", sudo=False))).stdout.strip()


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
async def test_a_key_file_logs_in(server: OpenSsh, tmp_path: Path, kind: str) -> None:
    allow(server, keygen(tmp_path / "key", kind))
    assert await who(SshChannel(connection(server, key_file=str(tmp_path / "key"))), server) == "root"


async def test_a_key_file_that_was_renewed_is_read_anew(server: OpenSsh, tmp_path: Path) -> None:
    allow(server, keygen(tmp_path / "key", passphrase=PASSPHRASE))
    made = connection(server, key_file=str(tmp_path / "key"), private_key_passphrase=PASSPHRASE)
    assert await who(SshChannel(made), server) == "root"
    (tmp_path / "key").unlink()
    allow(server, keygen(tmp_path / "key", passphrase=PASSPHRASE))
    assert await who(SshChannel(made), server) == "root"


async def test_the_cipher_is_the_one_that_costs_least(server: OpenSsh, tmp_path: Path) -> None:
    allow(server, keygen(tmp_path / "key"))
    address = Address(ADDRESS, server.port, "root")
    opened = await log_in(address, connection(server, key_file=str(tmp_path / "key")), deadline=10.0)
    assert str(opened.get_extra_info("send_cipher")).endswith("-gcm@openssh.com")
    opened.close()


@pytest.mark.parametrize("given", ["key_file", "private_key"])
async def test_a_key_with_a_passphrase_logs_in(server: OpenSsh, tmp_path: Path, given: str) -> None:
    allow(server, keygen(tmp_path / "key", passphrase=PASSPHRASE))
    key = str(tmp_path / "key") if given == "key_file" else (tmp_path / "key").read_text()
    made = connection(server, **{given: key}, private_key_passphrase=PASSPHRASE)
    assert await who(SshChannel(made), server) == "root"


@pytest.mark.parametrize("passphrase", ["", "wrong words"])
async def test_a_key_whose_passphrase_is_wrong_is_login_refused_and_shows_nothing(
    server: OpenSsh, tmp_path: Path, passphrase: str, caplog: pytest.LogCaptureFixture
) -> None:
    allow(server, keygen(tmp_path / "key", passphrase=PASSPHRASE))
    made = connection(server, key_file=str(tmp_path / "key"), private_key_passphrase=passphrase)
    with pytest.raises(LoginRefused, match="cannot be used as a key") as refused:
        await SshChannel(made).open(server.target())
    nothing_shows(caplog, refused.value, made, "wrong words")


async def test_a_key_in_the_agent_logs_in_even_where_its_file_is_gone(
    server: OpenSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(server, keygen(tmp_path / "key"))
    with ssh_agent(tmp_path, tmp_path / "key") as socket:
        (tmp_path / "key").unlink()
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        assert await who(SshChannel(connection(server)), server) == "root"


async def test_an_agent_without_the_key_is_login_refused(
    server: OpenSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keygen(tmp_path / "stranger")
    with ssh_agent(tmp_path, tmp_path / "stranger") as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        with pytest.raises(LoginRefused, match="authorized_keys"):
            await SshChannel(connection(server)).open(server.target())


async def test_a_key_of_the_connection_is_the_only_one_offered(
    server: OpenSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that names a key must not get in by one that happens to lie in the worker's agent."""
    allow(server, keygen(tmp_path / "good"))
    keygen(tmp_path / "stranger")
    with ssh_agent(tmp_path, tmp_path / "good") as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        with pytest.raises(LoginRefused):
            await SshChannel(connection(server, key_file=str(tmp_path / "stranger"))).open(server.target())


async def test_a_password_logs_in(server: OpenSsh) -> None:
    with system_user(PASSWORD) as user:
        assert await who(SshChannel(connection(server, user, PASSWORD)), server) == user


@pytest.mark.skipif(not Path("/etc/pam.d/sshd").exists(), reason="the machine has no PAM configuration for sshd")
async def test_a_password_logs_in_where_pam_asks_for_it(tmp_path: Path) -> None:
    """Many hosts allow no plain password, only what PAM asks in a dialogue."""
    sshd = OpenSsh(tmp_path / "pam", "KbdInteractiveAuthentication yes", "UsePAM yes")
    sshd.start()
    try:
        with system_user(PASSWORD) as user:
            assert await who(SshChannel(connection(sshd, user, PASSWORD)), sshd) == user
    finally:
        sshd.stop()


async def test_a_wrong_password_is_login_refused_and_shows_nothing(
    server: OpenSsh, caplog: pytest.LogCaptureFixture
) -> None:
    with system_user(PASSWORD) as user:
        made = connection(server, user, "not the right one")
        with pytest.raises(LoginRefused, match=f"refused the login of {user}") as refused:
            await SshChannel(made).open(server.target())
    nothing_shows(caplog, refused.value, made, "not the right one")


async def test_a_host_that_wants_key_and_password_gets_both(tmp_path: Path) -> None:
    sshd = OpenSsh(tmp_path / "both", "PasswordAuthentication yes", "AuthenticationMethods publickey,password")
    sshd.start()
    try:
        with system_user(PASSWORD) as user:
            key = str(sshd.directory / "client")
            assert await who(SshChannel(connection(sshd, user, PASSWORD, key_file=key)), sshd) == user
            with pytest.raises(LoginRefused):
                await SshChannel(connection(sshd, user, key_file=key)).open(sshd.target())
    finally:
        sshd.stop()


SUDO_RULES = ["ALL=(root) NOPASSWD: /bin/sh", "ALL=(root) ALL", "ALL=(root) ALL\nDefaults timestamp_timeout=0"]


@needs_sudo
@pytest.mark.parametrize("detached", [False, True], ids=["read", "detached"])
@pytest.mark.parametrize("rule", SUDO_RULES, ids=["nopasswd", "password", "password-each-time"])
async def test_sudo_with_a_password_runs_the_whole_program_as_root(
    server: OpenSsh, tmp_path: Path, rule: str, detached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The password must reach sudo and nobody else: neither the program nor what it prints."""
    key = str(server.directory / "client")
    with system_user(PASSWORD, rule) as user:
        made = connection(server, user, key_file=key, sudo_password=PASSWORD)
        channel = SshChannel(made, state_dir=str(tmp_path / "state"))
        reply = await said(channel, server, act("id -un; cat; echo end"), detached=detached)
    assert (reply.exit_code, reply.stdout, reply.stderr) == (0, "root\nend\n", "")
    nothing_shows(caplog, made, channel, PASSWORD)
    kept = subprocess.run(["grep", "-rlF", PASSWORD, str(tmp_path)], capture_output=True, text=True)
    assert kept.stdout == ""


@needs_sudo
async def test_sudo_uses_the_password_of_the_login_where_it_has_none_of_its_own(
    server: OpenSsh, tmp_path: Path
) -> None:
    with system_user(PASSWORD, "ALL=(root) ALL") as user:
        channel = SshChannel(connection(server, user, PASSWORD), state_dir=str(tmp_path / "state"))
        assert (await said(channel, server, act("id -un"), detached=True)).stdout == "root\n"


@needs_sudo
async def test_sudo_without_a_password_needs_none_of_us(server: OpenSsh, tmp_path: Path) -> None:
    with system_user(PASSWORD, "ALL=(root) NOPASSWD: /bin/sh") as user:
        made = connection(server, user, key_file=str(server.directory / "client"))
        channel = SshChannel(made, state_dir=str(tmp_path / "state"))
        assert (await said(channel, server, act("id -un"), detached=True)).stdout == "root\n"


@needs_sudo
@pytest.mark.parametrize(
    ("rule", "password"),
    [("ALL=(root) ALL", ""), ("ALL=(root) ALL", "not the right one"), ("", PASSWORD)],
    ids=["none-given", "wrong", "not-in-sudoers"],
)
async def test_a_refused_sudo_says_so_runs_nothing_and_shows_no_password(
    server: OpenSsh, tmp_path: Path, rule: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    touched = tmp_path / "touched"
    with system_user(PASSWORD, rule) as user:
        made = connection(server, user, key_file=str(server.directory / "client"), sudo_password=password)
        channel = SshChannel(made, state_dir=str(tmp_path / "state"))
        with pytest.raises(LoginRefused, match="sudoers") as refused:
            await said(channel, server, act(f"touch {touched}"), detached=True)
        reply = await said(channel, server, act(f"touch {touched}"))
    assert reply.stderr.strip().splitlines()[-1].startswith("sudo:")
    assert reply.exit_code != 0
    assert not touched.exists()
    nothing_shows(caplog, refused.value, reply, *([password] if password else []))


@needs_sudo
async def test_a_sudo_that_refused_before_it_took_its_input_is_heard(
    server: OpenSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine of ours writes late: the channel is shut by then, and the host is not offline for that."""
    real = asyncssh.SSHClientConnection.create_process

    async def ended_first(*given: Any, **how: Any) -> Any:
        process = await real(*given, **how)
        await process.channel.wait_closed()
        return process

    with system_user(PASSWORD, "") as user:
        channel = SshChannel(connection(server, user, key_file=str(server.directory / "client")))
        session = await channel.open(server.target())
        monkeypatch.setattr(asyncssh.SSHClientConnection, "create_process", ended_first)
        with pytest.raises(LoginRefused, match="sudoers"):
            await session.start(uuid4().hex, act("true"))
        await session.close()


@pytest.fixture
def bastion(tmp_path: Path) -> Iterator[OpenSsh]:
    sshd = OpenSsh(tmp_path / "bastion")
    sshd.start()
    yield sshd
    sshd.stop()


class Connections:
    """Connections by id, as Airflow keeps them."""

    def __init__(self, *known: Connection) -> None:
        self.known = {item.id: item for item in known}

    def get(self, connection_id: str) -> Connection:
        return self.known[connection_id]


def through(server: OpenSsh, bastion: OpenSsh, **hop: str) -> SshChannel:
    """A channel whose jump host has a connection, a key and a host key of its own."""
    extra = {"key_file": str(bastion.directory / "client"), "known_hosts_file": str(bastion.known_hosts), **hop}
    jump = Connection(id="bastion", host=ADDRESS, login="root", port=bastion.port, extra=extra)
    inner = connection(server, key_file=str(server.directory / "client"), jump_host="bastion")
    return SshChannel.named("ssh_test", Connections(inner, jump))


async def test_a_jump_host_has_its_own_login_and_its_own_host_key(server: OpenSsh, bastion: OpenSsh) -> None:
    assert await who(through(server, bastion), server) == "root"
    assert "Accepted publickey for root" in (bastion.directory / "sshd.log").read_text()


async def test_a_jump_host_with_an_unknown_host_key_is_refused_with_the_command(
    server: OpenSsh, bastion: OpenSsh, tmp_path: Path
) -> None:
    """The jump host sees every login: it is verified like a target, and named in the refusal."""
    known = tmp_path / "known"
    channel = through(server, bastion, known_hosts_file=str(known))
    with pytest.raises(HostKeyUnknown, match=f"port {bastion.port}") as refused:
        await channel.open(server.target())
    subprocess.run(["sh", "-c", str(refused.value).partition("accept it with: ")[2]], check=True, capture_output=True)
    assert await who(channel, server) == "root"


async def test_a_jump_host_with_another_host_key_is_refused(server: OpenSsh, bastion: OpenSsh, tmp_path: Path) -> None:
    with pytest.raises(HostKeyChanged, match=f"port {bastion.port}"):
        await through(server, bastion, host_key=keygen(tmp_path / "other")).open(server.target())


async def test_a_target_behind_a_jump_host_is_verified_too(server: OpenSsh, bastion: OpenSsh, tmp_path: Path) -> None:
    channel = through(server, bastion)
    server.known_hosts.rename(tmp_path / "kept")
    try:
        with pytest.raises(HostKeyUnknown, match=f"port {server.port}"):
            await channel.open(server.target())
    finally:
        (tmp_path / "kept").rename(server.known_hosts)


async def test_the_key_of_a_target_behind_a_jump_host_is_asked_for_from_there(
    server: OpenSsh, bastion: OpenSsh, tmp_path: Path
) -> None:
    """The worker cannot reach such a target, so the printed command runs on the jump host."""
    known = tmp_path / "known"
    channel = through(server, bastion)
    channel.connection = channel.connection.model_copy(
        update={"extra": {**channel.connection.extra, "known_hosts_file": str(known)}}
    )
    with pytest.raises(HostKeyUnknown) as refused:
        await channel.open(server.target())
    command = str(refused.value).partition("accept it with: ")[2]
    assert command.startswith(f"ssh -p {bastion.port} root@{ADDRESS} ssh-keyscan ")
    own = f"ssh -i {bastion.directory / 'client'} -o UserKnownHostsFile={bastion.known_hosts} -o BatchMode=yes "
    subprocess.run(["sh", "-c", command.replace("ssh ", own, 1)], check=True, capture_output=True)
    assert await who(channel, server) == "root"


async def test_the_one_host_key_of_a_connection_is_not_asked_of_its_written_jump_host(
    server: OpenSsh, bastion: OpenSsh
) -> None:
    """``host_key`` names the target's key; the jump host's is looked up in known_hosts."""
    server_keys, bastion_keys = (side.known_hosts.read_text() for side in (server, bastion))
    both = bastion.directory / "both"
    both.write_text(server_keys + bastion_keys)
    (bastion.directory / "authorized_keys").write_text((server.directory / "client.pub").read_text())
    made = connection(
        server, key_file=str(server.directory / "client"), known_hosts_file=str(both), host_key=server.host_key,
        jump_host=f"root@{ADDRESS}:{bastion.port}",
    )  # fmt: skip
    assert await who(SshChannel(made), server) == "root"


async def test_a_jump_host_that_is_down_is_offline_and_named(server: OpenSsh, bastion: OpenSsh) -> None:
    bastion.stop()
    with pytest.raises(TargetOffline, match=f"port {bastion.port}"):
        await through(server, bastion).open(server.target(), deadline=3.0)


async def test_a_target_that_is_down_behind_a_jump_host_is_offline(
    server: OpenSsh, bastion: OpenSsh, tmp_path: Path
) -> None:
    closed = OpenSsh(tmp_path / "closed")
    channel = through(server, bastion)
    with pytest.raises(TargetOffline, match=f"port {closed.port}"):
        await channel.open(closed.target(), deadline=3.0)


def allow(server: OpenSsh, public_key: str) -> None:
    """Let one more key in."""
    with (server.directory / "authorized_keys").open("a") as file:
        file.write(public_key + "\n")


def nothing_shows(caplog: pytest.LogCaptureFixture, *shown: object) -> None:
    """No secret in any log line, message or representation; the last of ``shown`` are the secrets themselves."""
    secrets = [item for item in shown if isinstance(item, str)]
    texts = [caplog.text, *(f"{item!r} {item}" for item in shown if not isinstance(item, str))]
    for secret in [*secrets, PASSWORD, PASSPHRASE]:
        assert not [text for text in texts if secret in text or repr(secret)[1:-1] in text]
