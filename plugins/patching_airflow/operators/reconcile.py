"""ReconcileOperator: looks after open rollouts that no run works on, and says which runs should go on with them."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowRuntimeError


class ReconcileOperator(BaseOperator):
    """Settles what lost its run; its result is one set of arguments for each run that the next task triggers."""

    ui_color = "#eef3f7"

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Do it once; a paused DAG gets no run, because whoever paused it wanted it to rest."""
        from patching.rollout.reconcile import reconcile
        from patching_airflow.site import task_site

        found = asyncio.run(reconcile(task_site(context)))
        if not found.sentences:
            self.log.info("nothing to do: every open rollout has its run or rests")
        wanted = [item for item in found.go_on if not self._rests(context["ti"], item.dag_id)]
        return [
            {"trigger_dag_id": item.dag_id, "trigger_run_id": item.run_id, "conf": {"reason": item.reason}}
            for item in wanted
        ]

    def _rests(self, task_instance: Any, dag_id: str) -> bool:
        try:
            paused = bool(task_instance.get_dag(dag_id).is_paused)
        except AirflowRuntimeError as error:
            self.log.warning("Airflow does not know %s, so no run of it is triggered: %s", dag_id, error)
            return True
        if paused:
            self.log.info("%s is paused, so no run of it is triggered", dag_id)
        return paused
