"""One lab of real hosts and one real Airflow for the whole test run; every test works on hosts of its own."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from demo.stage import USERS, Stage
from e2e.shop import Shop, open_shop
from lab import Lab
from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching.ledger.store import open_ledger
from patching_airflow.local import LocalAirflow

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "tests" / "demo" / "policies" / "shopfront-security.yaml"
SETTLED = 4.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a rollout through Airflow the time that it may take, its lab and its Airflow included."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(900))


def free_port() -> int:
    """Find a port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Run:
    """One DAG run of one policy, seen from outside: REST, the ledger, and the hosts themselves."""

    world: World
    dag_id: str
    run_id: str

    def state(self) -> str:
        return str(self.world.admin.run(self.dag_id, self.run_id)["state"])

    def view(self) -> dict[str, Any]:
        return dict(self.world.admin.get(f"/patching/api/run/{self.dag_id}/{self.run_id}"))

    def note(self) -> str:
        return str(self.world.admin.run(self.dag_id, self.run_id).get("note") or "")

    def tasks(self) -> dict[str, str | None]:
        return {item["task_id"]: item["state"] for item in self.world.admin.task_instances(self.dag_id, self.run_id)}

    def until(self, what: str, true: Callable[[], Any], within: float) -> Any:
        """Wait for something; on failure the run's tasks and its view say where it stood."""
        deadline = time.monotonic() + within
        while True:
            try:
                found = true()
            except AirflowApiError as error:
                found = None
                if not error.retryable:
                    raise
            if found:
                return found
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {within:.0f} s; {self.tasks()}; {self.view().get('headline')}")
            time.sleep(0.3)

    def task_is(self, task: str, *states: str, within: float = 240) -> str:
        return str(self.until(f"{task} is {states}", lambda: self._in(task, states), within))

    def _in(self, task: str, states: tuple[str, ...]) -> str | None:
        found = self.tasks().get(task)
        return found if found in states else None

    def ends(self, within: float = 400) -> str:
        return str(self.until("the run ends", lambda: self.state() in ("success", "failed") and self.state(), within))

    def mark(self, task: str, state: str) -> None:
        """Mark a task, again where Airflow's database was busy for too long, as a person would."""
        admin = self.world.admin
        self.until(f"{task} is marked", lambda: [admin.set_task_state(self.dag_id, self.run_id, task, state)], 60)

    def mark_run(self, state: str) -> None:
        """Mark the whole run, as a person does in the UI: Airflow then skips its ``report``, too."""
        path, body = f"/{quote(self.run_id)}", {"state": state}
        self.until(f"the run is marked {state}", lambda: [self.world.ask("PATCH", self.dag_id, path, json=body)], 60)

    def delete(self) -> None:
        path = f"/{quote(self.run_id)}"
        self.until("the run is deleted", lambda: [self.world.ask("DELETE", self.dag_id, path)], 60)

    def clear(self, *tasks: str) -> None:
        self.world.admin.clear(self.dag_id, self.run_id, list(tasks))

    def answer(self, name: str, task: str, option: str = "Approve") -> None:
        """Let a person answer, once the question has stood for a moment."""
        self.task_is(task, "awaiting_input")
        time.sleep(SETTLED)  # Airflow loses an answer that comes in the first second after the question
        self.world.people[name].answer(self.dag_id, self.run_id, task, option, "seen")


class World:
    """The lab, its policies, and an Airflow that carries them out."""

    def __init__(self, lab: Lab, folder: Path, ledger_url: str | None = None, **settings: str) -> None:
        self.lab = lab
        self.numbers = itertools.count(1)
        self.stage = Stage.make(folder, lab, ledger_url)
        self.settings: dict[str, str] = {**self.stage.settings(), "AIRFLOW__PATCHING__LEASE_TTL": "6", **settings}
        self.airflow = self.make_airflow(folder / "airflow")

    def make_airflow(self, home: Path) -> LocalAirflow:
        return LocalAirflow(home, ROOT / "dags", USERS, self.settings, port=free_port())

    def start(self) -> None:
        self.airflow.start()
        passwords = self.airflow.passwords
        self.admin = AirflowApi(self.airflow.url, user="admin", password=passwords["admin"])
        self.people = {
            name: AirflowApi(self.airflow.url, user=name, password=passwords[name])
            for name in ("alice", "bob", "carol")
        }
        self.ledger = open_ledger(self.stage.ledger_url)

    def policy(self, name: str, hosts: list[str], *edits: tuple[str, str]) -> Path:
        """Write a policy for some hosts: no approval, canary of one, short soaks; ``edits`` replace texts of it."""
        text = TEMPLATE.read_text().replace("name: shopfront-security", f"name: {name}")
        self.inventory(name, hosts)
        for old, new in (
            ("inventory: lab", f"inventory: {name}"),
            ("approval: {required: 2, approvers: [alice, bob]}", "approval: {required: 0}"),
            ("{canary: {count: 1, per: az}, soak: 15s}", "{canary: {count: 1}, soak: 8s}"),
            ("      - {size: 50%, soak: 8s}\n", ""),
            ("{size: 100%, soak: 5s}", "{size: 100%, soak: 7s}"),
            ("maxUnavailable: 50%", "maxUnavailable: 100%"),
            *edits,
        ):
            assert old in text, f"the template has no {old!r}"
            text = text.replace(old, new)
        path = self.stage.policies / f"{name}.yaml"
        path.write_text(text)
        return path

    def inventory(self, name: str, hosts: list[str], **changes: Any) -> None:
        """Write an inventory with some of the lab's hosts; ``changes`` replace variables of every host."""
        whole = json.loads(Path(self.lab.about["inventory"]).read_text())
        variables = {host: {**whole["_meta"]["hostvars"][host], **changes} for host in hosts}
        document = {"_meta": {"hostvars": variables}, "web": {"hosts": hosts}}
        (self.stage.policies / "inventories" / f"{name}.json").write_text(json.dumps(document))

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> Run:
        """Trigger a DAG as soon as Airflow has parsed it; its own run id makes a repetition harmless.

        An Airflow on SQLite answers 500 where its database is busy for too long; a person would press the button again.
        """
        run_id = f"end-to-end__{next(self.numbers)}"
        deadline = time.monotonic() + 120
        while True:
            try:
                return Run(self, dag_id, self.admin.trigger(dag_id, conf, run_id))
            except AirflowApiError as error:
                if error.status == 409:
                    return Run(self, dag_id, run_id)
                if not (error.status == 404 or error.retryable) or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def ask(self, method: str, dag_id: str, path: str = "", **more: Any) -> Any:
        """Ask Airflow for what only the tests do with the runs of a DAG."""
        return self.admin._ask(method, f"/api/v2/dags/{dag_id}/dagRuns{path}", **more)

    def scheduled(self, dag_id: str, within: float = 120) -> Run:
        """Wait for the run that Airflow begins by itself in an open window."""
        deadline = time.monotonic() + within
        while not (found := self.runs(dag_id, "scheduled__")):
            assert time.monotonic() < deadline, f"Airflow began no run of {dag_id} within {within:.0f} s"
            time.sleep(0.5)
        return found[0]

    def runs(self, dag_id: str, kind: str) -> list[Run]:
        """Give the runs of a DAG whose ids begin in one way; none while Airflow does not know the DAG."""
        try:
            found = self.ask("GET", dag_id)["dag_runs"]
        except AirflowApiError as error:
            if not (error.status == 404 or error.retryable):
                raise
            return []
        return [Run(self, dag_id, item["dag_run_id"]) for item in found if item["dag_run_id"].startswith(kind)]

    def markers(self, host: str) -> list[str]:
        """Give the step ids whose payload really began on a host, one for every time."""
        told = self.lab.run(host, ["sh", "-c", "cat /var/lib/patching/markers.log 2>/dev/null || true"]).stdout
        return [line.split()[0] for line in told.splitlines() if line.strip()]

    def twice(self, hosts: list[str]) -> list[str]:
        marks = [mark for host in hosts for mark in self.markers(host)]
        return [mark for mark in set(marks) if marks.count(mark) > 1]

    def versions(self, hosts: list[str]) -> dict[str, str]:
        return {host: self.lab.versions(host)["shopfront"] for host in hosts}


@pytest.fixture(scope="session")
def shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """What the shop itself tells of the lab's hosts."""
    with open_shop(tmp_path_factory.mktemp("shop"), [host.name for host in lab.hosts]) as running:
        yield running


@pytest.fixture(scope="session")
def world(lab: Lab, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world of the end-to-end tests, with the good release published."""
    lab.repository.replace({})
    lab.restore()
    made = World(lab, tmp_path_factory.mktemp("world"), **shop.connections())
    lab.publish("v2")
    made.stage.sync_advisories()
    try:
        made.start()
        yield made
    finally:
        made.airflow.stop()
