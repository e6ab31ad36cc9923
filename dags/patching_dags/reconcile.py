"""The reconciling DAG: every two minutes it looks after what no run owns."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from patching_airflow.operators.reconcile import ReconcileOperator

WORDS = """## What no run owns

Airflow skips what has not started when somebody marks a run failed, undo and report included; a run can be deleted, and
workers die. Every two minutes this DAG looks at the open rollouts that no run works on:

- steps that were left on a target are settled by their id, so that nothing runs twice;
- an undo that was interrupted is finished;
- a rollout that was running waits for its next run, and says so;
- a plan that nobody began expires with its validity;
- in an open window the next run is triggered, once a window, but not after one that was marked failed and not while the
  DAG is paused.

It never begins a change by itself. Pausing it is safe: then all of this waits.
"""


def build_reconcile() -> DAG:
    """Make the DAG ``patch_reconcile``."""
    with DAG(
        dag_id="patch_reconcile",
        dag_display_name="patch reconcile",
        description="Looks after rollouts that no run works on.",
        doc_md=WORDS,
        schedule="*/2 * * * *",
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        tags=["patching"],
        default_args={"owner": "patching", "retries": 0},
        dagrun_timeout=timedelta(hours=2),
    ) as dag:
        found = ReconcileOperator(task_id="settle", task_display_name="settle what no run owns")
        TriggerDagRunOperator.partial(
            task_id="go_on",
            task_display_name="go on in an open window",
            logical_date=None,
            skip_when_already_exists=True,
        ).expand_kwargs(found.output)
    return dag
