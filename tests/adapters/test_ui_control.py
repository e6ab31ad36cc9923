"""The API that changes a rollout (S8, F10): who may, who and why are in the ledger, and no other site leads here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.ledger.store import SqlLedger
from patching.rollout.states import RolloutState
from patching_airflow.ui.app import create_app
from patching_airflow.ui.security import DENY_ALL, Access, name_of
from rollout_page.serving import guard_for
from rollout_page.stories import Story, held, open_story_ledger

DAG = "patch__web-os-security"
ROLLOUT = "web-os-security-20261124-220000-1"
EMERGENCY = "payments-20261124-220000-1"
INCIDENT = "undo-web-os-security-20261124-220000-1"
KEPT = "web-05"
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
    body: dict[str, Any] = {"reason": "could not be undone", "until": None}
    opened.append(NewEntry(chain=ROLLOUT, kind=EntryKind.QUARANTINED, key="kept", target=KEPT, body=body))
    yield opened
    opened.close()


@pytest.fixture
def app(ledger: SqlLedger) -> FastAPI:
    return create_app(lambda: ledger, guard_for(lambda user, dag, access: (dag, access) in MAY.get(user, set())))


@pytest.fixture
def incident(ledger: SqlLedger) -> str:
    """An undo of the story's rollout that failed."""
    body = {"id": INCIDENT, "rollout": ROLLOUT, "policy": "web-os-security", "cause": "the undo failed on web-05"}
    ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.INCIDENT_OPENED, key="incident", body=body))
    return INCIDENT


def client(app: FastAPI, user: str | None) -> TestClient:
    return TestClient(app, headers={"x-user": user} if user else {})


def addresses(app: FastAPI) -> list[str]:
    routes = [route for route in app.routes if isinstance(route, APIRoute) and "POST" in route.methods]
    assert all(route.methods == {"POST"} for route in routes)
    filled = [route.path.replace("{rollout}", ROLLOUT).replace("{target}", KEPT) for route in routes]
    return [path.replace("{incident}", INCIDENT) for path in filled]


def asked(path: str) -> dict[str, str]:
    """Give the body that a route asks for."""
    return {**WHY, "target": "web-09"} if path.endswith("/skip") else WHY


def state(ledger: SqlLedger, rollout: str = ROLLOUT) -> RolloutState:
    row = ledger.rollout(rollout)
    assert row is not None
    return row.state


def test_every_changing_route_is_walked(app: FastAPI) -> None:
    names = ("hold", "resume", "promote", "abort", "undo", "skip", "retry")
    acts = [f"/api/rollouts/{ROLLOUT}/{act}" for act in names]
    released = [f"/api/targets/{KEPT}/release", f"/api/incidents/{INCIDENT}/release"]
    assert sorted(addresses(app)) == sorted([*acts, *released, "/api/stop-all"])


@pytest.mark.usefixtures("incident")
def test_nobody_without_the_right_changes_anything(app: FastAPI, ledger: SqlLedger) -> None:
    """Anonymous: 401, before anything else is looked at. A reader, or an editor of another DAG: 403."""
    before = ledger.heads()
    for path in addresses(app):
        for body in ({"json": WHY}, {"content": b"{broken"}, {"json": {}}):
            assert client(app, None).post(path, **body).status_code == 401, path  # type: ignore[arg-type]
        for user in ("vic", "olga", "nobody"):
            assert client(app, user).post(path, json=asked(path)).status_code == 403, (path, user)
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
        ({"json": {"reason": "x", "target": ["web-09"]}}, 422),
        ({"json": {"reason": "x", "now": "yes"}}, 422),
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


# Single targets, abort at once, incidents


def test_skip_and_retry_are_kept_with_the_login_and_the_reason(app: FastAPI, ledger: SqlLedger) -> None:
    eva, path = client(app, "eva"), f"/api/rollouts/{ROLLOUT}"
    answer = eva.post(f"{path}/skip", json={**WHY, "target": "web-09"})
    assert (answer.status_code, answer.json()["run"]) == (200, None), answer.text
    ended = ledger.entries(ROLLOUT, kinds=[EntryKind.TARGET_OUTCOME], target="web-09")[-1]
    assert (ended.actor, ended.body["outcome"], ended.body["reason"]) == (
        "eva",
        "skipped",
        f"skipped by eva: {WHY['reason']}",
    )
    assert eva.post(f"{path}/skip", json={**WHY, "target": "nobody"}).status_code == 404
    assert eva.post(f"{path}/skip", json={**WHY, "target": "web-01"}).status_code == 409
    assert eva.post(f"{path}/promote", json=WHY).status_code == 200
    answer = eva.post(f"{path}/retry", json=WHY)
    assert answer.json()["sentence"] == f"web-08 of {ROLLOUT} is tried again, from the step that failed"
    assert answer.json()["run"] == {"dag_id": DAG, "conf": {"reason": f"retry by eva: {WHY['reason']}"}}
    raised = ledger.entries(ROLLOUT, kinds=[EntryKind.GENERATION_RAISED])[-1]
    assert (raised.actor, raised.target) == ("eva", "web-08")
    assert ledger.verify() == []


def test_retry_that_leaves_the_rollout_held_names_no_run(app: FastAPI) -> None:
    eva, path = client(app, "eva"), f"/api/rollouts/{ROLLOUT}"
    eva.post(f"{path}/promote", json=WHY)
    eva.post(f"{path}/hold", json=WHY)
    answer = eva.post(f"{path}/retry", json={**WHY, "target": "web-08"})
    assert (answer.status_code, answer.json()["run"]) == (200, None)


def test_abort_at_once_is_said_in_the_ledger(app: FastAPI, ledger: SqlLedger) -> None:
    answer = client(app, "eva").post(f"/api/rollouts/{ROLLOUT}/abort", json={**WHY, "now": True})
    assert answer.json()["rollout"]["state"] == "aborted"
    (now,) = ledger.entries(ROLLOUT, kinds=[EntryKind.ABORTED_NOW])
    assert (now.actor, now.body["reason"]) == ("eva", f"eva: {WHY['reason']}")


def test_release_of_a_target_is_for_who_may_change_the_rollout_that_keeps_it(app: FastAPI, ledger: SqlLedger) -> None:
    path = f"/api/targets/{KEPT}/release"
    answer = client(app, "eva").post(path, json=WHY)
    assert "has left quarantine" in answer.json()["sentence"]
    assert ledger.entries(ROLLOUT, kinds=[EntryKind.RELEASED])[-1].actor == "eva"
    assert client(app, "eva").post(path, json=WHY).status_code == 404


def test_an_incident_locks_until_its_release(app: FastAPI, ledger: SqlLedger, incident: str) -> None:
    eva = client(app, "eva")
    answer = eva.post(f"/api/rollouts/{ROLLOUT}/promote", json=WHY)
    assert (answer.status_code, incident in answer.json()["detail"]) == (409, True)
    view = eva.get(f"/api/rollouts/{ROLLOUT}").json()
    assert (view["incident"]["id"], view["acts"][0]["act"]) == (incident, "release-incident")
    answer = eva.post(f"/api/incidents/{incident}/release", json=WHY)
    assert (answer.status_code, answer.json()["by"]) == (200, "eva")
    assert eva.post(f"/api/incidents/{incident}/release", json=WHY).status_code == 409
    assert eva.post("/api/incidents/nobody/release", json=WHY).status_code == 404
    assert eva.post(f"/api/rollouts/{ROLLOUT}/promote", json=WHY).status_code == 200
    entry = ledger.entries(CONTROL, kinds=[EntryKind.INCIDENT_RELEASED])[-1]
    assert (entry.actor, entry.body["reason"]) == ("eva", f"eva: {WHY['reason']}")


def test_the_page_is_given_only_the_acts_that_its_reader_may_do(app: FastAPI) -> None:
    path = f"/api/rollouts/{ROLLOUT}"
    eva, vic = client(app, "eva").get(path).json(), client(app, "vic").get(path).json()
    assert [act["act"] for act in eva["acts"]] == ["promote", "undo", "abort"]
    assert all(act["says"] and act["label"] for act in eva["acts"])
    assert set(eva["target_acts"]) == {"skip", "retry", "release"}
    assert (vic["acts"], vic["target_acts"]) == ([], {})
    assert [act["act"] for act in client(app, "root").get("/api/rollouts").json()["acts"]] == ["stop-all"]
    assert client(app, "eva").get("/api/rollouts").json()["acts"] == []


def test_every_act_that_the_page_is_given_is_one_that_the_api_does(app: FastAPI) -> None:
    acts = client(app, "eva").get(f"/api/rollouts/{ROLLOUT}").json()["acts"]
    (promote,) = [act for act in acts if act["act"] == "promote"]
    answer = client(app, "eva").post(f"/api/{promote['path']}", json={**WHY, **promote["body"]})
    assert answer.status_code == 200, answer.text
    assert {f"/api/{act['path']}" for act in acts} <= set(addresses(app))


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
