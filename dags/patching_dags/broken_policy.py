"""The stub of a broken policy: the full graph, so that no id of a running rollout disappears; discovery fails."""

from __future__ import annotations

from functools import partial

from airflow.sdk import DAG

from patching_airflow.operators.planning import BrokenPolicyOperator
from patching_dags.rollout import MOST_PEOPLE, MOST_WAVES, SHARD_SIZE, add_form, graph, policy_params, shards_of


def broken(name: str, message: str, max_targets: int = SHARD_SIZE) -> DAG:
    """Make the stub ``patch__<name>``; its operators are those of a sound policy, so a running rollout goes on.

    ``max_targets`` is what the file says, as far as it can be read: a shard that the stub lacks would be killed.
    """
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
        graph(partial(BrokenPolicyOperator, message=message), [None] * MOST_WAVES, MOST_PEOPLE, shards_of(max_targets))
    add_form(dag, policy_params("apply"))
    return dag
