"""The emergency DAG: triggered with a typed conf, it passes window and freeze only where the policy allows it."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from patching_airflow.operators.planning import DiscoverOperator
from patching_dags.rollout import MOST_PEOPLE, MOST_WAVES, graph

WORDS = """## Emergency patching

Carries out one policy now. Gates for window and freeze are passed only where the policy's `emergency.ignore` says so;
approval, canary, budgets and verdicts hold as always. Targets of other open rollouts that have not begun are taken
over; those in flight settle first. Who asked, why and what was passed is in the ledger.
"""


def build_emergency() -> DAG:
    """Make the DAG ``patch_emergency``."""
    with DAG(
        dag_id="patch_emergency",
        dag_display_name="patch emergency",
        description="Carries out one policy now, past window and freeze where the policy allows it.",
        doc_md=WORDS,
        schedule=None,
        catchup=False,
        max_active_runs=8,
        is_paused_upon_creation=False,
        tags=["patching", "emergency"],
        default_args={"owner": "patching", "retries": 0},
        params={
            "policy": Param(type="string", minLength=1, title="Policy", description_md="Name of the policy."),
            "reason": Param(type="string", minLength=5, maxLength=500, title="Reason"),
            "targets": Param(None, type=["array", "null"], items={"type": "string"}, title="Only these targets"),
            "advisory_ids": Param(
                None, type=["array", "null"], items={"type": "string"}, title="Only these advisories"
            ),
            "mode": Param("apply", type="string", enum=["apply", "plan"], title="Mode"),
        },
    ) as dag:
        graph(DiscoverOperator, [None] * MOST_WAVES, MOST_PEOPLE, 1)
    return dag
