"""Endpoint: where an HTTP service of a connection is and how to log in."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from patching.errors import PatchingError
from patching.sources.base import Connection


class ConnectionUnusable(PatchingError):
    """A connection exists but does not say what is needed."""


@dataclass(frozen=True)
class Endpoint:
    """A base URL and how to log in; its repr shows neither password nor headers."""

    url: str
    auth: tuple[str, str] | None
    headers: Mapping[str, str]
    verify: ssl.SSLContext | bool

    def __repr__(self) -> str:
        return f"Endpoint({self.url})"


def http_endpoint(connection: Connection, what: str) -> Endpoint:
    """Read a connection: host (may be a whole URL with a path), port, schema, login, password, extra.

    ``extra.headers`` are sent with each request; ``extra.verify`` is false, or the path of a CA bundle; ``what`` is the
    service's name for people. Raises ConnectionUnusable for a connection without a host or with another schema.
    """
    host = (connection.host or "").rstrip("/")
    if not host:
        raise ConnectionUnusable(f'connection "{connection.id}" has no host: set host and port of {what}')
    scheme, _, rest = host.rpartition("://")
    scheme = scheme or connection.schema_ or "http"
    if scheme not in ("http", "https"):
        raise ConnectionUnusable(f'connection "{connection.id}" has schema "{scheme}": use http or https')
    name, slash, path = rest.partition("/")
    port = f":{connection.port}" if connection.port else ""
    verify = connection.extra.get("verify", True)
    trusted: ssl.SSLContext | bool = ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
    auth = (connection.login, connection.password or "") if connection.login else None
    headers = {str(key): str(value) for key, value in dict(connection.extra.get("headers") or {}).items()}
    return Endpoint(f"{scheme}://{name}{port}{slash}{path}", auth, headers, trusted)
