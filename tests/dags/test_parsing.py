"""What parsing may not do: network, databases, heavy imports, more than one DAG at a task's start (P6, I2)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.file import list_py_file_paths

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "dags").glob("*.py"))

# Airflow itself imports SQLAlchemy and an HTTP client; what counts is what the project adds, and what it opens.
PROBE = """
import json, socket, sqlite3, sys
import airflow, airflow.sdk
from airflow.sdk.execution_time import context as secrets
from airflow.sdk.definitions.connection import Connection
from airflow.sdk.definitions.variable import Variable
import sqlalchemy.engine, airflow.providers.standard.operators.hitl, airflow.providers.standard.triggers.temporal
before = set(sys.modules)

def refused(name):
    def refuse(*_args, **_kwargs):
        raise SystemExit(f"parsing used {name}")
    return refuse

socket.socket.connect = refused("a socket")
socket.getaddrinfo = refused("name resolution")
sqlite3.connect = refused("SQLite")
sqlalchemy.engine.Engine.connect = refused("a database")
Connection.get = refused("a Connection")
Variable.get = refused("a Variable")
secrets._get_connection = refused("a Connection")
secrets._get_variable = refused("a Variable")

import runpy
from airflow.sdk.definitions.context import Context
from airflow.sdk.definitions.dag import DAG
made = []
real = DAG.__init__
def counted(self, *args, **kwargs):
    real(self, *args, **kwargs)
    made.append(self.dag_id)
DAG.__init__ = counted

if len(sys.argv) > 2:
    import os
    os.environ["_AIRFLOW_PARSING_CONTEXT_DAG_ID"] = sys.argv[2]
found = [name for name, value in runpy.run_path(sys.argv[1]).items() if isinstance(value, DAG)]
added = sorted(set(sys.modules) - before)
print(json.dumps({"made": sorted(made), "found": sorted(found), "added": added}))
"""
HEAVY = ("pandas", "numpy", "scipy", "sqlalchemy", "alembic", "asyncssh", "univers", "fastapi", "starlette", "httpx")
OF_OURS = (
    "patching.ledger",
    "patching.channels.ssh",
    "patching.sources",
    "patching.rollout.planning",
    "patching.rollout.wave",
    "patching_airflow.ui.app",
)


def parse(tmp_path: Path, policies: Path, file: Path, *only: str) -> dict[str, Any]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__PATCHING__POLICIES_DIR": str(policies),
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("include", "plugins", "dags")),
    }
    command = [sys.executable, "-c", PROBE, str(file), *only]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def heavy(added: list[str]) -> list[str]:
    return [name for name in added if name.split(".")[0] in HEAVY or name.startswith(OF_OURS)]


def test_parsing_opens_nothing_and_imports_nothing_heavy(write, policies, tmp_path) -> None:  # type: ignore[no-untyped-def]
    write("web.yaml", ("approval: {required: 2}", "approval: {required: 2, approvers: [sre]}"))
    write("db.yaml", ("name: web", "name: db"))
    (policies / "people.yaml").write_text("groups: {sre: [alice, bob]}\n")
    answer = parse(tmp_path, policies, ROOT / "dags/patch_policies.py")
    assert answer["found"] == ["dag", "patch__db", "patch__web"]
    assert heavy(answer["added"]) == []
    assert not list((tmp_path / "home").rglob("*.db"))


def test_start_of_a_task_builds_one_dag_only(write, policies, tmp_path) -> None:  # type: ignore[no-untyped-def]
    for number in range(30):
        write(f"web-{number}.yaml", ("name: web", f"name: web-{number}"))
    answer = parse(tmp_path, policies, ROOT / "dags/patch_policies.py", "patch__web-2")
    assert answer["made"] == ["patch__web-2"]


def test_plugin_is_light_in_a_worker() -> None:
    code = (
        "import sys, airflow; before = set(sys.modules); import patching_airflow.plugin; print(*sys.modules - before)"
    )
    code = code.replace("*sys.modules - before", "*(set(sys.modules) - before)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy(done.stdout.split()) == []


def test_airflow_finds_every_dag_file_and_no_other() -> None:
    """Airflow's safe mode skips, silently, a file that lacks the words "airflow" and "dag"."""
    found = sorted(Path(path) for path in list_py_file_paths(str(ROOT / "dags"), safe_mode=True))
    assert found == FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_dag_file_is_a_short_composition(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 20
