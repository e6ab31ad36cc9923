"""Rules about metrics: queries that name the target and can be asked, values that are asked often enough."""

from __future__ import annotations

import re
from collections.abc import Iterator

from patching.diagnostics import did_you_mean
from patching.json_pointer import is_pointer
from patching.policy import METRIC_KINDS, Check, PrometheusCheck, RolloutRules
from patching.policy_metrics import FEWEST_VALUES, SQL_PARAMETERS, HttpJsonCheck, SqlCheck, parameters
from patching.policy_rules.finding import Wrong
from patching.policy_rules.templates import Loc, tells_targets_apart, unknown_placeholders, whole_url
from patching.quantity import format_duration

SHORTEST_EVERY = 10.0
"""Seconds: a soaking wave sleeps between the rounds, and waking it takes a few."""

_SERIES = re.compile(r"\$series(?!\w)")


def breaches(at: Loc, check: Check, rollout: RolloutRules) -> Iterator[Wrong]:
    """Check the metric of a check; a probe has none."""
    if check.prometheus is not None:
        yield from _prometheus((*at, "prometheus"), check.prometheus)
    if check.sql is not None:
        yield from _sql((*at, "sql"), check.sql)
    if check.http_json is not None:
        yield from _http_json((*at, "httpJson"), check.http_json)
        if check.on_inconclusive != "promote" and not check.dry_run:
            yield from _soaks(check.name, check.http_json.every, rollout)
    if check.metric is not None and check.metric.before <= 0:
        kind = next(kind for kind, field in METRIC_KINDS.items() if getattr(check, field) is not None)
        yield Wrong((*at, kind, "before"), '"before" has no length; write for example 10m', "zero-timeout")


def _prometheus(at: Loc, check: PrometheusCheck) -> Iterator[Wrong]:
    yield from _measured(at, check)
    for key in ("errors", "good", "requests", "query"):
        written = getattr(check, key)
        if written is not None and not _SERIES.search(written):
            message = f'"{key}" has no $series, so it would measure the whole fleet; put $series between the braces'
            yield Wrong((*at, key), message, "no-series")
    for label, value in check.series.items():
        yield from unknown_placeholders((*at, "series", label), value)
    if not tells_targets_apart(*check.series.values()):
        message = 'no label of "series" contains {name}, {address} or {label:…}, so all targets would have one metric'
        yield Wrong((*at, "series"), message, "same-series", key=True)


def _measured(at: Loc, check: PrometheusCheck) -> Iterator[Wrong]:
    given = {key for key in ("errors", "good", "requests", "query") if getattr(check, key) is not None}
    if given not in ({"errors", "requests"}, {"good", "requests"}, {"query"}):
        shown = ", ".join(sorted(given)) or "none of them"
        message = f'a metric is "errors" with "requests", "good" with "requests", or "query" alone; there is {shown}'
        yield Wrong((*at, "connection"), message, "check-metric")


def _sql(at: Loc, check: SqlCheck) -> Iterator[Wrong]:
    if (problem := _unlike_a_query(check.query)) is not None:
        yield Wrong((*at, "query"), problem, "sql-query")
    yield from unknown_placeholders((*at, "target"), check.target)
    if not tells_targets_apart(check.target):
        message = '"target" contains no {name}, {address} or {label:…}, so all targets would have the same rows'
        yield Wrong((*at, "target"), message, "same-series")


def _unlike_a_query(query: str) -> str | None:
    """Say what a query is not; its names are only known to the database, which is asked when planning."""
    if not query.lstrip().lower().startswith(("select", "with")):
        return "a query that only reads begins with SELECT or WITH"
    if ";" in query.rstrip().removesuffix(";"):
        return "this is more than one statement; write one SELECT"
    named = parameters(query)
    for name in named:
        if name not in SQL_PARAMETERS:
            hint = did_you_mean(f":{name}", [f":{known}" for known in SQL_PARAMETERS])
            return f'unknown parameter ":{name}"{hint}; there are :targets, :start and :end'
    if "targets" not in named:
        return "the query has no :targets, so it would read the whole fleet; write for example WHERE host IN :targets"
    return None


def _http_json(at: Loc, check: HttpJsonCheck) -> Iterator[Wrong]:
    if check.connection is None:
        yield from whole_url((*at, "url"), check.url)
    else:
        yield from unknown_placeholders((*at, "url"), check.url)
        # Credentials of the connection go to its own host and nowhere else.
        if not check.url.startswith("/") or check.url.startswith("//"):
            message = f'"url" must be a path such as /status: the host is the one of connection "{check.connection}"'
            yield Wrong((*at, "url"), message, "url")
    yield from unknown_placeholders((*at, "pointer"), check.pointer)
    if not is_pointer(check.pointer):
        hint = "/" + check.pointer.removeprefix("$").lstrip("./").replace(".", "/")
        message = f'"{check.pointer}" is no JSON Pointer (RFC 6901); write for example {hint}'
        yield Wrong((*at, "pointer"), message, "json-pointer")
    if not tells_targets_apart(check.url, check.pointer):
        message = 'neither "url" nor "pointer" has {name}, {address} or {label:…}, so all targets would have one value'
        yield Wrong((*at, "pointer"), message, "same-series")
    if check.every < SHORTEST_EVERY:
        message = f"a soaking wave is woken for each round; write at least {format_duration(SHORTEST_EVERY)}"
        yield Wrong((*at, "every"), message, "poll-every")
    elif not 0 < check.timeout < check.every:
        message = f'"timeout" must be shorter than "every", {format_duration(check.every)}; write for example 5s'
        yield Wrong((*at, "timeout"), message, "poll-every")


def _soaks(name: str, every: float, rollout: RolloutRules) -> Iterator[Wrong]:
    """A wave that soaks for fewer values than are needed would be held every time, also the last one."""
    needed = FEWEST_VALUES * every
    for index, wave in enumerate(rollout.waves):
        if wave.soak < needed:
            soaks = f"soaks for {format_duration(wave.soak)}" if wave.soak else "does not soak"
            message = (
                f'wave {index + 1} {soaks}, but "{name}" is asked every {format_duration(every)} and needs '
                f"{FEWEST_VALUES} values; write at least soak: {format_duration(needed)}"
            )
            yield Wrong(("spec", "rollout", "waves", index), message, "poll-soak")
