"""HTTP probe: one request from the worker to the target, straight and without following redirects."""

from __future__ import annotations

import ssl

import httpx

from patching.canary.verdicts import ProbeResult
from patching.placeholders import fill
from patching.policy import HttpProbe
from patching.target import Target

MOST_BYTES = 1_000_000


async def http_probe(check: str, probe: HttpProbe, target: Target) -> ProbeResult:
    """Ask the target's service. Not ok: another status or text, a refused or broken connection, no answer in time.

    Unknown (ok None): the worker's own troubles (name not resolved, no route), and a connection that nobody took up in
    time, because a network in between looks just the same.
    """
    url = fill(probe.url, target)

    def result(ok: bool | None, detail: str) -> ProbeResult:
        return ProbeResult(check=check, target=target.name, ok=ok, detail=detail)

    try:
        # Proxies of the worker's environment are for the internet; a probe must see the target itself.
        async with httpx.AsyncClient(timeout=probe.timeout, trust_env=False) as client:
            status, text = await _get(client, url)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        return result(None, f"{url} is no usable URL ({error}): correct it in the policy")
    except httpx.ConnectTimeout:
        return result(None, f"GET {url}: no connection within {probe.timeout:g} s")
    except httpx.ReadTimeout:
        return result(False, f"GET {url}: connected, but no answer within {probe.timeout:g} s")
    except httpx.HTTPError as error:
        return result(_blame(error), f"GET {url}: {_cause(error)}")
    if status not in probe.status:
        wanted = " or ".join(map(str, probe.status))
        return result(False, f"GET {url}: status {status}, expected {wanted}")
    if probe.contains is not None and probe.contains not in text:
        return result(False, f'GET {url}: status {status}, but the answer does not contain "{probe.contains}"')
    return result(True, f"GET {url}: status {status}")


async def _get(client: httpx.AsyncClient, url: str) -> tuple[int, str]:
    async with client.stream("GET", url) as response:
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) >= MOST_BYTES:
                break
        return response.status_code, body[:MOST_BYTES].decode(response.encoding or "utf-8", errors="replace")


def _blame(error: httpx.HTTPError) -> bool | None:
    """Say whether a failed request speaks against the target (False) or leaves everything open (None).

    Refused, reset and a bad certificate come from the target; a name that is not resolved and a missing route do not.
    """
    if any(isinstance(cause, (ConnectionError, ssl.SSLError)) for cause in _chain(error)):
        return False
    return None if isinstance(error, (httpx.ConnectError, httpx.PoolTimeout)) else False


def _chain(error: BaseException) -> list[BaseException]:
    """Walk the causes of an error, groups of them included."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in found:
            continue
        found.append(one)
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return found


def _cause(error: httpx.HTTPError) -> str:
    deepest = next((one for one in reversed(_chain(error)) if isinstance(one, OSError) and str(one)), error)
    return str(deepest) or type(error).__name__
