"""Following a run of a policy's DAG: it is triggered, and what it does is told on stderr until it has ended.

Only workers speak to hosts, so commands that need them trigger a run through Airflow's REST API; so it is known who
asked. The API cannot push: it is asked once a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching.errors import PlanError
from patching.policy_files import load_policy

PAUSE = 1.0
ENDED = ("success", "failed")
AT_WORK = {"running": "is at work", "deferred": "waits", "awaiting_input": "waits for a person"}

PolicyName = Annotated[str, typer.Argument(help="Name of a policy, or its file.", metavar="POLICY")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Url = Annotated[str, typer.Option("--url", help="Airflow's address; default: $PATCHING_URL.", metavar="URL")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the ledger.")]
Only = Annotated[
    list[str] | None, typer.Option("--limit-to", help="Only this target; may be given several times.", metavar="NAME")
]
Say = Callable[[str], None]


def say(line: str) -> None:
    """Tell progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def policy_name(policy: str) -> str:
    """Give a policy's name for its name, its DAG id or its file; raises PolicyError for a broken file."""
    path = Path(policy)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return load_policy(path).name
    return policy.removeprefix("patch__")


def trigger(api: AirflowApi, name: str, conf: dict[str, Any]) -> tuple[str, str]:
    """Trigger a run of a policy; gives DAG id and run id.

    Raises PlanError where Airflow does not have the policy or would never begin the run, AirflowApiError.
    """
    return trigger_dag(api, f"patch__{name}", name, conf)


def trigger_dag(api: AirflowApi, dag_id: str, name: str, conf: dict[str, Any]) -> tuple[str, str]:
    """Trigger a run of the DAG that carries out a policy, its own or that for emergencies; raises as ``trigger``."""
    try:
        paused = api.get(f"/api/v2/dags/{quote(dag_id, safe='')}").get("is_paused")
    except AirflowApiError as error:
        if error.status != 404:
            raise
        raise PlanError(
            f'Airflow has no DAG {dag_id}: is "{name}" the name of a policy, and has its file been read yet?'
        ) from error
    if paused:
        raise PlanError(f"{dag_id} is paused in Airflow, so a run of it would never begin: unpause it first")
    return dag_id, api.trigger(dag_id, {key: value for key, value in conf.items() if value})


def follow(api: AirflowApi, dag_id: str, run_id: str, *, wait: float, say: Say) -> dict[str, Any]:
    """Wait for a run's end, telling every new note and every task that begins; gives the run.

    Raises PlanError after ``wait`` seconds: the run goes on, only the waiting ends.
    """
    until, told = time.monotonic() + wait, _Told(say)
    while True:
        run = api.run(dag_id, run_id)
        told.note(str(run.get("note") or ""))
        if run["state"] in ENDED:
            return run
        told.tasks(api.task_instances(dag_id, run_id))
        if time.monotonic() > until:
            raise PlanError(f"run {run_id} is still {run['state']} after {wait:g} s; it goes on: look at it in Airflow")
        time.sleep(PAUSE)


def view_of(api: AirflowApi, dag_id: str, run_id: str) -> dict[str, Any]:
    """Read how the rollout of a run stands; ``rollout`` is None while there is none, and ``sentence`` says why."""
    return dict(api.get(f"/patching/api/run/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"))


class _Told:
    """What was told already, so that nothing is told twice."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.last = ""
        self.seen: set[tuple[str, str]] = set()

    def note(self, text: str) -> None:
        if text and text != self.last:
            self.last = text
            self.say(text)

    def tasks(self, instances: list[dict[str, Any]]) -> None:
        for item in instances:
            key = (str(item["task_id"]), str(item["state"]))
            if key[1] in AT_WORK and key not in self.seen:
                self.seen.add(key)
                self.say(f"{key[0]} {AT_WORK[key[1]]}")
