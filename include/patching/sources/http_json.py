"""HTTP and JSON as a metric source: a number in the answer of a service, as it is now; it has no past."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from urllib.parse import quote

import httpx

from patching.change import Refusal
from patching.errors import MetricSourceUnavailable, PatchingError
from patching.json_pointer import PointerUnresolved, escape, resolve
from patching.placeholders import fill
from patching.policy_metrics import HttpJsonCheck
from patching.sources.base import ConnectionSource, Polled
from patching.sources.endpoint import ConnectionUnusable, Endpoint, http_endpoint
from patching.sources.refusal import silent, unusable
from patching.target import Target
from patching.value import JsonValue

MOST_BYTES = 1_000_000
AT_ONCE = 20
_BUSY = (408, 425, 429)
_GIVEN = "give the URL and the pointer of a number, such as url: /status and pointer: /queue/depth"


class _NoAnswer(PatchingError):
    """The service did not answer now; nothing is known of the definition."""


class _Unfit(PatchingError):
    """The service answered, and its answer has no such number."""


class HttpJsonSource:
    """A PolledSource over HTTP: one GET for each different URL of the targets, straight and without redirects."""

    def __init__(self, check: HttpJsonCheck, connections: ConnectionSource) -> None:
        self._check = check
        self._connection = connections.get(check.connection) if check.connection is not None else None

    async def now(self, targets: Sequence[Target]) -> Polled:
        """Ask for the value of every target; whoever gives none is in ``failed`` with the reason."""
        values: dict[str, float] = {}
        failed: dict[str, str] = {}
        answers = await self._answers({self._url(target) for target in targets})
        for target in targets:
            try:
                values[target.name] = self._value(target, answers)
            except (_NoAnswer, _Unfit) as error:
                failed[target.name] = str(error)
        return Polled(values=values, failed=failed)

    async def validate(self, targets: Sequence[Target]) -> list[Refusal]:
        """Find, when planning, a URL or pointer that fits no target that answers, and targets without a value now.

        Raises MetricSourceUnavailable where nobody answers.
        """
        answers = await self._answers({self._url(target) for target in targets})
        said: dict[str, str] = {}
        unfit: list[str] = []
        for target in targets:
            try:
                self._value(target, answers)
            except (_NoAnswer, _Unfit) as error:
                said[target.name] = str(error)
                unfit += [target.name] if isinstance(error, _Unfit) else []
        if len(said) < len(targets):
            return silent(list(said), "value", f"see the answer: {next(iter(said.values()))}" if said else "")
        if unfit:
            return [unusable("httpJson", f"{said[unfit[0]]} (asked for {unfit[0]})", _GIVEN)]
        raise MetricSourceUnavailable(next(iter(said.values()), "there is no target"))

    def _url(self, target: Target) -> str:
        return fill(self._check.url, target, lambda text: quote(text, safe=":[]"))

    def _value(self, target: Target, answers: Mapping[str, JsonValue | PatchingError]) -> float:
        url = self._url(target)
        found = answers[url]
        if isinstance(found, PatchingError):
            raise found
        pointer = fill(self._check.pointer, target, escape)
        try:
            value = resolve(found, pointer)
        except PointerUnresolved as error:
            raise _Unfit(f'GET {url}: nothing is at "{pointer}": {error}') from error
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise _Unfit(f'GET {url}: at "{pointer}" is no number, but {json.dumps(value)[:60]}')
        return float(value)

    async def _answers(self, urls: set[str]) -> dict[str, JsonValue | PatchingError]:
        room = asyncio.Semaphore(AT_ONCE)
        endpoint = self._endpoint()
        verify = endpoint.verify if endpoint else True
        # Proxies of the worker's environment are for the internet; these services are ours.
        client = httpx.AsyncClient(
            timeout=self._check.timeout,
            trust_env=False,
            auth=endpoint.auth if endpoint else None,
            headers=dict(endpoint.headers) if endpoint else None,
            verify=_certificates() if verify is True else verify,
        )

        async def one(url: str) -> tuple[str, JsonValue | PatchingError]:
            async with room:
                try:
                    return url, await self._ask(client, (endpoint.url if endpoint else "") + url)
                except (_NoAnswer, _Unfit) as error:
                    return url, error

        async with client:
            return dict(await asyncio.gather(*map(one, urls)))

    def _endpoint(self) -> Endpoint | None:
        try:
            return http_endpoint(self._connection, "the service") if self._connection is not None else None
        except ConnectionUnusable as error:
            raise MetricSourceUnavailable(str(error)) from error

    async def _ask(self, client: httpx.AsyncClient, url: str) -> JsonValue:
        try:
            async with asyncio.timeout(self._check.timeout), client.stream("GET", url) as response:
                _check_status(url, response.status_code)
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise _Unfit(f"GET {url}: the answer has more than {MOST_BYTES:,} bytes")
        except TimeoutError as error:
            raise _NoAnswer(f"GET {url}: no answer within {self._check.timeout:g} s") from error
        except httpx.InvalidURL as error:
            raise _Unfit(f"{url} is no usable URL ({error})") from error
        except httpx.HTTPError as error:
            raise _NoAnswer(f"GET {url}: {str(error) or type(error).__name__}") from error
        try:
            return json.loads(body)
        except ValueError as error:
            raise _Unfit(f"GET {url}: the answer is no JSON ({error})") from error


@cache
def _certificates() -> ssl.SSLContext:
    """Read the known authorities once: it takes longer than many a request, and there is a round every half minute."""
    return httpx.create_ssl_context()


def _check_status(url: str, status: int) -> None:
    """A service that is ill answers 5xx; any other refusal says that the request is wrong."""
    if status >= 500 or status in _BUSY:
        raise _NoAnswer(f"GET {url}: status {status}")
    if status != 200:
        raise _Unfit(f"GET {url}: status {status}, expected 200")
