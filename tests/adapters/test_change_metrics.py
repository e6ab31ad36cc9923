"""Which change did this, asked of a real Prometheus that scrapes the real endpoint: the queries of the how-to."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse

from patching_airflow.ui.security import Access, Guard
from rollout_page.serving import mounted, serving
from rollout_page.stories import held, open_story_ledger
from servers.prometheus import prometheus_server

HOW_TO = Path(__file__).parents[2] / "docs/how-to/which-change.md"
BY_CHANGE, RECENT, HELD = re.findall(r"```promql\n(.*?)```", HOW_TO.read_text(), flags=re.DOTALL)
CHANGE = "web-os-security-20261124-220000-1"
CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: patching
    metrics_path: /patching/api/metrics
    authorization: {{type: Bearer, credentials_file: {token}}}
    static_configs: [{{targets: ["{address}"]}}]
  - job_name: stranger
    metrics_path: /patching/api/metrics
    static_configs: [{{targets: ["{address}"]}}]
  - job_name: shop
    honor_labels: true
    static_configs: [{{targets: ["{address}"]}}]
"""


def bearer_guard() -> Guard:
    """Let in who has the token, as a reader of one policy's DAG."""

    def authenticate(request: Request) -> str:
        if request.headers.get("authorization") != "Bearer the-token":
            raise HTTPException(401, "Not authenticated")
        return "prometheus"

    def authorise(_request: Request, _user: Any, dag_id: str | None, access: Access) -> None:
        if (dag_id, access) != ("patch__web-os-security", Access.ROLLOUT):
            raise HTTPException(403, "Forbidden")

    return Guard(authenticate=authenticate, authorise=authorise, name=str)


def shop(app: FastAPI) -> None:
    """Add counters of errors: of a changed target and of one that no rollout changed."""
    scrapes = count(1)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        errors = 10 * next(scrapes)
        hosts = ("web-01:9100", "db-01:9100")
        lines = [f'http_requests_total{{instance="{host}",code="503"}} {errors}' for host in hosts]
        return "\n".join(["# TYPE http_requests_total counter", *lines, ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("prometheus")
    ledger, clock = open_story_ledger(folder)
    held(ledger, clock, 12)
    app = mounted(ledger, bearer_guard())
    shop(app)
    (folder / "token").write_text("the-token")
    with serving(app) as url:
        config = CONFIG.format(token=folder / "token", address=url.removeprefix("http://"))
        with prometheus_server(folder, config) as port:
            yield port
    ledger.close()


def ask(port: int, query: str, within: float = 30) -> list[dict[str, Any]]:
    """Ask until there is an answer."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    deadline = time.monotonic() + within
    while True:
        with urllib.request.urlopen(url, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        if found:
            return found
        assert time.monotonic() < deadline, f"no answer within {within:g} s: {query}"
        threading.Event().wait(0.1)


def test_errors_are_joined_with_the_change_and_with_nothing_else(prometheus: int) -> None:
    found = ask(prometheus, BY_CHANGE)
    assert [item["metric"] for item in found] == [{"change_id": CHANGE, "policy": "web-os-security"}]
    errors = ask(prometheus, 'http_requests_total{code=~"5.."}')
    assert {item["metric"]["instance"] for item in errors} == {"web-01:9100", "db-01:9100"}


def test_recent_changes_and_held_rollouts_are_found(prometheus: int) -> None:
    # The story's clock is not Prometheus's: the query must be answered for the age that the story has.
    any_age = RECENT.replace("< 1800", "> -1e12")
    assert {item["metric"]["change_id"] for item in ask(prometheus, any_age)} == {CHANGE}
    assert [item["metric"]["change_id"] for item in ask(prometheus, HELD)] == [CHANGE]


def test_who_has_no_token_is_refused(prometheus: int) -> None:
    assert ask(prometheus, 'up{job="patching"} == 1')
    assert [item["value"][1] for item in ask(prometheus, 'up{job="stranger"}')] == ["0"]
