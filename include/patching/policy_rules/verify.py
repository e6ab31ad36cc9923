"""Rules about checks: one kind each, queries that name the target, comparisons that can be made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from patching.diagnostics import did_you_mean
from patching.policy import METRIC_KINDS, Check, PrometheusCheck, Spec
from patching.policy_metrics import SQL_PARAMETERS, SqlCheck, parameters
from patching.policy_rules.finding import Wrong
from patching.quantity import fraction

KINDS = (*METRIC_KINDS, "http", "command", "unit")
PLACEHOLDERS = ("{name}", "{address}")
_TARGET = re.compile(r"\{(name|address|label:[^{}]+)\}")
_BRACES = re.compile(r"\{[^{}]*\}")
_SERIES = re.compile(r"\$series(?!\w)")

_Loc = tuple[str | int, ...]


def breaches(spec: Spec) -> Iterator[Wrong]:
    """Check every entry of ``verify``."""
    names = Counter(check.name for check in spec.verify)
    for index, check in enumerate(spec.verify):
        at: _Loc = ("spec", "verify", index)
        if names[check.name] > 1:
            yield Wrong((*at, "name"), f'two checks are called "{check.name}"', "duplicate-name")
        yield from _kind(at, check)
        yield from _probe(at, check)
        if check.prometheus is not None:
            yield from _prometheus((*at, "prometheus"), check.prometheus)
        if check.sql is not None:
            yield from _sql((*at, "sql"), check.sql)
        yield from _compare((*at, "compare"), check)
    measured = any(check.metric is not None for check in spec.verify)
    if measured and spec.rollout.waves and spec.rollout.waves[0].soak <= 0:
        message = "the canary does not soak, so the metrics would say nothing; write for example soak: 30m"
        yield Wrong(("spec", "rollout", "waves", 0), message, "canary-soak")


def _kind(at: _Loc, check: Check) -> Iterator[Wrong]:
    given = [kind for kind in KINDS if getattr(check, kind) is not None]
    if len(given) != 1:
        shown = " and ".join(f'"{kind}"' for kind in given) or "none"
        message = f'the check "{check.name}" needs exactly one of {", ".join(KINDS)}; it has {shown}'
        yield Wrong((*at, "name"), message, "check-kind")


def _probe(at: _Loc, check: Check) -> Iterator[Wrong]:
    for kind in ("http", "command"):
        probe = getattr(check, kind)
        if probe is not None and probe.timeout <= 0:
            yield Wrong((*at, kind, "timeout"), "a probe needs time; write for example 10s", "zero-timeout")
    if check.unit is not None and not check.unit.active:
        message = '"active" is empty, so the check would prove nothing; name a unit'
        yield Wrong((*at, "unit", "active"), message, "empty-list", key=True)
    if check.http is not None:
        yield from _url((*at, "http", "url"), check.http.url)
        if not check.http.status:
            message = '"status" is empty, so no answer could ever pass; leave the key out for [200]'
            yield Wrong((*at, "http", "status"), message, "empty-list", key=True)


def _url(at: _Loc, url: str) -> Iterator[Wrong]:
    yield from _placeholders(at, url)
    try:
        split = urlsplit(_BRACES.sub("x", url))
    except ValueError as error:
        yield Wrong(at, f"this is not a URL: {error}", "url")
        return
    if split.scheme not in ("http", "https") or not split.netloc:
        yield Wrong(at, f'"{url}" is no http or https URL; write for example http://{{address}}:8080/health', "url")
    elif split.password is not None:
        yield Wrong(at, "the URL contains a password; secrets belong into a connection, never into a file", "secret")


def _placeholders(at: _Loc, text: str) -> Iterator[Wrong]:
    for found in _BRACES.findall(text):
        if not _TARGET.fullmatch(found):
            yield Wrong(at, f'unknown placeholder "{found}"{did_you_mean(found, PLACEHOLDERS)}', "unknown-placeholder")


def _prometheus(at: _Loc, check: PrometheusCheck) -> Iterator[Wrong]:
    yield from _measured(at, check)
    for key in ("errors", "good", "requests", "query"):
        written = getattr(check, key)
        if written is not None and not _SERIES.search(written):
            message = f'"{key}" has no $series, so it would measure the whole fleet; put $series between the braces'
            yield Wrong((*at, key), message, "no-series")
    for label, value in check.series.items():
        yield from _placeholders((*at, "series", label), value)
    if not any(_TARGET.search(value) for value in check.series.values()):
        message = 'no label of "series" contains {name}, {address} or {label:…}, so all targets would have one metric'
        yield Wrong((*at, "series"), message, "same-series", key=True)
    if check.before <= 0:
        yield Wrong((*at, "before"), '"before" has no length; write for example 10m', "zero-timeout")


def _sql(at: _Loc, check: SqlCheck) -> Iterator[Wrong]:
    if (problem := _unlike_a_query(check.query)) is not None:
        yield Wrong((*at, "query"), problem, "sql-query")
    yield from _placeholders((*at, "target"), check.target)
    if not _TARGET.search(check.target):
        message = '"target" contains no {name}, {address} or {label:…}, so all targets would have the same rows'
        yield Wrong((*at, "target"), message, "same-series")
    if check.before <= 0:
        yield Wrong((*at, "before"), '"before" has no length; write for example 10m', "zero-timeout")


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


def _measured(at: _Loc, check: PrometheusCheck) -> Iterator[Wrong]:
    given = {key for key in ("errors", "good", "requests", "query") if getattr(check, key) is not None}
    if given not in ({"errors", "requests"}, {"good", "requests"}, {"query"}):
        shown = ", ".join(sorted(given)) or "none of them"
        message = f'a metric is "errors" with "requests", "good" with "requests", or "query" alone; there is {shown}'
        yield Wrong((*at, "connection"), message, "check-metric")


def _compare(at: _Loc, check: Check) -> Iterator[Wrong]:
    compare, written = check.compare, check.compare.model_fields_set
    if check.metric is None and written:
        kinds = "http, command and unit checks pass or fail by themselves"
        metrics = " or ".join(f'"{kind}"' for kind in METRIC_KINDS)
        yield Wrong(at, f'"compare" needs {metrics}; {kinds}', "check-compare", key=True)
        return
    if "against" in written and not compare.against:
        yield Wrong((*at, "against"), '"against" is empty, so nothing could be compared', "empty-list", key=True)
    if "against" in written and "threshold" in compare.against and compare.threshold is None:
        message = '"against" lists "threshold", but no threshold is given; add for example threshold: 2%'
        yield Wrong((*at, "against"), message, "check-threshold")
    if check.metric is not None and check.metric.gauge and compare.threshold is not None:
        yield Wrong((*at, "threshold"), '"threshold" is a share of errors; a gauge has none', "check-threshold")
    if compare.threshold is not None and "threshold" not in compare.against:
        message = '"threshold" is given, but "against" does not list it, so it would never be used'
        yield Wrong((*at, "threshold"), message, "check-threshold")
    for key, value in (("threshold", compare.threshold), ("maxRelativeIncrease", compare.max_relative_increase)):
        if value is not None and fraction(value) is None:
            yield Wrong((*at, key), f'"{key}" is a share; write {value}%', "needs-percent")
