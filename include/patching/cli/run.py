"""``patching run``: start a rollout of a policy through Airflow, and follow it to the end of the run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from patching.cli.airflow_api import AirflowApi
from patching.cli.following import (
    ENDED,
    AsJson,
    Only,
    PolicyName,
    Reason,
    Url,
    follow,
    policy_name,
    say,
    trigger,
    view_of,
)
from patching.errors import PlanError

OK, FAILED, PENDING = 0, 1, 3
MODES = ("apply", "plan")
GOOD = ("completed", "superseded")
BAD = ("aborted", "expired", "undone", "undoing")

Mode = Annotated[str, typer.Option(help="plan stops after the plan; apply goes on if the policy allows it.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end, or only start it.")]
Timeout = Annotated[float, typer.Option(help="Seconds to follow the run.", min=1)]


def run(
    policy: PolicyName,
    mode: Mode = "apply",
    reason: Reason = "",
    limit_to: Only = None,
    wait: Wait = True,
    as_json: AsJson = False,
    url: Url = "",
    timeout: Timeout = 86400.0,
) -> int:
    """Start a rollout of a policy through Airflow.

    Options can only tighten what the policy allows; windows, approval, canary and budgets hold as always.
    Airflow's address and user come from PATCHING_URL and PATCHING_USER, PATCHING_PASSWORD (or PATCHING_TOKEN).
    Exit code 0: completed, planned, nothing to do; with --no-wait: started. 1: refused, failed or undone.
    3: a person or time has to do something first (held, not approved, the next window).
    """
    if mode not in MODES:
        raise typer.BadParameter(f'"{mode}" is no mode; allowed: apply, plan', param_hint="--mode")
    with AirflowApi.from_environment(url) as api:
        conf = {"mode": mode, "reason": reason, "limit_to": limit_to or []}
        dag_id, run_id = trigger(api, policy_name(policy), conf)
        say(f"run {run_id} of {dag_id} is started: {api.url}/dags/{dag_id}/runs/{run_id}")
        if not wait:
            _show({"dag_id": dag_id, "run_id": run_id, "state": "queued"}, None, OK, as_json)
            return OK
        ended, found = _followed(api, dag_id, run_id, timeout)
    code = exit_code(str(ended["state"]), found.get("rollout"))
    _show({"dag_id": dag_id, "run_id": run_id, "state": ended["state"]}, found, code, as_json)
    return code


def exit_code(run_state: str, rollout: dict[str, Any] | None) -> int:
    """Say with which code a followed run ends: the ledger's state of the rollout decides, then the run's colour.

    Without a rollout a green run left the work to another run, which is pending; a red one failed to begin. A run
    that has not ended is pending.
    """
    if run_state not in ENDED:
        return PENDING
    good = run_state == "success"
    if rollout is None:
        return PENDING if good else FAILED
    state = str(rollout["state"])
    if state in BAD:
        return FAILED
    if state in GOOD:
        return OK if good else FAILED
    if state in ("planned", "awaiting_approval"):
        if rollout.get("plan_digest") is None:
            return FAILED
        return OK if good else PENDING
    return PENDING


def _followed(api: AirflowApi, dag_id: str, run_id: str, timeout: float) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        ended = follow(api, dag_id, run_id, wait=timeout, say=say)
    except PlanError as error:
        say(str(error))
        ended = {"state": "running"}
    except KeyboardInterrupt:
        say(f"not followed any longer: run {run_id} goes on; to stop it: patching hold, or patching stop-all")
        raise
    return ended, view_of(api, dag_id, run_id)


def _show(run: dict[str, Any], found: dict[str, Any] | None, code: int, as_json: bool) -> None:
    """Print the result: the sentence that says how the rollout stands, or one document with everything."""
    if as_json:
        print(json.dumps({"schema_version": 1, "exit_code": code, "run": run, "view": found}, indent=2))
    elif found is None:
        print(run["run_id"])
    else:
        rollout = found.get("rollout")
        print(f"{rollout['id']}: {found['headline']}" if rollout else found["sentence"])
