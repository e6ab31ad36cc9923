"""The task that looks after what no DAG run owns any more; the decisions are in ``patching.rollout.reconcile``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from airflow.sdk.exceptions import AirflowRuntimeError

from patching_airflow.operators.base import RolloutOperator
from patching_airflow.operators.patience import unavailable

T = TypeVar("T")

LONGEST_REASON = 500


class ReconcileOperator(RolloutOperator):
    """Settles, undoes to the end or expires every open rollout without a run.

    Its result says which runs to trigger, as the arguments of a TriggerDagRunOperator; the same lost rollout in the
    same window always gives the same run id, so a run is never triggered twice.
    """

    def work(self, context: Any) -> list[dict[str, Any]]:
        """Do it; a paused DAG gets no run, because whoever paused it wanted it to rest.

        The heartbeat is written when all is done: work that fails each time must not look alive.
        """
        from patching.rollout.exploited import refresh_exploited
        from patching.rollout.reconcile import Reconciled, reconcile
        from patching.rollout.telling import RECONCILER, was_silent
        from patching_airflow.notifying import tell_everybody

        site = self.site(context)
        silence, parts = was_silent(site), _Parts(self.log)
        found = parts.do("look after lost rollouts", lambda: asyncio.run(reconcile(site)), Reconciled())
        news = parts.do("refresh the exploited list", lambda: asyncio.run(refresh_exploited(site)), [])
        news = [*news, *([silence] if silence is not None else [])]
        news += parts.do("tell what is due", lambda: tell_everybody(site), [])
        news += parts.said
        for sentence in news:
            self.log.warning(sentence)
        context["ti"].xcom_push(key="sentences", value=[*found.sentences, *news])
        self.log.info("%d done, %d runs to trigger", len(found.sentences), len(found.go_on))
        if parts.unforeseen:
            raise parts.unforeseen[0]
        site.ledger.beat(RECONCILER)
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


class _Parts:
    """The parts of the work: one that fails keeps none of the others from being done."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.said: list[str] = []
        self.unforeseen: list[Exception] = []

    def do(self, what: str, work: Callable[[], T], otherwise: T) -> T:
        """Do one part; raises only LedgerUnavailable, without which no other part can be done either."""
        from patching.rollout.apart import trouble

        try:
            return work()
        except Exception as error:
            if unavailable(error) is not None:
                raise
            sentence = trouble(error)
            if sentence is None:
                self.log.exception("could not %s", what)
                self.unforeseen.append(error)
            self.said.append(f"could not {what}: {sentence or type(error).__name__}")
            return otherwise
