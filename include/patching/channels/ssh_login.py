"""Logging in over SSH: what an Airflow-style connection says, host keys that are always verified, errors in words.

Extras understood (the names of Airflow's SSH provider where it has one): ``key_file``, ``private_key``,
``private_key_passphrase``, ``known_hosts_file``, ``host_key``, ``jump_host``. ``no_host_key_check`` is not honoured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Any

import asyncssh
from asyncssh.encryption import get_default_encryption_algs
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from patching.errors import ChannelError, HostKeyChanged, HostKeyUnknown, LoginRefused, TargetOffline
from patching.sources.base import Connection

DEFAULT_PORT = 22
KEEPALIVE = 10.0
CIPHERS = [
    algorithm.decode()
    for algorithm in sorted(get_default_encryption_algs(), key=lambda name: not name.endswith(b"-gcm@openssh.com"))
]
"""asyncssh's own ciphers, AES-GCM first (RFC 5647): it costs the controller a sixth less CPU than ChaCha20 does."""


@dataclass(frozen=True)
class Address:
    """Where and as whom to log in; ``aliases`` are further names under which the host's key may be known."""

    host: str
    port: int
    user: str
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass
class Link:
    """An open connection to a target, and the one to its jump host."""

    connection: asyncssh.SSHClientConnection
    tunnel: asyncssh.SSHClientConnection | None = None

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self.connection.is_closed()

    async def close(self) -> None:
        """Close both connections."""
        for connection in (self.connection, self.tunnel):
            if connection is not None:
                connection.close()
                await connection.wait_closed()


class _Client(asyncssh.SSHClient):
    """Remembers a host key that was not accepted, so that the error can name it."""

    def __init__(self) -> None:
        self.refused: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only for a key that is not among the trusted ones: never accept it."""
        self.refused = key
        return False


@lru_cache(maxsize=8)
def _parsed(text: str) -> asyncssh.SSHKnownHosts:
    """Parse known_hosts once for a fleet: ten thousand lines are not read ten thousand times."""
    return asyncssh.import_known_hosts(text)


@lru_cache(maxsize=8)
def _read(file: Path, version: tuple[int, ...]) -> str:
    """Read a file once for a fleet, and again when its ``version`` is another."""
    return file.read_text()


def _version(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class KnownHosts:
    """The host keys that a connection trusts, and the file that a person adds new ones to."""

    text: str = field(repr=False)
    file: str

    @classmethod
    def of(cls, connection: Connection) -> KnownHosts:
        """Read the trusted keys: ``host_key`` alone where it is set, else the file, else OpenSSH's own files."""
        extra = connection.extra
        host_key, named = extra.get("host_key"), extra.get("known_hosts_file")
        default = Path("~/.ssh/known_hosts").expanduser()
        if host_key:
            key = str(host_key).strip()
            return cls(f"* {key if ' ' in key else f'ssh-rsa {key}'}\n", str(named or default))
        files = [Path(str(named)).expanduser()] if named else [default, Path("/etc/ssh/ssh_known_hosts")]
        # A port forward or a fresh worker has none: then every key is unknown, which is an answer.
        text = "".join(_read(file, _version(file)) for file in files if file.is_file())
        return cls(text, str(files[0]))

    def trusted(self, address: Address) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
        """Find host keys, CA keys and revoked keys for an address and its aliases; ChannelError for bad lines."""
        found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        port = address.port if address.port != DEFAULT_PORT else None
        for name in (address.host, *address.aliases):
            try:
                matched = asyncssh.match_known_hosts(_parsed(self.text), name, "", port)
            except ValueError as error:
                raise ChannelError(f"{self.file} is no known_hosts file: {error}; mend the line it names") from None
            for mine, theirs in zip(found, matched[:3], strict=True):
                mine.extend(theirs)
        return found


def _host_key_algorithms(keys: Sequence[asyncssh.SSHKey], authorities: Sequence[asyncssh.SSHKey]) -> list[str]:
    """Prefer the kinds of key that are known, as OpenSSH does; ask for others too, so that a change can be named."""
    known = [algorithm for key in keys for algorithm in key.sig_algorithms]
    certificates = get_default_certificate_algs() if authorities else []
    ordered = dict.fromkeys([*certificates, *known, *get_default_public_key_algs()])
    return [algorithm.decode() for algorithm in ordered]


def _host_key_error(address: Address, known: KnownHosts, key: asyncssh.SSHKey, via: Address | None) -> ChannelError:
    """Name the key that was shown, and the command that accepts it; behind a jump host only that can ask for it."""
    shown = key.get_fingerprint()
    kind = key.get_algorithm().removeprefix("ssh-")
    accepted = [old.get_fingerprint() for old in known.trusted(address)[0]]
    name = address.host if address.port == DEFAULT_PORT else f"[{address.host}]:{address.port}"
    hop = f"ssh -p {via.port} {quote(f'{via.user}@{via.host}')} " if via else ""
    scan = f"{hop}ssh-keyscan -p {address.port} -t {quote(kind)} {quote(address.host)} >> {quote(known.file)}"
    if not accepted:
        return HostKeyUnknown(
            f"the host key of {address.host} port {address.port} is not known: {shown} ({kind}). Compare the "
            f"fingerprint with the host's own (on its console: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub); "
            f"if it is the same, accept it with: {scan}"
        )
    return HostKeyChanged(
        f"the host key of {address.host} port {address.port} has changed: accepted {', '.join(accepted)}, "
        f"now {shown} ({kind}). Another machine may be answering. Only if the host was reinstalled: "
        f"ssh-keygen -f {quote(known.file)} -R {quote(name)} && {scan}"
    )


@lru_cache(maxsize=8)
def _key(text: bytes, passphrase: str | None) -> asyncssh.SSHKey:
    """Open a private key once for a fleet: a passphrase is expensive to try, by intent (bcrypt)."""
    return asyncssh.import_private_key(text, passphrase)


def _credentials(connection: Connection) -> dict[str, Any]:
    """Give asyncssh's arguments for the keys and password of a connection; raises LoginRefused for a bad key."""
    extra = connection.extra
    passphrase = extra.get("private_key_passphrase") or None
    given: dict[str, Any] = {"password": connection.password}
    try:
        if extra.get("private_key"):
            text = str(extra["private_key"]).replace("\\n", "\n")
            given["client_keys"] = [_key(text.encode(), passphrase)]
        elif extra.get("key_file"):
            file = Path(str(extra["key_file"])).expanduser()
            given["client_keys"] = [_key(file.read_bytes(), passphrase)]
        elif connection.password:
            return {**given, "client_keys": None, "agent_path": None}
        else:
            return given
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        what = extra.get("key_file") or "the private_key extra"
        raise LoginRefused(f"connection {connection.id}: {what} cannot be used as a key: {error}") from None
    return {**given, "agent_path": None}


@asynccontextmanager
async def _in_words(
    address: Address, connection: Connection, known: KnownHosts, client: _Client, via: Address | None
) -> AsyncIterator[None]:
    """Turn what asyncssh and the system raise into the product's errors."""
    where = f"{address.host} port {address.port}"
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        if client.refused is not None:
            raise _host_key_error(address, known, client.refused, via) from None
        raise HostKeyChanged(f"the host key of {where} is refused: {error.reason}") from None
    except asyncssh.PermissionDenied as error:
        raise LoginRefused(
            f"{where} refused the login of {address.user} ({error.reason}): check the user's authorized_keys on the "
            f"host, and key or password in connection {connection.id}"
        ) from None
    except (TimeoutError, OSError, asyncssh.Error) as error:
        said = getattr(error, "reason", None) or str(error) or "no answer in time"
        raise TargetOffline(f"{where} cannot be reached: {said}; it counts as offline") from None


async def log_in(
    address: Address,
    connection: Connection,
    *,
    deadline: float,
    tunnel: asyncssh.SSHClientConnection | None = None,
    via: Address | None = None,
) -> asyncssh.SSHClientConnection:
    """Connect and log in within ``deadline`` seconds, through ``tunnel``, a connection to ``via``, where given.

    Raises TargetOffline, LoginRefused, HostKeyUnknown or HostKeyChanged; no message holds a secret.
    """
    known = KnownHosts.of(connection)
    trusted = known.trusted(address)
    client = _Client()
    credentials = _credentials(connection)
    async with _in_words(address, connection, known, client, via), asyncio.timeout(deadline):
        opened, _ = await asyncssh.create_connection(
            lambda: client,
            address.host,
            address.port,
            username=address.user,
            known_hosts=trusted,
            encryption_algs=CIPHERS,
            server_host_key_algs=_host_key_algorithms(trusted[0], trusted[1]),
            config=None,
            tunnel=tunnel or (),
            keepalive_interval=KEEPALIVE,
            keepalive_count_max=3,
            **credentials,
        )
    return opened
