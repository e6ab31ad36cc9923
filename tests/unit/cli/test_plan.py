"""``patching plan`` against an HTTP server that answers as Airflow and our API do: what is shown, and every refusal."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from patching.cli import following
from patching.cli import main as cli
from patching.plan.document import Plan
from patching.plan.freeze import freeze_plan
from unit.plan.made import NOW, candidate, policy, target

ROLLOUT = "web-20261124-140200-1"


def frozen(*names: str) -> Plan:
    chosen = [candidate(target(name)) for name in names]
    return freeze_plan(rollout=ROLLOUT, policy=policy(), now=NOW, candidates=chosen, exclusions=[])


class Airflow:
    """The answers of one Airflow; a test changes them, and sees what was asked."""

    def __init__(self) -> None:
        self.plan: Plan = frozen("web-1", "web-2")
        self.states = ["queued", "running", "success"]
        self.notes = [None, "looking at 2 targets", "2 to patch"]
        self.paused = False
        self.rollout: dict[str, str] | None = {"id": ROLLOUT}
        self.conf: dict[str, Any] = {}
        self.asked: list[str] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path == "/auth/token":
            right = body == {"username": "alice", "password": "secret"}
            return (201, {"access_token": "t"}) if right else (401, {"detail": "Invalid credentials"})
        if not path.startswith(("/api/v2/dags/patch__web", "/patching/api/")):
            return 404, {"detail": "The DAG was not found"}
        if path == "/api/v2/dags/patch__web":
            return 200, {"is_paused": self.paused}
        if method == "POST":
            self.conf = body["conf"]
            return 200, {"dag_run_id": "manual__2026-11-24T14:02:00+00:00"}
        return self._read(path)

    def _read(self, path: str) -> tuple[int, Any]:
        if path.startswith("/patching/api/run/patch__web/"):
            return 200, {"rollout": self.rollout, "sentence": "is planned; mode is plan"}
        if path == f"/patching/api/rollouts/{ROLLOUT}/plan":
            return 200, {"schema_version": 1, "digest": self.plan.digest, "plan": self.plan.model_dump(mode="json")}
        if path.endswith("/taskInstances"):
            return 200, {"task_instances": [{"task_id": "discover", "state": "running"}]}
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        note = self.notes.pop(0) if len(self.notes) > 1 else self.notes[0]
        return 200, {"state": state, "note": note}


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    made = Airflow()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, found = made.answer(self.command, self.path.partition("?")[0], json.loads(body) if body else None)
            sent = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = _serve  # noqa: N815 -- the names that http.server calls

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("PATCHING_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("PATCHING_USER", "alice")
    monkeypatch.setenv("PATCHING_PASSWORD", "secret")
    monkeypatch.delenv("PATCHING_TOKEN", raising=False)
    monkeypatch.setattr(following, "PAUSE", 0.01)
    yield made
    server.shutdown()
    server.server_close()


def test_plan_is_made_by_a_run_in_mode_plan_and_shown(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "web"]) == 0
    said = capsys.readouterr()
    assert airflow.conf == {"mode": "plan"}
    assert said.out.startswith(f"Plan {airflow.plan.digest[:12]} for web (policy ")
    assert said.out.rstrip().splitlines()[-1] == (
        "Plan: 2 to patch, 0 skipped, 0 up to date; 0 reboots; undo available for 2 of 2."
    )
    assert said.err.splitlines() == [
        "run manual__2026-11-24T14:02:00+00:00 of patch__web makes the plan",
        "discover is at work",
        "looking at 2 targets",
        "2 to patch",
        "is planned; mode is plan",
    ]


def test_exit_code_says_whether_anything_would_change(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "web", "--exit-code"]) == 3
    airflow.plan = frozen()
    assert cli.run(["plan", "web", "--exit-code"]) == 0
    assert "nothing would be changed." in capsys.readouterr().out


def test_json_is_one_versioned_document_that_is_the_plan(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "patch__web", "--json", "--limit-to", "web-1"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert airflow.conf == {"mode": "plan", "limit_to": ["web-1"]}
    assert (made["schema_version"], made["changes"], made["digest"]) == (1, 2, airflow.plan.digest)
    assert Plan.model_validate(made["plan"]) == airflow.plan


def test_policy_may_be_named_by_its_file(tmp_path: Path) -> None:
    body = policy("shop").model_dump(mode="json", by_alias=True, exclude_defaults=True)
    (tmp_path / "any.yaml").write_text(json.dumps({"apiVersion": "patching/v1alpha1", "kind": "PatchPolicy", **body}))
    assert following.policy_name(str(tmp_path / "any.yaml")) == "shop"
    assert following.policy_name("patch__web") == following.policy_name("web") == "web"


def test_failed_run_gives_its_sentence_and_exit_code_1(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    airflow.states, airflow.notes = ["failed"], ['unknown label "enw"; did you mean "env"?']
    airflow.rollout = None
    assert cli.run(["plan", "web"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert 'error: no plan of web was made: unknown label "enw"; did you mean "env"?' in said.err


REFUSED = [
    (["plan", "storage"], {}, 'Airflow has no DAG patch__storage: is "storage" the name of a policy'),
    (["plan", "web"], {"PATCHING_PASSWORD": "wrong"}, "POST /auth/token: 401 Invalid credentials"),
    (["plan", "web"], {"PATCHING_USER": ""}, "set PATCHING_USER and PATCHING_PASSWORD, or PATCHING_TOKEN"),
    (["plan", "web"], {"PATCHING_URL": "http://127.0.0.1:1"}, "is Airflow running there?"),
]


@pytest.mark.parametrize(("arguments", "environment", "message"), REFUSED, ids=["dag", "password", "nobody", "down"])
def test_refusals_say_what_to_do(
    airflow: Airflow,
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.run(arguments) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "secret" not in said
    assert not any("dagRuns" in line for line in airflow.asked)


def test_paused_dag_is_refused_instead_of_waiting_for_ever(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.paused = True
    assert cli.run(["plan", "web"]) == 1
    assert "patch__web is paused in Airflow" in capsys.readouterr().err


def test_run_that_takes_too_long_is_left_alone_and_named(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    airflow.states = ["running"]
    assert cli.run(["plan", "web", "--timeout", "1"]) == 1
    assert "is still running after 1 s; it goes on" in capsys.readouterr().err
