"""The stub of a broken policy: the full graph, so that no id of a running rollout disappears; discovery fails."""

from __future__ import annotations

from functools import partial

from airflow.sdk import DAG

from patching_airflow.operators.planning import BrokenPolicyOperator
from patching_dags.rollout import MOST_PEOPLE, MOST_WAVES, add_form, graph, policy_params


def broken(name: str, message: str) -> DAG:
    """Make the stub ``patch__<name>``; its operators are those of a sound policy, so a running rollout goes on."""
    with DAG(
        dag_id=f"patch__{name}",
        dag_display_name=f"patch {name} (broken policy)",
        description="This policy cannot be read: nothing new begins, a rollout under way goes on.",
        doc_md=f"## This policy cannot be read\n\n```\n{message}\n```\n\nA rollout under way goes on.",
        schedule=None,
        catchup=False,
        max_active_runs=4,
        is_paused_upon_creation=False,
        tags=["patching", "broken-policy"],
        default_args={"owner": "patching", "retries": 0},
    ) as dag:
        graph(partial(BrokenPolicyOperator, message=message), [None] * MOST_WAVES, MOST_PEOPLE, 1)
    add_form(dag, policy_params("apply"))
    return dag
