"""Prometheus as a metric source: raw counter samples through its HTTP API, counted by ``canary.series``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx

from patching.canary.series import LOOKBACK, CounterSeries, count, points, scrape_interval
from patching.change import Refusal
from patching.errors import MetricQueryRefused, MetricSourceUnavailable
from patching.sources.base import Connection, Sample
from patching.sources.endpoint import ConnectionUnusable, Endpoint, http_endpoint
from patching.sources.promql import Matchers, by_name, series_matchers
from patching.sources.refusal import silent, unusable
from patching.sources.sent import note

TARGETS_PER_QUERY = 200
SILENT = "compare the policy's series labels with what Prometheus shows for the target"
_PROCESS_LABELS = ("job", "instance")

ByTarget = dict[str, list[CounterSeries]]


def endpoint(connection: Connection) -> Endpoint:
    """Read a connection (``sources.endpoint`` lists its fields).

    Raises MetricSourceUnavailable for a connection without a host or with another schema than http(s).
    """
    try:
        return http_endpoint(connection, "Prometheus")
    except ConnectionUnusable as error:
        raise MetricSourceUnavailable(str(error)) from error


class PrometheusSource:
    """A MetricSource over Prometheus's HTTP API (also Thanos, Mimir and others that speak it).

    ``errors`` and ``requests`` are selectors of counters with ``$series`` among their matchers. One query a counter
    serves up to ``TARGETS_PER_QUERY`` targets: ``selector[window]`` gives raw samples with the times of their scrapes,
    so nothing is extrapolated, and a soak of a few scrapes is counted exactly. ``timeout`` is seconds a query.
    """

    def __init__(self, connection: Connection, *, timeout: float = 15.0) -> None:
        self._id = connection.id
        self._endpoint = endpoint(connection)
        self._timeout = timeout

    async def increases(
        self, matchers: dict[str, dict[str, str]], errors: str, requests: str, start: datetime, end: datetime
    ) -> list[Sample]:
        """Read what each target counted between two moments, in the order of ``matchers``.

        None where a target has no request series or only stale ones. Raises MetricSourceUnavailable.
        """
        asked, failed = await self.counters(matchers, errors, requests, start, end)
        span = (start.timestamp(), end.timestamp())
        return [count(name, failed.get(name, []), asked.get(name, []), *span) for name in matchers]

    async def points(
        self,
        matchers: dict[str, dict[str, str]],
        errors: str,
        requests: str,
        start: datetime,
        end: datetime,
        number: int,
    ) -> list[Sample]:
        """Read the same counters in ``number`` equal parts of a span, for a picture; no part decides anything.

        Raises MetricSourceUnavailable.
        """
        asked, failed = await self.counters(matchers, errors, requests, start, end)
        span = (start.timestamp(), end.timestamp(), number)
        return [one for name in matchers for one in points(name, failed.get(name, []), asked.get(name, []), *span)]

    async def total(self, selector: str, seconds: float, at: datetime) -> float | None:
        """Sum what all series of a selector counted in the ``seconds`` before a moment; None without such a series.

        Raises MetricSourceUnavailable.
        """
        query = f"sum(increase({selector}[{round(seconds * 1000)}ms]))"
        async with self._client() as client:
            found = await self._ask(client, query, at, kind="vector")
        try:
            values = [float(item["value"][1]) for item in found]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._unavailable(f"gave a sum that cannot be read ({error!r})", query) from error
        return values[0] if values and math.isfinite(values[0]) else None

    async def interval(self, matchers: dict[str, dict[str, str]], selector: str, at: datetime) -> float | None:
        """Give the seconds between the scrapes of a counter in the last ``LOOKBACK``, the slowest target's; or None.

        A batch of targets is asked. Raises MetricSourceUnavailable.
        """
        async with self._client() as client:
            for part in _batches(matchers):
                found = await self._series(client, part, selector, at, at)
                return scrape_interval(one for many in found.values() for one in many)
        return None

    async def unknown(self, selector: str, at: datetime) -> str | None:
        """Give the name of a selector's counter if no series of that name was scraped in the last ``LOOKBACK`` seconds.

        None where there is one, and for a selector without a name. Raises MetricSourceUnavailable.
        """
        name = by_name(selector)
        if name is None:
            return None
        async with self._client() as client:
            found = await self._ask(client, f"count(last_over_time({name}[{LOOKBACK:.0f}s]))", at, kind="vector")
        return None if found else name

    async def counters(
        self, matchers: Matchers, errors: str, requests: str, start: datetime, end: datetime
    ) -> tuple[ByTarget, ByTarget]:
        """Read the raw series (requests, errors) by target from ``LOOKBACK`` before ``start`` until ``end``.

        Requests are read first: a scrape that is stored in between can only be missing from them, and the errors are
        then cut to it.
        """
        _owners(matchers)
        asked: ByTarget = {}
        failed: ByTarget = {}
        async with self._client() as client:
            for part in _batches(matchers):
                asked |= await self._series(client, part, requests, start, end)
                failed |= await self._series(client, part, errors, start, end)
        return asked, failed

    async def values(
        self, matchers: dict[str, dict[str, str]], query: str, start: datetime, end: datetime, number: int
    ) -> dict[str, list[float | None]]:
        """Read a gauge at the end of each of ``number`` equal parts of a span; None where a target has no value.

        Raises MetricSourceUnavailable; also where the expression gives several series for one target.
        """
        owners, labels = _owners(matchers)
        step = max((end.timestamp() - start.timestamp()) / number, 0.001)
        found: dict[str, list[float | None]] = {name: [None] * number for name in matchers}
        seen: set[str] = set()
        async with self._client() as client:
            for part in _batches(matchers):
                text = _with_series(query, part)
                note(text, start, end, step)
                for item in await self._ask_range(client, text, start, end, step):
                    owner = owners.get(tuple(item["metric"].get(label, "") for label in labels))
                    if owner is None:
                        continue
                    if owner in seen:
                        raise MetricQueryRefused(
                            f"the gauge gives several series for {owner}; aggregate it: {_short(text)}"
                        )
                    seen.add(owner)
                    for at, value in _finite(item.get("values", ())):
                        look = round((at - start.timestamp()) / step) - 1
                        if 0 <= look < number:
                            found[owner][look] = value
        return found

    async def validate_gauge(self, matchers: dict[str, dict[str, str]], query: str, at: datetime) -> list[Refusal]:
        """Find, when planning, an expression that cannot work (blocking), and targets that have no value now."""
        if "$series" not in query:
            problem = "it does not contain $series, so it cannot be told apart by target"
        else:
            try:
                found = await self.values(matchers, query, at - timedelta(seconds=1), at, 1)
                return silent([name for name, values in found.items() if values == [None]], "value", SILENT)
            except MetricQueryRefused as error:
                problem = str(error)
        remedy = "write query as an expression with $series that gives one value for each target"
        return [unusable("query", problem, remedy)]

    async def validate(self, matchers: Matchers, errors: str, requests: str, at: datetime) -> list[Refusal]:
        """Find, when planning, a query that cannot work, and targets that have no requests now.

        A broken query blocks; a target without data does not (but its check will hold). Raises
        MetricSourceUnavailable only where Prometheus itself is not there.
        """
        refusals = []
        for what, selector in (("errors", errors), ("requests", requests)):
            problem = await self._problem(matchers, selector, at)
            if problem:
                remedy = (
                    f"write {what} as the selector of a counter with $series, such as http_requests_total{{$series}}"
                )
                refusals.append(unusable(what, problem, remedy))
        if refusals:
            return refusals
        samples = await self.increases(
            {name: dict(labels) for name, labels in matchers.items()}, errors, requests, at, at
        )
        return silent([sample.target for sample in samples if sample.requests is None], "request counter", SILENT)

    async def _problem(self, matchers: Matchers, selector: str, at: datetime) -> str | None:
        if "$series" not in selector:
            return "it does not contain $series, so its counters cannot be told apart by target"
        try:
            _owners(matchers)
            async with self._client() as client:
                for part in _batches(matchers):
                    await self._series(client, part, selector, at, at)
        except MetricQueryRefused as error:
            return str(error)
        return None

    def _client(self) -> httpx.AsyncClient:
        place = self._endpoint
        return httpx.AsyncClient(
            auth=place.auth, headers=dict(place.headers), verify=place.verify, timeout=self._timeout
        )

    async def _series(
        self, client: httpx.AsyncClient, matchers: Matchers, selector: str, start: datetime, end: datetime
    ) -> ByTarget:
        owners, labels = _owners(matchers)
        window = round((end.timestamp() - start.timestamp() + LOOKBACK) * 1000)
        try:
            query = f"{selector.replace('$series', series_matchers(matchers))}[{window}ms]"
        except ValueError as error:
            raise MetricQueryRefused(str(error)) from error
        found: ByTarget = defaultdict(list)
        note(query, end - timedelta(milliseconds=window), end)
        answer = await self._ask(client, query, end)
        try:
            for item in answer:
                metric = item["metric"]
                owner = owners.get(tuple(metric.get(label, "") for label in labels))
                if owner is not None:
                    process = tuple(metric.get(label, "") for label in _PROCESS_LABELS)
                    found[owner].append(CounterSeries(process, _finite(item.get("values", ()))))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._unavailable(f"gave samples that cannot be read ({error!r})", query) from error
        return found

    async def _ask(
        self, client: httpx.AsyncClient, query: str, at: datetime, *, kind: str = "matrix"
    ) -> list[dict[str, Any]]:
        form = {"query": query, "time": f"{at.timestamp():.3f}", "timeout": f"{self._timeout:g}s"}
        return await self._post(client, "query", form, kind)

    async def _ask_range(
        self, client: httpx.AsyncClient, query: str, start: datetime, end: datetime, step: float
    ) -> list[dict[str, Any]]:
        form = {"query": query, "start": f"{start.timestamp():.3f}", "end": f"{end.timestamp():.3f}"}
        form |= {"step": f"{step:.3f}", "timeout": f"{self._timeout:g}s"}
        return await self._post(client, "query_range", form, "matrix")

    async def _post(
        self, client: httpx.AsyncClient, path: str, form: dict[str, str], kind: str
    ) -> list[dict[str, Any]]:
        query = form["query"]
        try:
            response = await client.post(f"{self._endpoint.url}/api/v1/{path}", data=form)
            answer = response.json()
        except httpx.HTTPError as error:
            raise self._unavailable(f"did not answer ({type(error).__name__}: {error})", query) from error
        except ValueError as error:
            raise self._unavailable(f"answered HTTP {response.status_code} without JSON", query) from error
        return self._result(answer, response.status_code, query, kind)

    def _result(self, answer: Any, status: int, query: str, kind: str) -> list[dict[str, Any]]:
        if not isinstance(answer, dict):
            raise self._unavailable(f"answered HTTP {status} with JSON that is no answer of its API", query)
        if answer.get("errorType") == "bad_data":
            raise MetricQueryRefused(
                f"Prometheus refuses the query: {answer.get('error')}; the query was: {_short(query)}"
            )
        if answer.get("status") != "success":
            raise self._unavailable(f"answered HTTP {status}: {answer.get('error', 'no reason given')}", query)
        if answer.get("warnings"):
            raise self._unavailable(f"answered with warnings, so data may be missing: {answer['warnings']}", query)
        data = answer.get("data")
        if not isinstance(data, dict) or data.get("resultType") != kind:
            raise self._unavailable(f"gave something else than a {kind}", query)
        result: list[dict[str, Any]] = data.get("result") or []
        return result

    def _unavailable(self, what: str, query: str) -> MetricSourceUnavailable:
        return MetricSourceUnavailable(
            f'Prometheus "{self._id}" at {self._endpoint.url} {what}. No data is never a pass: the check is '
            f"inconclusive. See docs/runbooks/prometheus-down.md. The query was: {_short(query)}"
        )


def _with_series(query: str, matchers: Matchers) -> str:
    try:
        return query.replace("$series", series_matchers(matchers))
    except ValueError as error:
        raise MetricQueryRefused(str(error)) from error


def _short(query: str) -> str:
    return query if len(query) <= 400 else f"{query[:300]} … {query[-60:]}"


def _owners(matchers: Matchers) -> tuple[dict[tuple[str, ...], str], list[str]]:
    """Map the label values of each target to its name; refuses targets that cannot be told apart."""
    labels = sorted({label for each in matchers.values() for label in each})
    owners: dict[tuple[str, ...], str] = {}
    for name, each in matchers.items():
        if sorted(each) != labels:
            raise MetricQueryRefused(
                f"every target needs the same series labels: {name} has {sorted(each)}, not {labels}"
            )
        key = tuple(each.get(label, "") for label in labels)
        if key in owners:
            raise MetricQueryRefused(
                f"the policy's series labels do not tell {owners[key]} and {name} apart ({dict(each)}): "
                "use {name} or {address} in one of them"
            )
        owners[key] = name
    return owners, labels


def _batches(matchers: Matchers) -> Iterator[Matchers]:
    names = list(matchers)
    for first in range(0, len(names), TARGETS_PER_QUERY):
        yield {name: matchers[name] for name in names[first : first + TARGETS_PER_QUERY]}


def _finite(values: Any) -> tuple[tuple[float, float], ...]:
    pairs = ((float(at), float(value)) for at, value in values)
    return tuple((at, value) for at, value in pairs if value == value and abs(value) != float("inf"))
