"""The API that changes a rollout (S8): who may, who and why are in the ledger, and no other site leads here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from patching.ledger.entry import CONTROL, EntryKind
from patching.ledger.store import SqlLedger
from patching.rollout.states import RolloutState
from patching_airflow.ui.app import create_app
from patching_airflow.ui.security import DENY_ALL, Access, name_of
from rollout_page.serving import guard_for
from rollout_page.stories import Story, held, open_story_ledger

DAG = "patch__web-os-security"
ROLLOUT = "web-os-security-20261124-220000-1"
EMERGENCY = "payments-20261124-220000-1"
WHY = {"reason": "maintenance of the power feed"}

# eva may edit the runs of one DAG, vic may only read it, erin has emergencies, root may change every DAG.
MAY: dict[str, set[tuple[str | None, Access]]] = {
    "eva": {(DAG, Access.ROLLOUT), (DAG, Access.CONTROL)},
    "vic": {(DAG, Access.ROLLOUT), (DAG, Access.LOG)},
    "olga": {("patch__payments", Access.CONTROL), (None, Access.ROLLOUT)},
    "erin": {("patch_emergency", Access.CONTROL)},
    "root": {(None, Access.EVERYTHING)},
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    opened, clock = open_story_ledger(tmp_path)
    held(opened, clock, 12)
    Story(opened, clock, size=12, name="payments", emergency=True).opened()
    yield opened
    opened.close()


@pytest.fixture
def app(ledger: SqlLedger) -> FastAPI:
    return create_app(lambda: ledger, guard_for(lambda user, dag, access: (dag, access) in MAY.get(user, set())))


def client(app: FastAPI, user: str | None) -> TestClient:
    return TestClient(app, headers={"x-user": user} if user else {})


def addresses(app: FastAPI) -> list[str]:
    routes = [route for route in app.routes if isinstance(route, APIRoute) and "POST" in route.methods]
    assert all(route.methods == {"POST"} for route in routes)
    return [route.path.replace("{rollout}", ROLLOUT) for route in routes]


def state(ledger: SqlLedger, rollout: str = ROLLOUT) -> RolloutState:
    row = ledger.rollout(rollout)
    assert row is not None
    return row.state


def test_every_changing_route_is_walked(app: FastAPI) -> None:
    acts = [f"/api/rollouts/{ROLLOUT}/{act}" for act in ("hold", "resume", "promote", "abort", "undo")]
    assert sorted(addresses(app)) == sorted([*acts, "/api/stop-all"])


def test_nobody_without_the_right_changes_anything(app: FastAPI, ledger: SqlLedger) -> None:
    """Anonymous: 401, before anything else is looked at. A reader, or an editor of another DAG: 403."""
    before = ledger.heads()
    for path in addresses(app):
        for body in ({"json": WHY}, {"content": b"{broken"}, {"json": {}}):
            assert client(app, None).post(path, **body).status_code == 401, path  # type: ignore[arg-type]
        for user in ("vic", "olga", "nobody"):
            assert client(app, user).post(path, json=WHY).status_code == 403, (path, user)
    assert client(app, "eva").post("/api/stop-all", json=WHY).status_code == 403
    assert client(app, "root").post(f"/api/rollouts/{ROLLOUT}/abort", json=WHY).status_code == 403
    assert ledger.heads() == before


def test_reading_methods_change_nothing(app: FastAPI, ledger: SqlLedger) -> None:
    before = ledger.heads()
    for path in addresses(app):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"):
            assert client(app, "eva").request(method, path).status_code == 405, (method, path)
    assert ledger.heads() == before


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": WHY}, 415),
        ({"content": b'{"reason": "x"}', "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b'{"reason": "x"}'}, 415),
        ({"content": b"{broken", "headers": {"content-type": "application/json"}}, 422),
        ({"content": b"[" * 5000, "headers": {"content-type": "application/json"}}, 422),
        ({"json": {}}, 422),
        ({"json": ["x"]}, 422),
        ({"json": {"reason": "   "}}, 422),
        ({"json": {"reason": 7}}, 422),
        ({"json": {"reason": "x" * 401}}, 422),
        ({"json": {"reason": "x", "actor": "somebody else"}}, 422),
        ({"json": {"reason": "x" * 20_000}}, 413),
        ({"json": WHY, "headers": {"sec-fetch-site": "cross-site"}}, 403),
        ({"json": WHY, "headers": {"sec-fetch-site": "same-site"}}, 403),
    ],
)
def test_what_is_no_clear_request_of_this_site_is_refused(
    app: FastAPI, ledger: SqlLedger, sent: dict[str, Any], status: int
) -> None:
    before = ledger.heads()
    for path in addresses(app):
        user = "root" if path.endswith("stop-all") else "eva"
        assert client(app, user).post(path, **sent).status_code == status, path
    assert ledger.heads() == before


def test_promote_is_kept_with_the_login_and_the_reason_and_names_the_run_to_trigger(
    app: FastAPI, ledger: SqlLedger
) -> None:
    answer = client(app, "eva").post(f"/api/rollouts/{ROLLOUT}/promote", json={**WHY, "wave": 2})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert (document["done"], document["by"], document["rollout"]["state"]) == ("promote", "eva", "waiting")
    assert document["run"] == {"dag_id": DAG, "conf": {"reason": f"promote by eva: {WHY['reason']}"}}
    verdict = ledger.entries(ROLLOUT, kinds=[EntryKind.VERDICT])[-1]
    assert (verdict.actor, verdict.body["by"], verdict.body["verdict"]) == ("eva", "eva", "promote")
    move = ledger.entries(ROLLOUT, kinds=[EntryKind.TRANSITION])[-1]
    assert (move.actor, move.body["reason"]) == ("eva", f"wave 2 was promoted by eva: {WHY['reason']}")
    assert ledger.verify() == []


def test_hold_after_promote_then_undo(app: FastAPI, ledger: SqlLedger) -> None:
    eva = client(app, "eva")
    for act, expected in (("promote", "waiting"), ("hold", "held"), ("resume", "waiting"), ("abort", "aborted")):
        answer = eva.post(f"/api/rollouts/{ROLLOUT}/{act}", json=WHY)
        assert (answer.status_code, state(ledger)) == (200, expected), answer.text
    answer = eva.post(f"/api/rollouts/{ROLLOUT}/undo", json=WHY)
    assert (answer.json()["rollout"]["state"], answer.json()["run"]["dag_id"]) == ("undoing", DAG)


def test_what_the_table_does_not_allow_is_409_in_words(app: FastAPI, ledger: SqlLedger) -> None:
    before = ledger.heads()
    answer = client(app, "eva").post(f"/api/rollouts/{ROLLOUT}/hold", json=WHY)
    assert answer.status_code == 409
    assert "waiting (a person resumed or promoted it)" in answer.json()["detail"]
    answer = client(app, "eva").post(f"/api/rollouts/{ROLLOUT}/resume", json=WHY)
    assert (answer.status_code, "Promote the wave" in answer.json()["detail"]) == (409, True)
    answer = client(app, "eva").post(f"/api/rollouts/{ROLLOUT}/promote", json={**WHY, "wave": 3})
    assert (answer.status_code, "is wave 2, not 3" in answer.json()["detail"]) == (409, True)
    assert ledger.heads() == before


def test_unknown_rollout_is_404(app: FastAPI) -> None:
    assert client(app, "eva").post("/api/rollouts/none/hold", json=WHY).status_code == 404


def test_an_emergency_is_stopped_by_either_right_and_goes_on_only_by_its_own(app: FastAPI, ledger: SqlLedger) -> None:
    path = f"/api/rollouts/{EMERGENCY}"
    for act in ("resume", "promote", "undo"):
        assert client(app, "olga").post(f"{path}/{act}", json=WHY).status_code == 403, act
        assert client(app, "erin").post(f"{path}/{act}", json=WHY).status_code == 409, act
    assert client(app, "olga").post(f"{path}/abort", json=WHY).status_code == 200
    answer = client(app, "erin").post(f"{path}/undo", json=WHY)
    run = answer.json()["run"]
    assert (run["dag_id"], run["conf"]["policy"]) == ("patch_emergency", "payments")
    assert state(ledger, EMERGENCY) is RolloutState.UNDOING


def test_stop_all_is_turned_on_and_off_with_who_and_why(app: FastAPI, ledger: SqlLedger) -> None:
    root = client(app, "root")
    assert root.post("/api/stop-all", json=WHY).json()["stop_switch"] == f"root: {WHY['reason']}"
    assert root.post("/api/stop-all", json={**WHY, "on": False}).json()["stop_switch"] is None
    assert root.post("/api/stop-all", json={**WHY, "on": False}).status_code == 409
    entries = ledger.entries(CONTROL, kinds=[EntryKind.STOP_SWITCH])
    assert [(entry.actor, entry.body["on"]) for entry in entries] == [("root", True), ("root", False)]


def test_security_that_cannot_be_loaded_denies_every_change(ledger: SqlLedger) -> None:
    app = create_app(lambda: ledger, DENY_ALL)
    before = ledger.heads()
    for path in addresses(app):
        assert client(app, "eva").post(path, json=WHY).status_code == 403
    assert ledger.heads() == before


@pytest.mark.parametrize(("identity", "name", "said"), [("eva", "eva", "eva"), ("7", "eva", "eva (id 7)")])
def test_a_person_is_named_by_the_login(identity: str, name: str, said: str) -> None:
    class User:
        def get_id(self) -> str:
            return identity

        def get_name(self) -> str:
            return name

    assert name_of(User()) == said


@pytest.mark.airflow
def test_stop_all_asks_airflow_for_all_dags_whatever_the_query_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own check takes a DAG id from the query where it is given none; ours must not."""
    from airflow.api_fastapi import app as airflow_app
    from fastapi import HTTPException, Request

    from patching_airflow.ui.security import airflow_guard

    asked: list[tuple[str, Any, Any]] = []

    class Manager:
        def is_authorized_dag(self, *, method: str, details: Any, user: Any, access_entity: Any = None) -> bool:
            asked.append((method, access_entity, details.id))
            return details.id is not None

    monkeypatch.setattr(airflow_app, "get_auth_manager", Manager)
    guard = airflow_guard()
    assert guard is not DENY_ALL
    request = Request({"type": "http", "query_string": f"dag_id={DAG}".encode(), "headers": [], "path_params": {}})
    assert not guard.may_all(request, object())
    assert asked == [("PUT", None, None)]
    with pytest.raises(HTTPException):
        guard.authorise(request, object(), None, Access.CONTROL)
