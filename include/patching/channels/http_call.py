"""Requests of HTTP hooks: straight, without following redirects, with the id of the step as idempotency key."""

from __future__ import annotations

import httpx

from patching.channels.service import ServiceFailed
from patching.sources.base import Clock, Connection
from patching.sources.endpoint import Endpoint, http_endpoint
from patching.value import JsonValue


class HttpCaller:
    """Sends the request of a call: ``method``, ``url`` (a path where there is a connection), ``body``, ``status``."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection

    async def ask(self, step_id: str, call: dict[str, JsonValue]) -> str:
        """Send it once; raises ServiceFailed for another status, or none; ConnectionUnusable."""
        method = call["method"]
        if method is None:
            return "nothing to send before the change"
        endpoint = http_endpoint(self._connection, "the service") if self._connection.id else None
        url = (endpoint.url if endpoint else "") + str(call["url"])
        response = await send(
            endpoint,
            method,
            url,
            seconds=float(call["timeout"]),
            body=call["body"],
            headers={**dict(call["headers"]), "Idempotency-Key": step_id},
        )
        if response.status_code not in call["status"]:
            wanted = " or ".join(map(str, call["status"]))
            raise ServiceFailed(f"{method} {url}: status {response.status_code}, expected {wanted}")
        return f"{method} {url}: status {response.status_code}"


async def send(
    endpoint: Endpoint | None,
    method: str,
    url: str,
    *,
    seconds: float,
    body: JsonValue = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Send one request with the endpoint's login and headers; raises ServiceFailed where no answer came."""
    # Proxies of the worker's environment are for the internet; these services are ours.
    client = httpx.AsyncClient(
        timeout=seconds,
        trust_env=False,
        auth=endpoint.auth if endpoint else None,
        headers=dict(endpoint.headers) if endpoint else None,
        verify=endpoint.verify if endpoint else True,
    )
    try:
        async with client:
            return await client.request(method, url, json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = str(error) or type(error).__name__
        raise ServiceFailed(f"{method} {url}: no answer within {seconds:g} s or no connection ({said})") from error
