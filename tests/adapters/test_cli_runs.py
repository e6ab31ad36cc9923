"""``patching plan`` and ``patching run`` over HTTP (S3, I2): the engine and our API are real, Airflow's part is small.

The stand-in for Airflow's REST API does in ``POST dagRuns`` what the tasks of a run do, on simulated hosts, and gives
the run its colour from the engine. That the real Airflow speaks so is proven by tests/e2e.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request

from patching.cli import following
from patching.cli import main as cli
from patching.cli.run import exit_code
from patching.errors import PatchingError
from patching.plan.document import Plan
from patching.rollout.closing import close_run
from patching_airflow.ui.app import create_app
from rollout_page.serving import guard_for, serving
from unit.rollout.fleet import Fleet

pytestmark = pytest.mark.airflow
BASE = "/api/v2/dags/{dag_id}"


@dataclass
class Airflow:
    """Runs of one policy on one simulated fleet."""

    fleet: Fleet
    paused: bool = False
    logins: list[Any] = field(default_factory=list)
    conf: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    never_ends: bool = False
    everything: bool = False
    """Whether alice may change all DAGs."""
    asked: int = 0

    async def begin(self, conf: dict[str, Any]) -> str:
        run_id = f"manual__2026-11-24T14:02:0{len(self.runs)}+00:00"
        self.conf.append(conf)
        mode = conf.get("mode", "apply")
        self.fleet.new_run(run_id, mode=mode, limit_to=tuple(conf.get("limit_to", ())), reason=conf.get("reason", ""))
        try:
            note = (await self.work(mode)).sentence
            good = close_run(self.fleet.site, "patch__web", run_id).good
        except PatchingError as error:
            good, note = False, str(error)
        self.runs[run_id] = {"dag_run_id": run_id, "state": "success" if good else "failed", "note": note}
        return run_id

    async def work(self, mode: str) -> Any:
        if mode == "apply":
            return await self.fleet.whole()
        await self.fleet.plan()
        return close_run(self.fleet.site, "patch__web", self.fleet.request.run_id)

    def run(self, run_id: str) -> dict[str, Any]:
        """Answer "running" at first, as a real run does."""
        self.asked += 1
        if self.asked == 1 or self.never_ends:
            return {**self.runs[run_id], "state": "running", "note": "looking at 6 targets"}
        return self.runs[run_id]


def app_of(airflow: Airflow) -> FastAPI:
    app = FastAPI()
    guard = guard_for(
        lambda user, dag_id, _access: (
            user == "alice" and (dag_id == "patch__web" or (airflow.everything and not dag_id))
        )
    )
    app.mount("/patching", create_app(lambda: airflow.fleet.ledger, guard))

    def known(dag_id: str) -> None:
        if dag_id != "patch__web":
            raise HTTPException(404, "DAG not found")

    @app.post("/auth/token")
    async def token(request: Request) -> dict[str, str]:
        body = await request.json()
        airflow.logins.append(body)
        if body != {"username": "alice", "password": "wonder"}:
            raise HTTPException(401, "Invalid credentials")
        return {"access_token": "t"}

    @app.get(BASE)
    def dag(dag_id: str) -> dict[str, Any]:
        known(dag_id)
        return {"dag_id": dag_id, "is_paused": airflow.paused}

    @app.post(BASE + "/dagRuns")
    async def trigger(dag_id: str, request: Request) -> dict[str, Any]:
        known(dag_id)
        return {"dag_run_id": await airflow.begin((await request.json())["conf"])}

    @app.get(BASE + "/dagRuns/{run_id}")
    def run(dag_id: str, run_id: str) -> dict[str, Any]:
        return airflow.run(run_id)

    @app.get(BASE + "/dagRuns/{run_id}/taskInstances")
    def tasks(dag_id: str, run_id: str) -> dict[str, Any]:
        return {"task_instances": [{"task_id": "discover.targets", "state": "running"}]}

    return app


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    made = Airflow(Fleet(tmp_path))
    monkeypatch.setattr(following, "PAUSE", 0.01)
    for name in ("PATCHING_TOKEN", "PATCHING_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATCHING_USER", "alice")
    monkeypatch.setenv("PATCHING_PASSWORD", "wonder")
    app = app_of(made)
    app.add_middleware(_AsAlice)
    with serving(app) as url:
        monkeypatch.setenv("PATCHING_URL", url)
        yield made
    made.fleet.ledger.close()


class _AsAlice:
    """Turns the bearer token into the header that the guard of the tests reads."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"authorization", b"Bearer t") in scope["headers"]:
            scope["headers"] = [*scope["headers"], (b"x-user", b"alice")]
        await self.app(scope, receive, send)


def test_plan_shows_the_plan_on_stdout_and_progress_on_stderr(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["plan", "web", "--reason", "before the meeting"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Plan ")
    assert said.out.rstrip().splitlines()[-1].startswith("Plan: 6 to patch, 0 skipped, 0 up to date")
    assert "looking at 6 targets\n" in said.err
    assert said.err.count("discover.targets is at work\n") == 1
    assert airflow.conf == [{"mode": "plan", "reason": "before the meeting"}]
    assert set(airflow.fleet.versions().values()) == {"1.0"}


def test_plan_json_is_one_document_with_the_plan_that_was_frozen(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["plan", "web", "--json", "--exit-code"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["changes"] == 6
    assert Plan.model_validate(document["plan"]).digest == document["digest"] == airflow.fleet.frozen.digest


def test_plan_without_a_change_exits_0_even_with_exit_code(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["run", "web"]) == 0
    assert cli.run(["plan", "web", "--exit-code"]) == 0
    assert "0 to patch, 0 skipped, 6 up to date" in capsys.readouterr().out


def test_plan_limited_to_a_target_that_is_misspelt_exits_1_with_the_near_name(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["plan", "web", "--limit-to", "wbe-01"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert 'did you mean "web-01"?' in said.err


def test_plan_takes_the_name_from_a_policy_file_or_a_dag_id(
    airflow: Airflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from patching.cli.rule_examples import whole_file

    (tmp_path / "file.yaml").write_text(whole_file("mode: plan"))
    assert cli.run(["plan", "patch__web"]) == 0
    assert cli.run(["plan", str(tmp_path / "file.yaml")]) == 0
    assert [run["state"] for run in airflow.runs.values()] == ["success", "success"]
    (tmp_path / "broken.yaml").write_text(whole_file("mode: paln"))
    assert cli.run(["plan", str(tmp_path / "broken.yaml")]) == 1
    assert '"paln" is not allowed' in capsys.readouterr().err
    assert len(airflow.runs) == 2


@pytest.mark.parametrize("command", ["plan", "run"])
def test_paused_policy_is_refused_before_anything_is_triggered(
    airflow: Airflow, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.paused = True
    assert cli.run([command, "web"]) == 1
    assert "patch__web is paused in Airflow" in capsys.readouterr().err
    assert airflow.conf == []


@pytest.mark.parametrize("command", ["plan", "run"])
def test_unknown_policy_and_wrong_password_exit_1_and_say_what_to_do(
    airflow: Airflow, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([command, "wbe"]) == 1
    assert 'is "wbe" the name of a policy' in capsys.readouterr().err
    monkeypatch.setenv("PATCHING_PASSWORD", "wrong-secret")
    assert cli.run([command, "web"]) == 1
    told = capsys.readouterr().err
    assert "401" in told
    assert "wrong-secret" not in told


def test_url_option_beats_the_environment(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    address = os.environ["PATCHING_URL"]
    monkeypatch.setenv("PATCHING_URL", "http://127.0.0.1:9")
    assert cli.run(["plan", "web"]) == 1
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert cli.run(["plan", "web", "--url", address]) == 0


def test_run_patches_every_host_and_exits_0(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", "web", "--reason", "security"]) == 0
    said = capsys.readouterr()
    assert "Completed: 6 of 6 applied" in said.out
    assert set(airflow.fleet.versions().values()) == {"1.1"}
    assert airflow.conf == [{"mode": "apply", "reason": "security"}]


def test_run_with_a_bad_canary_exits_1_and_says_that_it_is_undone(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.fleet.metrics.errors = dict.fromkeys(airflow.fleet.names, 0.0)

    class Bad(dict[str, float]):
        def get(self, name: str, default: float = 0.0) -> float:  # type: ignore[override]
            changed = airflow.fleet.hosts.state(name)["installed"]["shop"] != "1.0"
            return 0.4 if changed else default

    airflow.fleet.metrics.errors = Bad()
    code = cli.run(["run", "web", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["view"]["rollout"]["state"] == "undone"
    assert code == document["exit_code"] == 1
    assert set(airflow.fleet.versions().values()) == {"1.0"}


def test_run_whose_metrics_are_silent_is_held_and_exits_3(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    airflow.fleet.metrics.silent = set(airflow.fleet.names)
    assert cli.run(["run", "web"]) == 3
    assert "HELD" in capsys.readouterr().out


def test_run_in_mode_plan_changes_nothing_and_limits_reach_the_engine(
    airflow: Airflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["run", "web", "--mode", "plan", "--limit-to", "web-01", "--limit-to", "web-02"]) == 0
    assert airflow.conf == [{"mode": "plan", "limit_to": ["web-01", "web-02"]}]
    assert sorted(item.target.name for item in airflow.fleet.frozen.targets) == ["web-01", "web-02"]
    assert set(airflow.fleet.versions().values()) == {"1.0"}


def test_run_without_waiting_prints_the_run_and_exits_0(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", "web", "--no-wait"]) == 0
    assert capsys.readouterr().out.strip() in airflow.runs


def test_run_that_outlasts_the_timeout_exits_3_because_it_goes_on(
    airflow: Airflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow.never_ends = True
    assert cli.run(["run", "web", "--timeout", "1"]) == 3
    assert "it goes on" in capsys.readouterr().err


def test_unknown_mode_is_wrong_use(airflow: Airflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", "web", "--mode", "aply"]) == 2
    assert airflow.conf == []


@pytest.mark.parametrize(
    ("run_state", "state", "code"),
    [
        ("success", "completed", 0),
        ("success", "superseded", 0),
        ("success", "planned", 0),
        ("success", "waiting", 3),
        ("success", "awaiting_approval", 0),
        ("failed", "awaiting_approval", 3),
        ("failed", "held", 3),
        ("failed", "running", 3),
        ("failed", "completed", 1),
        ("failed", "undone", 1),
        ("failed", "undoing", 1),
        ("failed", "aborted", 1),
        ("failed", "expired", 1),
        ("running", "running", 3),
    ],
)
def test_exit_code_of_every_end(run_state: str, state: str, code: int) -> None:
    assert exit_code(run_state, {"state": state, "plan_digest": "d"}) == code


def test_exit_code_without_a_rollout_or_without_a_plan() -> None:
    assert exit_code("success", None) == 3
    assert exit_code("failed", None) == 1
    assert exit_code("failed", {"state": "planned", "plan_digest": None}) == 1
