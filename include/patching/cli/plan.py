"""``patching plan``: what a policy would do now, and why; it changes nothing.

Only workers speak to hosts, so a plan is made by a run of the policy's DAG with ``mode: plan``, triggered and read
through Airflow's REST API: it is known who asked.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching.errors import PlanError
from patching.plan.document import Plan
from patching.policy_files import load_policy
from patching.report.plan_text import plan_json, render_plan

PENDING = 3
PAUSE = 1.0
ENDED = ("success", "failed")

PolicyName = Annotated[str, typer.Argument(help="Name of a policy, or its file.", metavar="POLICY")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit with 3 when something would be changed.")]
Only = Annotated[list[str] | None, typer.Option("--target", help="Only this target; may be given several times.")]
Timeout = Annotated[int, typer.Option(help="Seconds to wait for the plan.", min=1)]


def plan(
    policy: PolicyName,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
    target: Only = None,
    timeout: Timeout = 900,
) -> int:
    """Show what a policy would do now, and why; changes nothing.

    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN).
    Exit code 0: the plan is shown. 1: no plan could be made. 3: with --exit-code, something would be changed.
    """
    with AirflowApi.from_environment() as api:
        made = request_plan(api, policy_name(policy), target or [], wait=float(timeout), say=_say)
    if as_json:
        print(json.dumps(plan_json(made), indent=2))
    else:
        print(render_plan(made, datetime.now(UTC), width=shutil.get_terminal_size((120, 24)).columns))
    return PENDING if exit_code and made.targets else 0


def policy_name(policy: str) -> str:
    """Give a policy's name for its name, its DAG id or its file; raises PolicyError for a broken file."""
    path = Path(policy)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return load_policy(path).name
    return policy.removeprefix("patch__")


def request_plan(api: AirflowApi, name: str, targets: list[str], *, wait: float, say: Callable[[str], None]) -> Plan:
    """Let Airflow make a plan and read it; raises AirflowApiError, PlanError with the sentence that the run left."""
    dag_id = f"patch__{name}"
    _refuse_paused(api, dag_id, name)
    run_id = api.trigger(dag_id, {"mode": "plan", "limit_to": targets} if targets else {"mode": "plan"})
    say(f"run {run_id} of {dag_id} makes the plan")
    ended = _wait(api, dag_id, run_id, wait, say)
    found = api.get(f"/patching/api/run/{quote(dag_id)}/{quote(run_id)}")
    if ended["state"] != "success" or not found.get("rollout"):
        said = ended.get("note") or found.get("sentence") or "its task logs say why"
        raise PlanError(f"no plan of {name} was made: {said}")
    answer = api.get(f"/patching/api/rollouts/{quote(found['rollout']['id'], safe='')}/plan")
    if found.get("sentence"):
        say(str(found["sentence"]))
    return Plan.model_validate(answer["plan"])


def _refuse_paused(api: AirflowApi, dag_id: str, name: str) -> None:
    try:
        paused = api.get(f"/api/v2/dags/{quote(dag_id)}").get("is_paused")
    except AirflowApiError as error:
        if error.status != 404:
            raise
        raise PlanError(
            f'Airflow has no DAG {dag_id}: is "{name}" the name of a policy, and has its file been read yet?'
        ) from error
    if paused:
        raise PlanError(f"{dag_id} is paused in Airflow, so a run of it would never begin: unpause it first")


def _wait(api: AirflowApi, dag_id: str, run_id: str, wait: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Poll a run until it has ended, telling every new note; the API has no way to push."""
    until, told = time.monotonic() + wait, None
    while True:
        run = api.run(dag_id, run_id)
        if run.get("note") and run["note"] != told:
            told = run["note"]
            say(str(told))
        if run["state"] in ENDED:
            return run
        if time.monotonic() > until:
            raise PlanError(f"run {run_id} is still {run['state']} after {wait:g} s; it goes on: look at it in Airflow")
        time.sleep(PAUSE)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
