"""The pages' API (V2, V3, I10): who may read what, and that nothing is open, changed or leaked."""

from __future__ import annotations

import builtins
import gzip
import hashlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from patching.errors import LedgerUnavailable
from patching.ledger.base import Busy, Claim, Lease
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.ledger.store import SqlLedger
from patching.plan.document import Plan
from patching.rollout.quarantine import release
from patching_airflow.ui.app import create_app
from patching_airflow.ui.security import DENY_ALL, Access, airflow_guard
from rollout_page.serving import guard_for
from rollout_page.stories import RUN, Story, held, open_story_ledger

DAG = "patch__web-os-security"
OTHER = "patch__shopfront"

# Who may read what: alice one DAG and its logs, bob another, carol one DAG without logs, erin only emergencies.
MAY: dict[str, set[tuple[str, Access]]] = {
    "alice": {(DAG, Access.ROLLOUT), (DAG, Access.LOG)},
    "bob": {(OTHER, Access.ROLLOUT), (OTHER, Access.LOG)},
    "carol": {(DAG, Access.ROLLOUT)},
    "erin": {("patch_emergency", Access.ROLLOUT), ("patch_emergency", Access.LOG)},
}


def allowed(user: str, dag_id: str, access: Access) -> bool:
    return (dag_id, access) in MAY.get(user, set())


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlLedger]:
    opened, clock = open_story_ledger(tmp_path_factory.mktemp("ledger"))
    held(opened, clock, 12)
    Story(opened, clock, size=12, name="shopfront").opened()
    Story(opened, clock, size=12, name="payments", emergency=True).opened()
    yielded = {"rollout": None, "sentence": "run patch__x::1 is at work on this rollout: this run leaves it to it"}
    opened.append(NewEntry(chain=CONTROL, kind=EntryKind.RUN_BEGAN, key=f"run:{DAG}:yielded", body=yielded))
    incident_of_the_past(opened)
    yield opened
    opened.close()


def incident_of_the_past(ledger: SqlLedger) -> None:
    """Write an undo of the first rollout that failed, and its release."""
    told = {"id": INCIDENT, "rollout": ROLLOUT, "policy": "web-os-security", "cause": "the undo failed on web-01"}
    evidence = {"target": "web-01", "reason": "not back", "steps": [], "wanted_back": {}, "now": {"answers": False}}
    body = {"id": INCIDENT, "rollout": ROLLOUT, "evidence": ledger.store_document("evidence", evidence)}
    for kind, more, target in (
        (EntryKind.INCIDENT_OPENED, {**told, "targets": ["web-01"]}, None),
        (EntryKind.INCIDENT_EVIDENCE, body, "web-01"),
        (EntryKind.INCIDENT_RELEASED, {"id": INCIDENT, "reason": "eva: by hand"}, None),
    ):
        ledger.append(NewEntry(chain=CONTROL, kind=kind, key=kind.value, target=target, actor="eva", body=more))


INCIDENT = "undo-web-os-security-20261124-220000-1"
ROLLOUT = "web-os-security-20261124-220000-1"
EMERGENCY = "payments-20261124-220000-1"


@pytest.fixture
def app(ledger: SqlLedger) -> FastAPI:
    return create_app(lambda: ledger, guard_for(allowed))


def client(app: FastAPI, user: str | None) -> TestClient:
    return TestClient(app, headers={"x-user": user} if user else {})


def api_routes(app: FastAPI) -> list[APIRoute]:
    """The reading routes; those that change something are walked in test_ui_control."""
    return [route for route in every_api_route(app) if "GET" in route.methods]


def every_api_route(app: FastAPI) -> list[APIRoute]:
    return [route for route in app.routes if isinstance(route, APIRoute) and route.path.startswith("/api/")]


def address(route: APIRoute, rollout: str = ROLLOUT) -> str:
    filled = route.path.replace("{rollout}", rollout).replace("{target}", "web-01").replace("{incident}", INCIDENT)
    return filled.replace("{dag_id}", DAG).replace("{run_id:path}", RUN.replace("+", "%2B"))


def test_every_route_of_the_api_is_walked(app: FastAPI) -> None:
    assert {route.path for route in api_routes(app)} == {
        "/api/incidents",
        "/api/incidents/{incident}",
        "/api/leases",
        "/api/metrics",
        "/api/quarantine",
        "/api/rollouts",
        "/api/rollouts/{rollout}",
        "/api/rollouts/{rollout}/plan",
        "/api/rollouts/{rollout}/report",
        "/api/rollouts/{rollout}/targets/{target}",
        "/api/run/{dag_id}/{run_id:path}",
    }


def test_anonymous_is_refused_with_401_on_every_route(app: FastAPI) -> None:
    assert {route.path: client(app, None).get(address(route)).status_code for route in api_routes(app)} == {
        route.path: 401 for route in api_routes(app)
    }


def test_anonymous_learns_nothing_about_what_exists(app: FastAPI) -> None:
    assert client(app, None).get("/api/rollouts/no-such-rollout").status_code == 401


def test_reader_of_another_dag_is_refused_with_403(app: FastAPI) -> None:
    lists = ("/api/rollouts", "/api/leases", "/api/incidents", "/api/metrics", "/api/quarantine")
    guarded = [route for route in api_routes(app) if route.path not in lists]
    for route in guarded:
        answer = client(app, "bob").get(address(route))
        assert answer.status_code == 403, route.path
        assert "web-01" not in answer.text


def test_leases_name_only_rollouts_that_the_user_may_read(app: FastAPI, ledger: SqlLedger) -> None:
    claim = Claim(kind="domain", name="web az=a", limit=1)
    lease = ledger.acquire("w1", ROLLOUT, "web-01", [claim], ttl=600)
    assert isinstance(lease, Lease)
    assert isinstance(ledger.acquire("w1", "shopfront-20261124-220000-1", "shop-01", [claim], ttl=600), Busy)
    try:
        own = client(app, "alice").get("/api/leases").json()
        assert [(item["target"], item["owner"]) for item in own["held"]] == [("web-01", "w1")]
        assert own["waiting"] == []
        other = client(app, "bob").get("/api/leases")
        assert other.json()["held"] == []
        assert "web-01" not in other.text
        assert [item["target"] for item in other.json()["waiting"]] == ["shop-01"]
        assert "a rollout that you may not read" in other.json()["waiting"][0]["sentence"]
    finally:
        ledger.release(lease)


def test_quarantine_names_only_targets_of_rollouts_that_the_user_may_read(app: FastAPI, ledger: SqlLedger) -> None:
    until = (ledger.now() + timedelta(days=14)).isoformat()
    body = {"reason": "failed (no space) and was undone", "until": until, "evidence": None}
    key = "quarantined:web-01:9"
    ledger.append(NewEntry(chain=ROLLOUT, kind=EntryKind.QUARANTINED, key=key, target="web-01", body=body))
    try:
        (own,) = client(app, "alice").get("/api/quarantine").json()["quarantined"]
        assert (own["target"], own["rollout"], own["reason"]) == ("web-01", ROLLOUT, body["reason"])
        assert client(app, "bob").get("/api/quarantine").json()["quarantined"] == []
    finally:
        release(ledger, "web-01", "eva", "looked at", ledger.now())


def test_reader_of_the_dag_reads_everything(app: FastAPI) -> None:
    for route in api_routes(app):
        assert client(app, "alice").get(address(route)).status_code == 200, route.path


def test_an_incident_is_read_by_who_may_read_its_rollouts_logs(app: FastAPI) -> None:
    """F10: the list tells no more than the rollout; the evidence has output of steps."""
    (line,) = client(app, "carol").get("/api/incidents").json()["incidents"]
    assert (line["id"], line["locks"], line["released_by"]) == (INCIDENT, False, "eva")
    assert "evidence" not in line
    assert client(app, "carol").get(f"/api/incidents/{INCIDENT}").status_code == 403
    assert client(app, "bob").get("/api/incidents").json()["incidents"] == []
    (found,) = client(app, "alice").get(f"/api/incidents/{INCIDENT}").json()["evidence"]
    assert (found["target"], found["now"]) == ("web-01", {"answers": False})


def test_step_log_asks_for_access_to_logs(app: FastAPI) -> None:
    assert client(app, "carol").get(f"/api/rollouts/{ROLLOUT}").status_code == 200
    assert client(app, "carol").get(f"/api/rollouts/{ROLLOUT}/targets/web-01").status_code == 403


@pytest.mark.parametrize(
    ("user", "policies"),
    [("alice", ["web-os-security"]), ("bob", ["shopfront"]), ("erin", ["payments"]), ("nobody", [])],
)
def test_list_has_only_rollouts_of_readable_dags(app: FastAPI, user: str, policies: list[str]) -> None:
    lines = client(app, user).get("/api/rollouts").json()["rollouts"]
    assert [line["policy"] for line in lines] == policies


def test_a_readable_dag_in_the_path_does_not_open_anothers_rollout(app: FastAPI, ledger: SqlLedger) -> None:
    """The run of one DAG may work on another DAG's rollout: the rollout's own DAG decides."""
    body = {"rollout": ROLLOUT}
    ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.RUN_BEGAN, key=f"run:{OTHER}:crossed", body=body))
    assert client(app, "bob").get(f"/api/run/{OTHER}/crossed").status_code == 403


def test_emergency_is_read_by_readers_of_the_emergency_dag(app: FastAPI) -> None:
    assert client(app, "erin").get(f"/api/rollouts/{EMERGENCY}").status_code == 200
    assert client(app, "erin").get(f"/api/run/patch_emergency/{RUN}").status_code == 200
    assert client(app, "erin").get(f"/api/rollouts/{ROLLOUT}").status_code == 403
    assert client(app, "alice").get(f"/api/rollouts/{EMERGENCY}").status_code == 403


def test_nothing_changes_anything(app: FastAPI, ledger: SqlLedger) -> None:
    before = [head.model_dump() for head in ledger.heads()]
    for route in api_routes(app):
        assert route.methods == {"GET"}
        client(app, "alice").get(address(route))
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client(app, "alice").request(method, address(route)).status_code == 405
    assert [head.model_dump() for head in ledger.heads()] == before


def test_only_the_empty_shell_is_open_to_anybody(app: FastAPI) -> None:
    """Docs and schema are off, and everything that answers without a login is the same static page."""
    anybody = client(app, None)
    for path in ("/docs", "/redoc", "/openapi.json", "/", "/static/page.html", "/page", "/page/other"):
        assert anybody.get(path).status_code == 404, path
    open_paths = {route.path for route in app.routes} - {route.path for route in every_api_route(app)}  # type: ignore[attr-defined]
    assert open_paths == {"/page/overview", "/page/rollout/{rollout}", "/page/run/{dag_id}/{run_id:path}"}
    pages = {anybody.get(path).text for path in ("/page/overview", "/page/rollout/x", f"/page/run/{DAG}/{RUN}")}
    assert len(pages) == 1
    assert "web-01" not in pages.pop()


def test_page_may_load_only_itself_and_ask_only_its_own_server(app: FastAPI) -> None:
    answer = client(app, None).get("/page/overview")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text


def test_security_that_cannot_be_loaded_denies_everybody(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = builtins.__import__

    def failing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("airflow.api_fastapi"):
            raise ImportError("a later Airflow moved it")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", failing)
    with caplog.at_level(logging.ERROR):
        guard = airflow_guard()
    monkeypatch.undo()
    assert guard is DENY_ALL
    assert "a later Airflow moved it" in caplog.text
    app = create_app(lambda: ledger, guard)
    for route in api_routes(app):
        answer = client(app, "alice").get(address(route), headers={"Authorization": "Bearer x"})
        assert answer.status_code == 403, route.path
        assert "security could not be loaded" in answer.json()["detail"]


def test_no_ledger_is_said_without_saying_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> SqlLedger:
        raise LedgerUnavailable("cannot connect to postgresql://secret-host/ledger")

    app = create_app(gone, guard_for(lambda _user, _dag, _access: True))
    with caplog.at_level(logging.ERROR):
        answer = client(app, "alice").get("/api/rollouts")
    assert answer.status_code == 503
    assert "secret-host" not in answer.text
    assert "secret-host" in caplog.text


def test_ledger_that_comes_back_is_used_at_the_next_request(ledger: SqlLedger) -> None:
    answers: list[Any] = [LedgerUnavailable("gone"), ledger]

    def factory() -> SqlLedger:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    reader = client(create_app(factory, guard_for(allowed)), "alice")
    assert [reader.get("/api/rollouts").status_code for _ in range(3)] == [503, 200, 200]


def test_run_with_a_plus_and_colons_in_its_id_finds_its_rollout(app: FastAPI) -> None:
    document = client(app, "alice").get(f"/api/run/{DAG}/{RUN.replace('+', '%2B').replace(':', '%3A')}").json()
    assert document["rollout"]["id"] == ROLLOUT
    assert document["rollout"]["state"] == "held"


@pytest.mark.parametrize(("run", "said"), [("yielded", "leaves it to it"), ("never-seen", "no rollout yet")])
def test_run_without_a_rollout_says_why(app: FastAPI, run: str, said: str) -> None:
    document = client(app, "alice").get(f"/api/run/{DAG}/{run}").json()
    assert document["rollout"] is None
    assert said in document["sentence"]


def test_unknown_rollout_and_target_are_404(app: FastAPI) -> None:
    assert client(app, "alice").get("/api/rollouts/none").status_code == 404
    assert client(app, "alice").get(f"/api/rollouts/{ROLLOUT}/targets/none").status_code == 404


def test_unchanged_document_is_not_sent_twice(app: FastAPI) -> None:
    reader = client(app, "alice")
    first = reader.get(f"/api/rollouts/{ROLLOUT}")
    again = reader.get(f"/api/rollouts/{ROLLOUT}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "private" in first.headers["cache-control"]


def test_report_and_plan_are_those_of_the_ledger(app: FastAPI, ledger: SqlLedger) -> None:
    row = ledger.rollout(ROLLOUT)
    assert row is not None
    assert client(app, "alice").get(f"/api/rollouts/{ROLLOUT}/plan").json()["digest"] == row.plan_digest
    report = client(app, "alice").get(f"/api/rollouts/{ROLLOUT}/report").json()
    assert report["report"]["state"] == "held"
    assert "web-08" in report["markdown"]


def test_rollout_whose_plan_is_refused_is_shown_with_its_targets_and_what_it_waits_for(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Plan.frozen
    monkeypatch.setattr(Plan, "frozen", lambda _document, name: works({"unheard": 1}, name))
    alice = client(app, "alice")
    shown = alice.get(f"/api/rollouts/{ROLLOUT}")
    assert shown.status_code == 200
    assert len(shown.json()["targets"]) == 12
    assert alice.get(f"/api/rollouts/{ROLLOUT}/report").status_code == 200
    assert "none that this release reads" in alice.get(f"/api/rollouts/{ROLLOUT}/plan").text


def test_document_of_500_targets_stays_small(tmp_path: Path) -> None:
    opened, clock = open_story_ledger(tmp_path)
    story = held(opened, clock, 500)
    document = client(create_app(lambda: opened, guard_for(allowed)), "alice").get(f"/api/rollouts/{story.rollout}")
    assert len(document.json()["targets"]) == 500
    assert len(document.content) < 250_000
    assert len(gzip.compress(document.content)) < 25_000


def test_committed_page_is_built_from_the_committed_sources() -> None:
    """A forgotten ``make ui`` shows here, without Node: the page names the digest of its sources."""
    folder = Path(__file__).parents[2] / "plugins/patching_airflow/ui"
    sources = hashlib.sha256()
    for path in sorted((folder / "web/src").iterdir()):
        sources.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    assert f"Sources: {sources.hexdigest()} " in (folder / "static/page.html").read_text()


@pytest.mark.airflow
def test_guard_is_airflows_own_when_airflow_is_there() -> None:
    from airflow.api_fastapi.core_api.security import get_user

    guard = airflow_guard()
    assert guard.authenticate is get_user
    assert guard is not DENY_ALL
