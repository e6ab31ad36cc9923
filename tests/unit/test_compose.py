"""The container files (I2, I10): what can be said of them without a container engine.

They are not started here; the same topology runs natively in an end-to-end test.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"

AIRFLOW = {"apiserver", "scheduler", "dag-processor", "worker", "triggerer", "init"}

# What every component of a Celery deployment needs alike.
SHARED = {
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__PATCHING__LEDGER_URL",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def airflow_services(compose: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in compose["services"].items() if name.startswith("airflow-")}


def constraints() -> dict[str, Version]:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        found = re.match(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", line)
        if found:
            pins[found[1].lower()] = Version(found[2])
    return pins


def test_all_components_are_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "redis", *(f"airflow-{name}" for name in AIRFLOW)}


def test_versions_are_pinned_and_airflow_is_the_one_that_is_tested(compose: dict[str, Any]) -> None:
    images = {item["image"] for item in compose["services"].values()}
    assert images == {"postgres:16", "redis:7.2-bookworm", "managed-patching:0.1.0"}
    (base,) = re.findall(r"^FROM (\S+)$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert base == f"apache/airflow:{constraints()['apache-airflow']}-python3.12"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"managed-patching:{project['version']}" in images


def test_celery_is_one_that_its_provider_can_import() -> None:
    """Celery 5.7 lacks an import that the provider needs; the message it gives is about something else."""
    assert constraints()["celery"] < Version("5.7")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "celery<5.7" in extras["celery"]


def test_every_component_has_the_same_settings(compose: dict[str, Any]) -> None:
    for name, service in airflow_services(compose).items():
        assert set(service["environment"]) >= SHARED, name
        shared = compose["x-airflow"]["environment"]
        assert {key: service["environment"][key] for key in shared} == shared, name


def test_ledger_is_a_postgresql_database_of_its_own(compose: dict[str, Any]) -> None:
    environment = compose["x-airflow"]["environment"]
    assert environment["AIRFLOW__PATCHING__LEDGER_URL"].startswith("postgresql+psycopg://patching:")
    assert environment["AIRFLOW__PATCHING__LEDGER_URL"].endswith("@postgres/patching")
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith("@postgres/airflow")
    assert "CREATE DATABASE patching OWNER patching" in (DOCKER / "init-ledger.sh").read_text()


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    """Everything from outside is demanded (``:?``) and named, empty, in .env.example."""
    text = (DOCKER / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    assert wanted == set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DOCKER / ".env.example").read_text(), flags=re.MULTILINE))
    assert set(example) == wanted
    assert set(example.values()) == {""}
    for key, value in compose["x-airflow"]["environment"].items():
        if re.search(r"SECRET|FERNET|PASSWORD(?!S_FILE)", key):
            assert value.startswith("${"), key


def test_ports_are_bound_to_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:8080:8080"]


def test_everything_that_stays_up_has_a_health_check(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert ("healthcheck" in service) == (name != "airflow-init"), name


def test_nothing_runs_as_root_or_gains_rights(compose: dict[str, Any]) -> None:
    users = re.findall(r"^USER (\S+)$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert users[-1] == "airflow"
    for name, service in airflow_services(compose).items():
        assert "user" not in service, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_image_installs_by_the_constraints_and_the_project_without_more() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert "--constraint constraints.txt" in text
    assert "--no-deps --editable ." in text
    copied = re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, flags=re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_image_reads_its_requirements_from_the_project() -> None:
    command = [sys.executable, "docker/requirements.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "apache-airflow==3.3.2" in done.stdout.splitlines()
    assert "celery<5.7" in done.stdout.splitlines()


def test_shell_script_for_the_ledgers_database_is_valid() -> None:
    subprocess.run(["sh", "-n", str(DOCKER / "init-ledger.sh")], check=True)
