"""``patching plan``: what a policy would do now, and why; it changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi
from patching.cli.following import (
    AsJson,
    Only,
    PolicyName,
    Reason,
    Say,
    Url,
    follow,
    policy_name,
    say,
    trigger,
    view_of,
)
from patching.errors import PlanError
from patching.plan.document import Plan
from patching.report.plan_text import plan_json, render_plan

PENDING = 3

ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit with 3 when something would be changed.")]
Timeout = Annotated[int, typer.Option(help="Seconds to wait for the plan.", min=1)]


def plan(
    policy: PolicyName,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
    reason: Reason = "",
    limit_to: Only = None,
    url: Url = "",
    timeout: Timeout = 900,
) -> int:
    """Show what a policy would do now, and why; changes nothing.

    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN).
    Exit code 0: the plan is shown. 1: no plan could be made. 3: with --exit-code, something would be changed.
    """
    with AirflowApi.from_environment(url) as api:
        made = request_plan(api, policy_name(policy), reason=reason, only=limit_to or (), wait=timeout, say=say)
    if as_json:
        print(json.dumps(plan_json(made), indent=2))
    else:
        print(render_plan(made, datetime.now(UTC), width=shutil.get_terminal_size((120, 24)).columns))
    return PENDING if exit_code and made.targets else 0


def request_plan(api: AirflowApi, name: str, *, reason: str, only: Sequence[str], wait: float, say: Say) -> Plan:
    """Let Airflow make a plan and read it; raises AirflowApiError, PlanError with the sentence that the run left."""
    dag_id, run_id = trigger(api, name, {"mode": "plan", "reason": reason, "limit_to": list(only)})
    say(f"run {run_id} of {dag_id} makes the plan")
    ended = follow(api, dag_id, run_id, wait=wait, say=say)
    found = view_of(api, dag_id, run_id)
    if ended["state"] != "success":
        raise PlanError(f"no plan of {name} was made: {ended.get('note') or 'its task logs say why'}")
    if not found.get("rollout"):
        said = found.get("sentence") or ended.get("note") or "its task logs say why"
        raise PlanError(f"no plan of {name} was made: {said}")
    answer = api.get(f"/patching/api/rollouts/{quote(found['rollout']['id'], safe='')}/plan")
    if found.get("sentence"):
        say(str(found["sentence"]))
    return Plan.frozen(answer["plan"], str(answer["digest"]))
