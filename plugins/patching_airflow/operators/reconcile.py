"""The task that looks after what no DAG run owns any more; the decisions are in ``patching.rollout.reconcile``."""

from __future__ import annotations

import asyncio
from typing import Any

from patching_airflow.operators.base import RolloutOperator

LONGEST_REASON = 500


class ReconcileOperator(RolloutOperator):
    """Settles, undoes to the end or expires every open rollout without a run.

    Its result says which runs to trigger, as the arguments of a TriggerDagRunOperator; the same lost rollout in the
    same window always gives the same run id, so a run is never triggered twice.
    """

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Do it; without a ledger the task is red and nothing is done."""
        from patching.rollout.reconcile import reconcile

        found = asyncio.run(reconcile(self.site(context)))
        context["ti"].xcom_push(key="sentences", value=list(found.sentences))
        self.log.info("%d done, %d runs to trigger", len(found.sentences), len(found.go_on))
        return [
            {
                "trigger_dag_id": wanted.dag_id,
                "trigger_run_id": wanted.run_id,
                "conf": {"reason": wanted.reason[:LONGEST_REASON]},
            }
            for wanted in found.go_on
        ]
