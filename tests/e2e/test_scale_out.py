"""The topology of docker/compose.yaml, natively: Celery over Redis, PostgreSQL for Airflow and ledger (I2, I10).

Settings are read from the compose file, the ledger's database is made by its script; only addresses are replaced. One
rollout of a good release that needs a reboot passes on it; what is asserted is what hosts and databases show.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shlex
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.stage import USERS
from e2e.conftest import ROOT, Run, World, free_port
from lab import Lab
from patching_airflow.local import CELERY_COMPONENTS, LocalAirflow
from servers.orphans import Left, adopting_orphans
from servers.postgres import PostgresServer, postgres_server
from servers.redis import RedisServer, redis_server

pytest_plugins = ["lab.fixtures"]
pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.airflow, pytest.mark.postgres]

HOSTS = ["web-01", "web-02", "web-03"]
WITH_REBOOT = "1.0.0-1+deb12u3"
# Users, their passwords and the policies are the local Airflow's and the stage's own.
OWN = {
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__PATCHING__POLICIES_DIR",
}


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text()))


@dataclass(frozen=True)
class Servers:
    """The databases and the broker, set up as the compose file sets them up."""

    postgres: PostgresServer
    redis: RedisServer
    env: dict[str, str]

    @classmethod
    def set_up(cls, postgres: PostgresServer, redis: RedisServer) -> Servers:
        """Make the databases; every secret that docker/.env asks for is drawn."""
        named = re.findall(r"^([A-Z_]+)=$", (ROOT / "docker" / ".env.example").read_text(), flags=re.MULTILINE)
        env = {name: secrets.token_hex(48) for name in named}
        env["AIRFLOW_FERNET_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()
        env["REDIS_PASSWORD"] = redis.password
        postgres.ask("CREATE DATABASE airflow")
        postgres.ask(f"ALTER ROLE airflow PASSWORD '{env['POSTGRES_PASSWORD']}'")
        script = {"POSTGRES_USER": "airflow", "LEDGER_PASSWORD": env["LEDGER_PASSWORD"], **postgres.environment}
        command = ["sh", str(ROOT / "docker" / "init-ledger.sh")]
        subprocess.run(command, env={**os.environ, **script}, check=True, capture_output=True)
        return cls(postgres, redis, env)

    def settings(self) -> dict[str, str]:
        """Give the compose file's settings with this machine's addresses."""
        written = compose()["x-airflow"]["environment"]
        return {key: self._here(str(value)) for key, value in written.items() if key not in OWN}

    def _here(self, value: str) -> str:
        filled = re.sub(r"\$\{([A-Z_]+):\?[^}]*\}", lambda found: self.env[found[1]], value)
        here = filled.replace("@postgres/", f"@127.0.0.1:{self.postgres.port}/")
        return here.replace("@redis:6379/", f"@127.0.0.1:{self.redis.port}/")


class CeleryWorld(World):
    """The lab and the policies, carried out by the components of the compose file."""

    def __init__(self, lab: Lab, folder: Path, servers: Servers) -> None:
        self.servers = servers
        self.health_port = free_port()
        super().__init__(lab, folder, servers.settings()["AIRFLOW__PATCHING__LEDGER_URL"])

    def make_airflow(self, home: Path) -> LocalAirflow:
        port = free_port()
        settings = {
            **self.servers.settings(),
            **self.stage.settings(),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",  # as Celery, and what a container has in HOSTNAME
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.health_port),
        }
        return LocalAirflow(home, ROOT / "dags", USERS, settings, port, "CeleryExecutor", CELERY_COMPONENTS)


@pytest.fixture(scope="module")
def left() -> Iterator[Left]:
    with adopting_orphans() as left:
        yield left


@pytest.fixture(scope="module")
def scale_out(lab: Lab, left: Left, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryWorld]:
    """New hosts with the first release; the release that needs a reboot is published."""
    lab.repository.replace({})
    lab.restore(*HOSTS)
    lab.publish("v4")
    with postgres_server("airflow", free_port()) as postgres, redis_server(free_port()) as redis:
        made = CeleryWorld(lab, tmp_path_factory.mktemp("scale_out"), Servers.set_up(postgres, redis))
        try:
            made.start()
            yield made
            made.ledger.close()
        finally:
            made.airflow.stop()


@pytest.fixture(scope="module")
def boots(lab: Lab, scale_out: CeleryWorld) -> dict[str, str]:
    """Every host's boot before the rollout."""
    return {host: lab.boot_id(host) for host in HOSTS}


@pytest.fixture(scope="module")
def run(scale_out: CeleryWorld, boots: dict[str, str]) -> Run:
    scale_out.policy("scale-out", HOSTS)
    run = scale_out.trigger("patch__scale-out", {"reason": "end-to-end: scale out"})
    run.ends(within=600)
    return run


def test_good_rollout_with_reboots_reaches_every_host_once(
    scale_out: CeleryWorld, run: Run, boots: dict[str, str]
) -> None:
    assert run.state() == "success", run.note()
    assert scale_out.versions(HOSTS) == dict.fromkeys(HOSTS, WITH_REBOOT)
    after = {host: scale_out.lab.boot_id(host) for host in HOSTS}
    assert [host for host in HOSTS if after[host] == boots[host]] == []
    assert all(scale_out.markers(host) for host in HOSTS)
    assert scale_out.twice(HOSTS) == []
    pending = [scale_out.lab.run(host, ["test", "-e", "/var/run/reboot-required"]).code for host in HOSTS]
    assert pending == [1, 1, 1]


def test_ledger_verifies_in_a_postgresql_database_of_its_own(scale_out: CeleryWorld, run: Run) -> None:
    rollout = run.view()["rollout"]["id"]
    assert scale_out.ledger.verify(rollout) == []
    assert scale_out.ledger.verify() == []
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'patching'"
    assert scale_out.servers.postgres.ask(owner) == [("patching",)]
    tables = "SELECT tableowner, count(*) > 3 FROM pg_tables WHERE schemaname = 'public' GROUP BY 1"
    assert scale_out.servers.postgres.ask(tables, "patching") == [("patching", True)]
    rights = "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'patching'"
    assert scale_out.servers.postgres.ask(rights) == [(False, False, False)]


def tasks_at_celery(world: CeleryWorld, run: Run) -> list[tuple[Any, ...]]:
    """Join what Airflow keeps of a task that ran, Celery's id of it, with the result backend's state of that id."""
    return world.servers.postgres.ask(
        "SELECT ti.task_id, ti.queue, ti.external_executor_id, done.status FROM task_instance ti"
        " LEFT JOIN celery_taskmeta done ON done.task_id = ti.external_executor_id"
        " WHERE ti.run_id = :run AND ti.dag_id = :dag AND ti.start_date IS NOT NULL"
        " AND ti.state IN ('success', 'failed')",
        "airflow",
        run=run.run_id,
        dag=run.dag_id,
    )


def test_every_task_ran_on_the_celery_worker(scale_out: CeleryWorld, run: Run) -> None:
    """Airflow, the result backend and the worker's log know the same ids; Celery ends a task after Airflow does."""

    def ended() -> list[tuple[Any, ...]] | None:
        found = tasks_at_celery(scale_out, run)
        return None if any(row[3] == "STARTED" for row in found) else found

    ran = run.until("Celery has every result", ended, within=60)
    assert {"wave_1.apply", "wave_2.apply"} <= {row[0] for row in ran}
    assert [row for row in ran if (row[1], row[3]) != ("default", "SUCCESS")] == []
    log = (scale_out.airflow.home / "logs" / "celery-worker.log").read_text()
    assert [row for row in ran if f"[{row[2]}] received" not in log] == []


def test_every_health_check_of_the_compose_file_passes(scale_out: CeleryWorld, run: Run) -> None:
    services = {name: item for name, item in compose()["services"].items() if name.startswith("airflow-")}
    checks = {name: item["healthcheck"]["test"] for name, item in services.items() if "healthcheck" in item}
    failed = {name: said for name, check in checks.items() if (said := check_here(scale_out, check))}
    assert len(checks) == len(CELERY_COMPONENTS)
    assert failed == {}


def check_here(world: CeleryWorld, check: list[str]) -> str:
    """Run a container's health check against this machine's component; gives what it said when it failed."""
    kind, *words = check
    here = {"localhost:8080": f"127.0.0.1:{world.airflow.port}", "localhost:8974": f"127.0.0.1:{world.health_port}"}
    line = words[0].replace("$$", "$") if kind == "CMD-SHELL" else shlex.join(words)
    for there, address in here.items():
        line = line.replace(there, address)
    env = {**world.airflow.environment, "HOSTNAME": socket.gethostname()}
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, check=False)
    return (done.stderr or done.stdout or str(done.returncode)) if done.returncode else ""


def test_stopped_topology_leaves_no_process(scale_out: CeleryWorld, run: Run, left: Left) -> None:
    scale_out.airflow.stop()
    kept = [name for name in left() if not re.search(r"redis-server|postgres", name)]
    assert kept == []
