"""CPU to parse 500 policies as DAGs, against plain TaskGroup code that makes the same graphs: python -m bench.

Each measurement is a process of its own; importing Airflow counts for neither side. The plain code has the same ids,
groups, edges, retries and trigger rules, with Airflow's EmptyOperator, and neither form nor timetable nor YAML.
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
import airflow.providers.standard.triggers.temporal, airflow.providers.standard.operators.trigger_dagrun
what, folder = sys.argv[1], Path(sys.argv[2])

def plain(spec):
    from datetime import timedelta
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, TaskGroup, TriggerRule
    again = {"retries": 1, "retry_delay": timedelta(seconds=2)}
    always = {"trigger_rule": TriggerRule.ALL_DONE, **again}
    made = []
    for name in spec["names"]:
        with DAG(dag_id=name, catchup=False, tags=["patching"], default_args={"owner": "sre", "retries": 0}) as dag:
            with TaskGroup("discover"):
                last = EmptyOperator(task_id="targets", **again)
            with TaskGroup("prioritise"):
                plan = EmptyOperator(task_id="plan", **again)
            last >> plan
            with TaskGroup("approve"):
                asked = [
                    EmptyOperator(task_id=f"person_{n}", trigger_rule=TriggerRule.ALL_DONE)
                    for n in range(1, spec["people"] + 1)
                ]
                decide = EmptyOperator(task_id="decide", **always)
                prepare = EmptyOperator(task_id="prepare", **always)
                plan >> asked >> decide >> prepare
            last = prepare
            for n in range(1, spec["waves"] + 1):
                with TaskGroup(f"wave_{n}"):
                    gate, apply, judge, undo = [
                        EmptyOperator(task_id=t, **always) for t in ("gate", "apply", "judge", "undo")
                    ]
                    last >> gate >> apply >> judge >> undo
                last = undo
            with TaskGroup("verify"):
                verify = EmptyOperator(task_id="targets", **always)
            with TaskGroup("rollback"):
                rollback = EmptyOperator(task_id="sweep", **always)
            with TaskGroup("report"):
                report = EmptyOperator(task_id="report", **always)
            last >> verify >> rollback >> report
        made.append(dag)
    return made

def ours(only):
    from patching_dags.policy_files import dags
    return list(dags(folder, only=only))

if what == "plain":
    spec = json.loads(sys.argv[3])
began = time.process_time()
if what == "plain":
    found = plain(spec)
elif what == "one":
    found = ours("patch__web-250")
else:
    import patching_dags.policy_files
    imported = time.process_time()
    print("imports", imported - began, file=sys.stderr)
    began = imported
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
    for ours, plain, one in runs:
        if (ours["dags"], ours["tasks"], one["dags"]) != (plain["dags"], plain["tasks"], 1) or ours["dags"] != FILES:
            raise SystemExit(f"the sides did not make the same graphs: {ours}, {plain}, {one}")
    cpu = [statistics.median(run[side]["cpu"] for run in runs) for side in range(3)]
    ratio = statistics.median(run[0]["cpu"] / run[1]["cpu"] for run in runs)
    return {"ours_s": cpu[0], "plain_s": cpu[1], "ratio": ratio, "one_s": cpu[2], "tasks": runs[0][0]["tasks"]}


def _sides(folder: Path, spec: str) -> list[tuple[str, ...]]:
    return [("ours", str(folder)), ("plain", str(folder), spec), ("one", str(folder))]


def main() -> int:
    """Print the medians; exit code 1 when the target is missed."""
    found = measure()
    print(
        f"parse {FILES} policies ({found['tasks']} tasks): {found['ours_s']:.2f} s CPU; "
        f"plain TaskGroup code: {found['plain_s']:.2f} s; ratio {found['ratio']:.2f} (target {MOST}); "
        f"start of one task among them, our imports included: {found['one_s']:.2f} s"
    )
    return 0 if found["ratio"] <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
