"""The Prometheus source against a real Prometheus: backfilled samples, so nothing waits (S5, F3, F9)."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.backfilled import backfilled
from patching.canary.comparison import judge_check
from patching.canary.series import LOOKBACK
from patching.errors import MetricSourceUnavailable
from patching.plan.control import choose_control
from patching.policy import Check, PrometheusCheck, RolloutRules
from patching.rollout.answers import VerdictName
from patching.rollout.queries import tried_queries
from patching.sources.base import Connection, Sample
from patching.sources.prometheus import PrometheusSource
from patching.sources.sent import noted
from servers.loopback import free_port
from unit.plan.made import policy, target
from unit.rollout.fleet import Fleet

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ERRORS = 'http_requests_total{code=~"5..",$series}'
REQUESTS = "http_requests_total{$series}"
CANARY = {"canary": {"count": 1}, "soak": "1m"}
ODD = 'w"e\\b|6.7+(x)'
LENGTH = 240

Line = tuple[str, str, int, float]


def at(second: float) -> datetime:
    return T0 + timedelta(seconds=second)


def fleet() -> Iterator[Line]:
    """(instance, code, second, value) of a fleet scraped every second; every host answers 10 requests a second."""
    for second in range(LENGTH + 1):
        for healthy in ("web-1:80", "web-8:80", "web-9:80", ODD, "web.7:80"):
            yield healthy, "200", second, 10 * second
        yield "webx7:80", "200", second, 1_000_000 * second  # a regex that is not escaped takes it for web.7
        yield "web-2:80", "200", second, 10 * second - (3 * (second - 200) if second > 200 else 0)
        if second > 200:
            yield "web-2:80", "503", second, 3 * (second - 200)  # born with its first error: 3 and not 0
        yield "web-3:80", "200", second, 10 * second if second <= 210 else 10 * (second - 210)
        if second <= 100:
            yield "web-3:80", "500", second, 4
        if second > 220:
            yield "web-3:80", "500", second, 9  # after the restart, higher than before it
        if second <= 205:
            yield "web-4:80", "200", second, 10 * second
        yield "web-5:80", "200", second, 500
        if second <= LENGTH - 2:
            yield "web-6:80", "200", second, 10 * second
    for second in range(0, LENGTH + 1, 10):
        for number in range(20):
            yield f"calm-{number}:80", "200", second, (2 + number / 10) * second
            yield f"busy-{number}:80", "200", second, (80 + number) * second


def openmetrics(lines: Iterator[Line]) -> str:
    text = ["# TYPE http_requests counter"]
    for instance, code, second, value in lines:
        quoted = instance.replace("\\", "\\\\").replace('"', '\\"')
        stamp = T0.timestamp() + second
        text.append(f'http_requests_total{{job="web",instance="{quoted}",code="{code}"}} {value} {stamp}')
    return "\n".join([*text, "# EOF", ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with backfilled(tmp_path_factory.mktemp("prometheus"), openmetrics(fleet())) as connection:
        yield connection


def match(*instances: str) -> dict[str, dict[str, str]]:
    return {instance: {"instance": instance, "job": "web"} for instance in instances}


async def test_queries_are_noted_as_they_are_sent(prometheus: Connection) -> None:
    """The evidence can be asked for again: text, window and step (S5)."""
    source = PrometheusSource(prometheus)
    with noted() as sent:
        await source.increases(match("web-1:80", "web-2:80"), ERRORS, REQUESTS, at(100), at(220))
        await source.values(match("web-1:80"), "sum by (instance, job) (up{$series})", at(100), at(220), 60)
    asked, failed, gauge = sent
    series = 'instance=~"web-1:80|web-2:80",job="web"'
    window = f"{round((120 + LOOKBACK) * 1000)}ms"
    assert asked.text == f"http_requests_total{{{series}}}[{window}]"
    assert failed.text == f'http_requests_total{{code=~"5..",{series}}}[{window}]'
    assert (asked.end, asked.window, asked.step) == (at(220), 120 + LOOKBACK, None)
    assert gauge.text == 'sum by (instance, job) (up{instance="web-1:80",job="web"})'
    assert (gauge.end, gauge.window, gauge.step) == (at(220), 120, 2)
    with noted() as later:
        pass
    assert later == []


async def read(connection: Connection, start: float, end: float, *instances: str) -> dict[str, Sample]:
    source = PrometheusSource(connection)
    samples = await source.increases(match(*instances), ERRORS, REQUESTS, at(start), at(end))
    return {sample.target: sample for sample in samples}


def counted(sample: Sample) -> tuple[float | None, float | None]:
    return sample.errors, sample.requests


async def test_healthy_host_without_an_error_series_counts_zero_errors(prometheus: Connection) -> None:
    """S5: no error yet is zero as long as requests move, and a window of 20 s is counted exactly."""
    found = await read(prometheus, 200, 220, "web-1:80")
    assert counted(found["web-1:80"]) == (0.0, 200.0)


async def test_errors_born_in_the_window_count_from_their_first_value(prometheus: Connection) -> None:
    """F3: the first increment of a fresh 5xx counter is not lost, which increase() would do."""
    found = await read(prometheus, 200, 220, "web-2:80")
    assert counted(found["web-2:80"]) == (60.0, 200.0)


async def test_restart_counts_on_from_zero_even_where_the_new_value_is_higher(prometheus: Connection) -> None:
    """F3: 9 errors after the restart are 9, not 9 - 4; the requests go on from zero."""
    found = await read(prometheus, 200, 230, "web-3:80")
    assert counted(found["web-3:80"]) == (9.0, 100.0 + 200.0 + 9.0)


async def test_host_that_fell_silent_has_no_data(prometheus: Connection) -> None:
    """F9: a stale counter is no data, not zero errors."""
    found = await read(prometheus, 200, 220, "web-4:80", "web-1:80")
    assert counted(found["web-4:80"]) == (None, None)
    assert counted(found["web-1:80"]) == (0.0, 200.0)


async def test_host_that_prometheus_does_not_know_has_no_data(prometheus: Connection) -> None:
    """F9: an empty vector is not zero."""
    assert counted((await read(prometheus, 200, 220, "nobody:80"))["nobody:80"]) == (None, None)


async def test_last_scrape_that_is_a_little_late_is_still_data(prometheus: Connection) -> None:
    found = await read(prometheus, 220, 240, "web-6:80")
    assert counted(found["web-6:80"]) == (0.0, 180.0)


async def test_idle_host_has_zero_requests(prometheus: Connection) -> None:
    assert counted((await read(prometheus, 200, 220, "web-5:80"))["web-5:80"]) == (0.0, 0.0)


async def test_label_values_with_quotes_and_regex_characters_find_just_their_host(prometheus: Connection) -> None:
    found = await read(prometheus, 200, 220, ODD, "web.7:80")
    assert {name: counted(sample) for name, sample in found.items()} == {ODD: (0.0, 200.0), "web.7:80": (0.0, 200.0)}
    assert counted((await read(prometheus, 200, 220, ODD))[ODD]) == (0.0, 200.0)


async def test_bad_canary_is_undone_and_good_canary_is_promoted(prometheus: Connection) -> None:
    """F3, S5: from the samples of a real Prometheus to the verdict."""
    rules = PrometheusCheck(connection="prom", errors=ERRORS, requests=REQUESTS)
    check = Check(name="errors", prometheus=rules)
    for name, expected in (("web-2:80", VerdictName.UNDO), ("web-1:80", VerdictName.PROMOTE)):
        now = await read(prometheus, 200, 220, name, "web-8:80", "web-9:80")
        then = await read(prometheus, 100, 200, name)
        control = [now["web-8:80"], now["web-9:80"]]
        verdict = judge_check(check, canary=[now[name]], control=control, before=[then[name]])
        assert (verdict.verdict, verdict.comparison) == (expected, "control"), verdict.reason


async def test_whole_service_is_summed_for_its_error_budget(prometheus: Connection) -> None:
    """E5: all series of the selector together, as far back as a window reaches; none at all is None, not zero."""
    source = PrometheusSource(prometheus)
    steady = 'http_requests_total{instance=~"web-8:80|web-9:80"}'
    assert await source.total(steady, 60, at(220)) == pytest.approx(1200, rel=0.05)
    assert await source.total('http_requests_total{code="503"}', 15, at(220)) == pytest.approx(45, rel=0.1)
    assert await source.total('http_requests_total{code="999"}', 60, at(220)) is None
    with pytest.raises(MetricSourceUnavailable, match="refuses the query"):
        await source.total("http_requests_total{", 60, at(220))


COUNTED = {"errors": ERRORS, "requests": REQUESTS}
RATE = {"query": 'sum by (instance, job) (rate(http_requests_total{code="200",$series}[30s]))'}


@pytest.mark.parametrize("metric", [COUNTED, RATE], ids=["counters", "gauge"])
async def test_control_of_a_busy_canary_is_busy_as_prometheus_tells_when_planning(
    prometheus: Connection, tmp_path: Path, metric: dict[str, str]
) -> None:
    """S6: every busy host is compared with, before any calm one; who has no data is not chosen before either."""
    rules = {"connection": "prom", "series": {"instance": "{name}", "job": "web"}, "before": "60s", **metric}
    made = policy(verify=[{"name": "load", "prometheus": rules}], rollout={"waves": [CANARY, {"size": "100%"}]})
    names = [f"{kind}-{number}:80" for kind in ("calm", "busy") for number in range(20)] + ["nobody:80"]
    site = replace(Fleet(tmp_path).site, metrics=lambda _name: PrometheusSource(prometheus))
    tried = await tried_queries(site, made, [target(name) for name in names], at(230))
    assert tried.loads is not None
    assert tried.loads.of == {
        name: pytest.approx(tried.loads.of["calm-0:80"] * (1 + int(name[5:-3]) / 20), rel=0.01)
        if name.startswith("calm")
        else pytest.approx(tried.loads.of["busy-0:80"] * (1 + int(name[5:-3]) / 80), rel=0.01)
        for name in names[:-1]
    }
    assert tried.loads.of["busy-0:80"] == pytest.approx(80, rel=0.1)
    alone = ["busy-7:80"]
    control = choose_control(RolloutRules(), [*map(target, names)], alone, set(names) - set(alone), "s", tried.loads)
    assert [name for name in control if name.startswith("busy")] == sorted({*names[20:40]} - {*alone})
    assert "nobody:80" not in control


async def test_points_show_the_errors_where_they_happened(prometheus: Connection) -> None:
    source = PrometheusSource(prometheus)
    found = await source.points(match("web-2:80"), ERRORS, REQUESTS, at(180), at(220), 4)
    assert [counted(sample) for sample in found] == [(0.0, 100.0), (0.0, 100.0), (30.0, 100.0), (30.0, 100.0)]


async def test_many_targets_are_asked_in_batches_and_none_is_lost(
    prometheus: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patching.sources.prometheus.TARGETS_PER_QUERY", 2)
    found = await read(prometheus, 200, 220, "web-1:80", "web-2:80", "web-8:80", "web-9:80", "web-5:80")
    assert [sample.requests for sample in found.values()] == [200.0, 200.0, 200.0, 200.0, 0.0]


@pytest.mark.parametrize(
    ("errors", "requests", "words"),
    [
        ("http_requests_total{code=", REQUESTS, "parse error"),
        (ERRORS, "http_requests_total", "does not contain $series"),
        (ERRORS, "sum(rate(http_requests_total{$series}[1m]))", "parse error"),
        ('http_requests_total{code=~"5(",$series}', REQUESTS, "error"),
    ],
)
async def test_wrong_query_is_found_when_planning(
    prometheus: Connection, errors: str, requests: str, words: str
) -> None:
    if "$series" not in errors:
        errors += "$series"
    refusals = await PrometheusSource(prometheus).validate(match("web-1:80"), errors, requests, at(220))
    assert [refusal.blocking for refusal in refusals] == [True]
    assert words in refusals[0].message


async def test_wrong_query_while_judging_is_unavailable_and_says_the_query(prometheus: Connection) -> None:
    """F9: nothing that Prometheus refuses can pass."""
    with pytest.raises(MetricSourceUnavailable, match="parse error") as caught:
        await PrometheusSource(prometheus).increases(match("web-1:80"), "x{$series", REQUESTS, at(0), at(9))
    assert 'x{instance="web-1:80",job="web"[' in str(caught.value)
    assert caught.value.retryable is False


async def test_target_without_data_is_said_when_planning(prometheus: Connection) -> None:
    refusals = await PrometheusSource(prometheus).validate(match("web-1:80", "web-4:80"), ERRORS, REQUESTS, at(230))
    assert [(refusal.code, refusal.blocking) for refusal in refusals] == [("metrics-no-data", False)]
    assert "web-4:80" in refusals[0].message
    assert "web-1:80" not in refusals[0].message


@pytest.mark.parametrize(
    ("selector", "unknown"),
    [
        (ERRORS, None),
        ('http_requests_total{code="599",$series}', None),
        ('{__name__="http_requests_total",code="599",$series}', None),
        ('{__name__=~"http_req.*",$series}', None),
        ("http_errors_total{$series}", "http_errors_total"),
        ('{code="200",__name__="http_errors_total"}', '{__name__="http_errors_total"}'),
        ('{code="200",$series}', None),
    ],
)
async def test_renamed_counter_is_told_from_one_without_an_error_yet(
    prometheus: Connection, selector: str, unknown: str | None
) -> None:
    """S5: a healthy host has no series of its 5xx; a name that no host has at all was renamed."""
    assert await PrometheusSource(prometheus).unknown(selector, at(230)) == unknown


async def test_interval_of_the_scrapes_is_read_from_the_samples(prometheus: Connection) -> None:
    source = PrometheusSource(prometheus)
    assert await source.interval(match("web-1:80", "web-8:80"), REQUESTS, at(220)) == pytest.approx(1.0)
    assert await source.interval(match("nobody:80"), REQUESTS, at(220)) is None


async def test_counter_that_was_scraped_long_ago_only_is_unknown(prometheus: Connection) -> None:
    late = at(LENGTH + 301)
    assert await PrometheusSource(prometheus).unknown(REQUESTS, late) == "http_requests_total"


GAUGE = 'max by (instance, job) (http_requests_total{code="200",$series})'


async def test_gauge_is_read_look_by_look_and_a_host_without_value_has_none(prometheus: Connection) -> None:
    """S5, F9: an expression is asked at each look's end; no value is not zero."""
    source = PrometheusSource(prometheus)
    found = await source.values(match("web-1:80", "nobody:80"), GAUGE, at(100), at(140), 4)
    assert found == {"web-1:80": [1100.0, 1200.0, 1300.0, 1400.0], "nobody:80": [None] * 4}


async def test_gauge_with_several_series_for_one_target_is_refused_when_planning(prometheus: Connection) -> None:
    source = PrometheusSource(prometheus)
    refusals = await source.validate_gauge(match("web-2:80"), "http_requests_total{$series}", at(220))
    assert [refusal.blocking for refusal in refusals] == [True]
    assert "several series for web-2:80" in refusals[0].message


@pytest.mark.parametrize(
    ("query", "words"), [("sum(", "does not contain $series"), ("sum(x{$series}", "parse error"), (GAUGE, "")]
)
async def test_gauges_expression_is_tried_when_planning(prometheus: Connection, query: str, words: str) -> None:
    refusals = await PrometheusSource(prometheus).validate_gauge(match("web-1:80"), query, at(220))
    assert [words in refusal.message for refusal in refusals if refusal.blocking] == ([True] if words else [])


async def test_gauge_without_a_value_now_is_said_when_planning(prometheus: Connection) -> None:
    refusals = await PrometheusSource(prometheus).validate_gauge(match("web-1:80", "nobody:80"), GAUGE, at(220))
    assert [(refusal.code, refusal.blocking) for refusal in refusals] == [("metrics-no-data", False)]
    assert "no current value for nobody:80" in refusals[0].message


async def test_targets_that_share_their_labels_are_refused(prometheus: Connection) -> None:
    same = {"a": {"job": "web"}, "b": {"job": "web"}}
    refusals = await PrometheusSource(prometheus).validate(same, ERRORS, REQUESTS, at(220))
    assert "do not tell a and b apart" in refusals[0].message


async def test_prometheus_that_is_down_is_unavailable() -> None:
    """F9: a Prometheus that is not there holds; it never counts as a pass."""
    connection = Connection(id="prom", host="127.0.0.1", port=free_port(), password="s3cret", login="u")
    with pytest.raises(MetricSourceUnavailable, match="did not answer") as caught:
        await read(connection, 0, 9, "web-1:80")
    assert caught.value.retryable
    assert "s3cret" not in str(caught.value)


@contextmanager
def serving(status: int, body: bytes) -> Iterator[tuple[Connection, list[dict[str, str]]]]:
    """A real HTTP server that answers as a proxy, or a Prometheus with partial data, would."""
    seen: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(dict(self.headers))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            extra = {"headers": {"X-Scope-OrgID": "team"}}
            port = server.server_address[1]
            yield Connection(id="prom", host="127.0.0.1", port=port, login="u", password="p", extra=extra), seen
        finally:
            server.shutdown()
            thread.join()


GOOD = {"status": "success", "data": {"resultType": "matrix", "result": []}}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>login</html>", "without JSON"),
        (200, b"[]", "no answer of its API"),
        (
            503,
            json.dumps({"status": "error", "errorType": "timeout", "error": "query timed out"}).encode(),
            "timed out",
        ),
        (200, json.dumps(GOOD | {"warnings": ["partial data"]}).encode(), "partial data"),
        (200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode(), "else than"),
        (200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [{}]}}).encode(), "be read"),
    ],
)
async def test_unusable_answer_is_unavailable(status: int, body: bytes, words: str) -> None:
    """F9: partial data, proxies' pages and time-outs are no data."""
    with serving(status, body) as (connection, _), pytest.raises(MetricSourceUnavailable, match=words):
        await read(connection, 0, 9, "web-1:80")


async def test_login_and_headers_of_the_connection_are_sent() -> None:
    with serving(200, json.dumps(GOOD).encode()) as (connection, seen):
        await read(connection, 0, 9, "web-1:80")
    assert seen[0]["Authorization"].startswith("Basic ")
    assert seen[0]["X-Scope-OrgID"] == "team"


async def test_prometheus_that_never_answers_is_unavailable_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = Connection(id="prom", host="127.0.0.1", port=server.getsockname()[1])
        source = PrometheusSource(connection, timeout=0.2)
        with pytest.raises(MetricSourceUnavailable, match="ReadTimeout"):
            await source.increases(match("web-1:80"), ERRORS, REQUESTS, at(0), at(9))
