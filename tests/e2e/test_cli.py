"""``patching plan`` and ``patching run`` against a real Airflow and real hosts (S3, I2): who asks is a named person."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from e2e.conftest import World

pytest_plugins = ["lab.fixtures"]
pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.airflow]

HOSTS = ["web-11", "web-12"]


def patching(world: World, *arguments: str, user: str = "alice") -> subprocess.CompletedProcess[str]:
    settings = {"PATCHING_URL": world.airflow.url, "PATCHING_USER": user, "PATCHING_PASSWORD": user}
    command = [sys.executable, "-m", "patching.cli.main", *arguments]
    environment = {**world.airflow.environment, **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_plan_and_run_in_mode_plan_change_nothing_and_name_who_asked(world: World) -> None:
    world.policy("looked-at", HOSTS)
    world.trigger("patch__looked-at", {"mode": "plan"}).ends()
    before = world.versions(HOSTS)
    planned = patching(
        world, "plan", "looked-at", "--json", "--exit-code", "--reason", "a look", "--limit-to", "web-11"
    )
    assert planned.returncode in (0, 3), planned.stderr
    document = json.loads(planned.stdout)
    assert (planned.returncode == 3) == bool(document["changes"])
    assert [item["target"]["name"] for item in document["plan"]["targets"]] in ([], ["web-11"])
    assert document["plan"]["requested_by"] == "alice"
    assert "makes the plan" in planned.stderr
    started = patching(world, "run", "looked-at", "--mode", "plan")
    assert started.returncode == 0, started.stderr
    assert world.versions(HOSTS) == before
    assert not any(world.markers(host) for host in ["web-11"] if before["web-11"] == "1.0.0-1")


def test_wrong_password_and_unknown_policy_exit_1_with_what_to_do(world: World) -> None:
    unknown = patching(world, "plan", "no-such-policy")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "Airflow has no DAG patch__no-such-policy" in unknown.stderr
    nobody = patching(world, "plan", "looked-at", user="mallory")
    assert nobody.returncode == 1
    assert "401" in nobody.stderr
