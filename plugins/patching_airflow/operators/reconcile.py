"""The task that looks after what no DAG run owns any more; the decisions are in ``patching.rollout.reconcile``."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError

from patching_airflow.operators.base import RolloutOperator

LONGEST_REASON = 500


class ReconcileOperator(RolloutOperator):
    """Settles, undoes to the end or expires every open rollout without a run.

    Its result says which runs to trigger, as the arguments of a TriggerDagRunOperator; the same lost rollout in the
    same window always gives the same run id, so a run is never triggered twice.
    """

    def work(self, context: Any) -> list[dict[str, Any]]:
        """Do it; a paused DAG gets no run, because whoever paused it wanted it to rest."""
        from patching.rollout.exploited import refresh_exploited
        from patching.rollout.reconcile import reconcile
        from patching.rollout.telling import heard
        from patching_airflow.notifying import tell_everybody

        site = self.site(context)
        silence = heard(site)
        found = asyncio.run(reconcile(site))
        news = asyncio.run(refresh_exploited(site))
        news += [silence] if silence is not None else []
        news += tell_everybody(site)
        for sentence in news:
            self.log.warning(sentence)
        context["ti"].xcom_push(key="sentences", value=[*found.sentences, *news])
        self.log.info("%d done, %d runs to trigger", len(found.sentences), len(found.go_on))
        return [
            {
                "trigger_dag_id": wanted.dag_id,
                "trigger_run_id": wanted.run_id,
                "conf": {"reason": wanted.reason[:LONGEST_REASON]},
            }
            for wanted in found.go_on
            if not self._rests(context["ti"], wanted.dag_id)
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
