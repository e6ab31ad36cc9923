"""The graph of one policy: discover, prioritise, approve, waves (gate, apply, judge, undo), verify, rollback, report.

Task ids are stable and never depend on the fleet; sizes appear in display names only. Every task from ``approve`` on
runs whatever happened before it (``all_done``) and reads from the ledger what was decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param, TaskGroup, TriggerRule

from patching.policy import Policy, WaveRule
from patching.quantity import format_duration
from patching_airflow.operators.planning import (
    APPROVE,
    REJECT,
    AskPersonOperator,
    DecideApprovalOperator,
    DiscoverOperator,
    PlanOperator,
    PrepareOperator,
)
from patching_airflow.operators.wave import (
    ApplyOperator,
    GateOperator,
    JudgeOperator,
    ReportOperator,
    UndoOperator,
    VerifyOperator,
)
from patching_airflow.timetables.maintenance_window import MaintenanceWindowTimetable
from patching_dags.policy_in_words import policy_in_words

MOST_WAVES = 8
MOST_PEOPLE = 5
SHARD_SIZE = 200
LONGEST_TAG = 100
RETRY: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(seconds=2)}
"""Only tasks that the ledger makes idempotent are retried, and only after their process died."""


def build(policy: Policy, path: Path) -> DAG:
    """Make the DAG ``patch__<policy>`` of a policy file."""
    spec = policy.spec
    schedule = spec.schedule.model_dump(mode="json")
    owner = policy.metadata.labels.get("owner", "patching")
    labels = sorted(f"{key}:{value}"[:LONGEST_TAG] for key, value in policy.metadata.labels.items())
    with DAG(
        dag_id=policy.dag_id,
        dag_display_name=f"patch {policy.name}",
        description=policy.metadata.description or f"managed patching by policy {path.name}",
        doc_md=policy_in_words(policy),
        schedule=MaintenanceWindowTimetable(schedule) if spec.schedule.windows else None,
        catchup=False,
        max_active_runs=4,
        is_paused_upon_creation=False,
        tags=["patching", spec.driver.name, *labels],
        default_args={"owner": owner, "retries": 0},
    ) as dag:
        people = max(spec.approval.required, 1)
        discovery = partial(DiscoverOperator, policy_path=str(path))
        graph(discovery, spec.rollout.waves, people, shards_of(spec.targets.max_targets))
    add_form(dag, policy_params(spec.mode))
    return dag


def add_form(dag: DAG, params: dict[str, Param]) -> None:
    """Give a DAG its trigger form once its tasks are made.

    Otherwise Airflow copies the form into every task and validates its defaults at each parse: more than half of the
    time. Tasks see the values all the same, and a run's conf is validated when it is triggered.
    """
    dag.params.update(params)


def shards_of(max_targets: int) -> int:
    """Say over how many tasks a wave is spread: one for up to 200 targets."""
    return math.ceil(max_targets / SHARD_SIZE)


def policy_params(mode: str) -> dict[str, Param]:
    """Make the trigger form; what it asks can only tighten the policy.

    What may stay empty must allow null: Airflow's form takes any other empty field as missing, and cannot be sent.
    """
    modes = ["apply", "plan"] if mode == "apply" else ["plan"]
    return {
        "mode": Param(
            modes[0], type="string", enum=modes, title="Mode", description_md="`plan` changes nothing; `apply` goes on."
        ),
        "reason": Param(
            None, type=["string", "null"], maxLength=500, title="Reason", description_md="Kept in the ledger."
        ),
        "limit_to": Param(
            None,
            type=["array", "null"],
            items={"type": "string"},
            title="Only these targets",
            description_md="Names from the inventory, one a line; empty means all that the policy selects.",
        ),
        "plan_digest": Param(
            None,
            type=["string", "null"],
            pattern="^[0-9a-f]{8,64}$",
            title="Only this plan",
            description_md="The digest (or its beginning) of the plan that may be carried out; any other is refused.",
        ),
        "replan": Param(
            False, type="boolean", title="Make a new plan", description_md="Supersedes the policy's open rollout."
        ),
    }


def graph(discovery: Any, waves: Sequence[WaveRule | None], people: int, shards: int) -> None:
    """Make the tasks inside the current DAG; ``discovery`` makes the first one, a wave None has no known size."""
    with TaskGroup("discover"):
        discover = discovery(task_id="targets", task_display_name="discover targets", **RETRY)
    with TaskGroup("prioritise"):
        plan = PlanOperator(task_id="plan", task_display_name="make the plan", **RETRY)
    discover >> plan
    last: BaseOperator = approve(plan, people)
    for number, rule in enumerate(waves, 1):
        last = wave_group(last, number, rule, shards)
    with TaskGroup("verify"):
        verify = VerifyOperator(task_id="targets", task_display_name="look again", **always())
    with TaskGroup("rollback"):
        rollback = UndoOperator(task_id="sweep", task_display_name="undo what is left", **always())
    with TaskGroup("report"):
        report = ReportOperator(task_id="report", task_display_name="report", **always())
    last >> verify >> rollback >> report


def always() -> dict[str, Any]:
    """Give the arguments of a task that runs whatever Airflow says of those before it."""
    return {"trigger_rule": TriggerRule.ALL_DONE, **RETRY}


def approve(plan: BaseOperator, people: int) -> BaseOperator:
    """Make one question a person, the decision over them, and the download of what was approved."""
    with TaskGroup("approve"):
        asked = [
            AskPersonOperator(
                task_id=f"person_{number}",
                task_display_name=f"approval {number} of {people}",
                subject="Approve the plan",
                options=[APPROVE, REJECT],
                params={"comment": Param("", type=["string", "null"], title="Comment")},
                trigger_rule=TriggerRule.ALL_DONE,
            )
            for number in range(1, people + 1)
        ]
        decide = DecideApprovalOperator(task_id="decide", task_display_name="decide", **always())
        prepare = PrepareOperator(task_id="prepare", task_display_name="download and check", **always())
        plan >> asked >> decide >> prepare
    return prepare


def wave_group(before: BaseOperator, number: int, rule: WaveRule | None, shards: int) -> BaseOperator:
    """Make the four tasks of one wave; its last is ``undo``.

    ``apply`` is mapped even over one shard: Airflow removes, and kills, a task that becomes mapped in mid-run (T4).
    """
    with TaskGroup(f"wave_{number}", group_display_name=f"wave {number}{size_of(rule)}"):
        gate = GateOperator(task_id="gate", task_display_name="gate", **always())
        apply = ApplyOperator.partial(
            task_id="apply",
            task_display_name="apply",
            map_index_template="{{ shard_label }}",
            shards=shards,
            **always(),
        ).expand(shard=list(range(shards)))
        judge = JudgeOperator(task_id="judge", task_display_name="soak and judge", **always())
        undo = UndoOperator(task_id="undo", task_display_name="undo if bad", **always())
        before >> gate >> apply >> judge >> undo
    return undo


def size_of(rule: WaveRule | None) -> str:
    """Say a wave's size and soak in its display name."""
    if rule is None:
        return ""
    soak = f", soak {format_duration(rule.soak)}" if rule.soak else ""
    if rule.canary is not None:
        per = f" per {rule.canary.per}" if rule.canary.per else ""
        return f" · canary {rule.canary.count}{per}{soak}"
    return f" · up to {rule.size}{soak}"
