"""RolloutOperator: what every task of a rollout shares; it shows what the ledger decided and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from patching_airflow.operators.patience import POLL, PatientOperator
from patching_airflow.site import seconds, task_site
from patching_airflow.triggers.rollout import RolloutTrigger

NO_ROLLOUT = "this run has no rollout: discovery did not get that far, so nothing is done here"


def wave_of(task_id: str) -> int | None:
    """Say which wave a task belongs to: its id is stable, so it says so (``wave_3.gate`` → 3); None outside of waves.

    Ids are read instead of arguments because every constructor in a class hierarchy costs a tenth of the parse time.
    """
    group, _, number = task_id.partition(".")[0].rpartition("_")
    return int(number) if group == "wave" else None


def waves_of(dag: Any) -> list[str]:
    """Name the wave groups of a DAG."""
    groups = {name.partition(".")[0] for name in dag.task_ids}
    return sorted(name for name in groups if name.startswith("wave_"))


class RolloutOperator(PatientOperator):
    """A task that reads its rollout from the ledger by its run, never from what Airflow says of other tasks."""

    ui_color = "#eef3f7"

    def site(self, context: Any) -> Any:
        """Compose the site of this task."""
        return task_site(context)

    def rollout(self, site: Any, context: Any) -> str:
        """Find the rollout of this run; the task is skipped when there is none."""
        from patching.rollout.record import rollout_of_run

        found = rollout_of_run(site, context["ti"].dag_id, context["ti"].run_id)
        if found is None:
            raise AirflowSkipException(NO_ROLLOUT)
        return found

    def show(self, context: Any, sentence: str, *, skipped: bool = False, bad: bool = False) -> str:
        """End the task with the colour of what was decided; the sentence is its log line and its result."""
        context["ti"].xcom_push(key="sentence", value=sentence)
        if bad:
            raise AirflowFailException(sentence)
        if skipped:
            raise AirflowSkipException(sentence)
        self.log.info(sentence)
        return sentence

    def ask_again(self, context: Any, site: Any, rollout: str, sentence: str, at: datetime) -> None:
        """Free the worker slot until a moment, or until the ledger says something else; then do the work anew."""
        self.note(context, sentence)
        self.log.info(sentence)
        row = site.ledger.rollout(rollout)
        poll = seconds("gate_poll", POLL)
        self.defer(trigger=RolloutTrigger(rollout, row.state.value, at.isoformat(), poll), method_name="resume")

    def pass_over(self, groups: Iterable[str]) -> None:
        """Show the tasks of whole groups as skipped at once, and end this one: the ledger would refuse each of them.

        It only saves time. Airflow leaves alone what runs or has ended, and ends this task *success*: raise what
        should be red before.
        """
        wanted = tuple(f"{group}." for group in groups)
        names = [name for name in self.dag.task_ids if name.startswith(wanted) and name != self.task_id]
        tasks = [item for name in names for item in self._instances(name)]
        if tasks:
            raise DownstreamTasksSkipped(tasks=tasks)

    def _instances(self, task_id: str) -> list[str | tuple[str, int]]:
        """Name a task's instances: a plain name means the one that is not mapped."""
        task = self.dag.get_task(task_id)
        shards = task.partial_kwargs["shards"] if task.is_mapped else 0
        return [task_id, *((task_id, shard) for shard in range(shards))]
