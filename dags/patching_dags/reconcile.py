"""The reconcile DAG: every two minutes it looks after what no run owns, and triggers the runs that should go on."""

from __future__ import annotations

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from patching_airflow.operators.reconcile import ReconcileOperator

WORDS = """## Looking after lost rollouts

A run can be lost in the middle: somebody marks it failed (Airflow then skips `undo` and `report` too), deletes it, or
its workers die. For every open rollout that no run and no worker is at work on, this DAG

- settles the steps that were begun on a host, by their ids: what they did is known, and none is run again;
- frees what a dead worker still held for targets that have ended (an *unknown* one keeps it until a person looks);
- lets a running rollout wait for its next run, and carries an undo that had begun to its end;
- expires a plan that nobody began in time;
- refreshes the list of exploited vulnerabilities (every 6 h, where the connection `patching_exploited_list` exists),
  and suggests an emergency where a target has what was added to it;
- watches completed rollouts for late regressions, for the policy's `rollout.watch`: an alarm opens an incident;
- leaves the hooks of hosts that a dead worker had entered and not changed;
- triggers a run where an approved rollout is left in an open window, at most one in each window;
- tells what is due to whom the policies' `notify` names, and then writes the heartbeat that `patching heartbeat` reads.

It begins no change. It goes on after a run that was deleted, or whose report lost its worker, and not after one that a
person marked; it triggers no emergency and no policy without windows. A quarantine ends by its date.

What goes wrong with one rollout is that rollout's sentence and keeps no other waiting. Each has four minutes in a tick;
a step that still runs, or a place that is taken, is looked at again at the next one.
"""


def build_reconcile() -> DAG:
    """Make the DAG ``patch_reconcile``."""
    with DAG(
        dag_id="patch_reconcile",
        dag_display_name="patch reconcile",
        description="Settles what no run owns any more, and triggers the runs that should go on.",
        doc_md=WORDS,
        schedule="*/2 * * * *",
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        tags=["patching", "reconcile"],
        default_args={"owner": "patching", "retries": 0},
    ) as dag:
        lost = ReconcileOperator(task_id="reconcile", task_display_name="look after lost rollouts")
        TriggerDagRunOperator.partial(
            task_id="go_on",
            task_display_name="trigger the next run",
            logical_date=None,
            skip_when_already_exists=True,
            openlineage_inject_parent_info=False,
            map_index_template="{{ task.trigger_dag_id }}",
        ).expand_kwargs(lost.output)
    return dag
