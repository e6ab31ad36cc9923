"""CPU to parse 500 policies as DAGs, against plain TaskGroup code that makes the same graphs: python -m bench.

Each measurement is a process of its own; importing Airflow counts for neither side. The plain code makes the graphs as
a person would write them: ids, groups, names, edges, retries, trigger rules, a cron schedule, and a BashOperator with a
command for each task. It has no YAML, no form, no words, no approvals. The same with EmptyOperator, which has no
arguments at all, is printed too, as a floor. The sides take turns, and the median of each counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.bench_validate import FILES, write

ROOT = Path(__file__).parents[2]
ROUNDS = 3
MOST = 1.3

CHILD = """
import json, os, sys, time
from pathlib import Path
import airflow, airflow.sdk, airflow.timetables.base
import airflow.providers.standard.operators.empty, airflow.providers.standard.operators.hitl
import airflow.providers.standard.operators.bash
import airflow.providers.standard.triggers.temporal, airflow.providers.standard.operators.trigger_dagrun
what, folder = sys.argv[1], Path(sys.argv[2])

def plain(spec):
    from datetime import timedelta
    from functools import partial
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, TaskGroup, TriggerRule
    Task = EmptyOperator if what == "empty" else partial(BashOperator, bash_command="./do {{ task.task_id }}")
    again = {"retries": 1, "retry_delay": timedelta(seconds=2)}
    always = {"trigger_rule": TriggerRule.ALL_DONE, **again}
    made = []
    for name in spec["names"]:
        with DAG(
            dag_id=name,
            dag_display_name=name,
            description=name,
            schedule="0 22 * * 2,3",
            catchup=False,
            tags=["patching"],
            default_args={"owner": "sre", "retries": 0},
        ) as dag:
            with TaskGroup("discover"):
                last = Task(task_id="targets", task_display_name="look", **again)
            with TaskGroup("prioritise"):
                plan = Task(task_id="plan", task_display_name="plan it", **again)
            last >> plan
            with TaskGroup("approve"):
                asked = [
                    Task(
                        task_id=f"person_{n}", task_display_name=f"approval {n}", trigger_rule=TriggerRule.ALL_DONE
                    )
                    for n in range(1, spec["people"] + 1)
                ]
                decide = Task(task_id="decide", task_display_name="decide it", **always)
                prepare = Task(task_id="prepare", task_display_name="prepare it", **always)
                plan >> asked >> decide >> prepare
            last = prepare
            for n in range(1, spec["waves"] + 1):
                with TaskGroup(f"wave_{n}", group_display_name=f"wave {n}"):
                    gate, apply, judge, undo = [
                        Task(task_id=t, task_display_name=t, **always)
                        for t in ("gate", "apply", "judge", "undo")
                    ]
                    last >> gate >> apply >> judge >> undo
                last = undo
            with TaskGroup("verify"):
                verify = Task(task_id="targets", task_display_name="look", **always)
            with TaskGroup("rollback"):
                rollback = Task(task_id="sweep", task_display_name="sweep it", **always)
            with TaskGroup("report"):
                report = Task(task_id="report", task_display_name="report it", **always)
            last >> verify >> rollback >> report
        made.append(dag)
    return made

def ours(only):
    from patching_dags.policy_files import dags
    return dags(folder, only=only)

if what in ("plain", "empty"):
    spec = json.loads(sys.argv[3])
began = time.process_time()
if what in ("plain", "empty"):
    found = plain(spec)
elif what == "one":
    found = ours("patch__web-250")
else:
    import patching_dags.policy_files

    began = time.process_time()
    found = ours(None)
spent = time.process_time() - began
print(json.dumps({"cpu": spent, "dags": len(found), "tasks": sum(len(dag.tasks) for dag in found)}))
"""


def _child(home: str, *arguments: str) -> dict[str, Any]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("include", "plugins", "dags")),
    }
    command = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _graph(folder: Path) -> dict[str, Any]:
    from patching.policy_files import find_policies, load_policy

    files = find_policies(folder)
    spec = load_policy(files[0]).spec
    people, waves = max(spec.approval.required, 1), len(spec.rollout.waves)
    return {"names": [f"patch__{path.stem}" for path in files], "people": people, "waves": waves}


def measure() -> dict[str, float]:
    """Give the medians: CPU seconds of both, their ratio, and of the start of one task among 500 policies."""
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place) / "policies", str(Path(place) / "home")
        folder.mkdir()
        write(folder)
        spec = json.dumps(_graph(folder))
        runs = []
        for _ in range(ROUNDS):
            # Side by side in time, so that a busy machine is as busy for one as for the other.
            runs.append([_child(home, *arguments) for arguments in _sides(folder, spec)])
    for ours, plain, empty, one in runs:
        made = {(side["dags"], side["tasks"]) for side in (ours, plain, empty)}
        if len(made) != 1 or ours["dags"] != FILES or one["dags"] != 1:
            raise SystemExit(f"the sides did not make the same graphs: {ours}, {plain}, {empty}, {one}")
    ours, plain, empty, one = (statistics.median(run[side]["cpu"] for run in runs) for side in range(4))
    return {
        "ours_s": ours,
        "plain_s": plain,
        "ratio": ours / plain,
        "ratio_empty": ours / empty,
        "one_s": one,
        "tasks": runs[0][0]["tasks"],
    }


def _sides(folder: Path, spec: str) -> list[tuple[str, ...]]:
    return [("ours", str(folder)), ("plain", str(folder), spec), ("empty", str(folder), spec), ("one", str(folder))]


def main() -> int:
    """Print the medians; exit code 1 when the target is missed."""
    found = measure()
    print(
        f"parse {FILES} policies ({found['tasks']} tasks): {found['ours_s']:.2f} s CPU; "
        f"plain TaskGroup code: {found['plain_s']:.2f} s; ratio {found['ratio']:.2f} (at most {MOST}), "
        f"with EmptyOperator {found['ratio_empty']:.2f}; "
        f"start of one task among them, our imports included: {found['one_s']:.2f} s"
    )
    return 0 if found["ratio"] <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
