"""Every policy gives its expected DAG: ids, edges, rules, form and words (S3, S7, I2)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from airflow.sdk import DAG, TriggerRule
from airflow.sdk.definitions.mappedoperator import MappedOperator

from patching.policy import Policy
from patching.policy_files import find_policies, load_text
from patching_dags.emergency import build_emergency
from patching_dags.policy_files import dags
from patching_dags.rollout import MOST_PEOPLE, MOST_WAVES, build

ROOT = Path(__file__).parents[2]
FILES = [*find_policies(ROOT / "tests/demo/policies"), *find_policies(ROOT / "dags/policies")]
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "reference")
BLOCKS = [
    (f"{page.stem}-{number}", text)
    for page in PAGES
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    if "kind: PatchPolicy" in text
]
TEXTS = [(path.stem, path.read_text(encoding="utf-8")) for path in FILES] + BLOCKS
EVERY = [pytest.param(text, id=name) for name, text in TEXTS]


def expected_ids(people: int, waves: int) -> list[str]:
    return [
        "discover.targets",
        "prioritise.plan",
        *(f"approve.person_{number}" for number in range(1, people + 1)),
        "approve.decide",
        "approve.prepare",
        *(f"wave_{number}.{task}" for number in range(1, waves + 1) for task in ("gate", "apply", "judge", "undo")),
        "verify.targets",
        "rollback.sweep",
        "report.report",
    ]


def made(text: str) -> tuple[Policy, DAG]:
    policy = load_text(text)
    return policy, build(policy, Path(f"{policy.name}.yaml"))


def first(write, policies: Path, *replaced: tuple[str, str]) -> DAG:  # type: ignore[no-untyped-def]
    write("web.yaml", *replaced)
    (dag,) = dags(policies)
    return dag


def order_of(dag: DAG) -> list[tuple[str, str]]:
    return sorted((task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids)


def test_there_are_examples_to_test() -> None:
    assert len(TEXTS) >= 3


@pytest.mark.parametrize("text", EVERY)
def test_every_example_gives_exactly_its_tasks(text: str) -> None:
    policy, dag = made(text)
    rules = policy.spec
    assert dag.dag_id == f"patch__{policy.name}"
    assert list(dag.task_ids) == expected_ids(max(rules.approval.required, 1), len(rules.rollout.waves))


@pytest.mark.parametrize("text", EVERY)
def test_report_is_the_only_leaf_and_everything_from_approve_on_runs_whatever_came_before(text: str) -> None:
    """T1: a failed ``apply`` under Airflow's usual rule would leave judge and rollback undone."""
    _, dag = made(text)
    assert [task.task_id for task in dag.leaves] == ["report.report"]
    assert [task.task_id for task in dag.roots] == ["discover.targets"]
    usual = {task.task_id for task in dag.tasks if task.trigger_rule != TriggerRule.ALL_DONE}
    assert usual == {"discover.targets", "prioritise.plan"}


@pytest.mark.parametrize("text", EVERY)
def test_only_what_the_ledger_makes_idempotent_is_retried(text: str) -> None:
    """A question that was answered must not be asked again because a process died; all else resumes by its ledger."""
    _, dag = made(text)
    assert {task.task_id for task in dag.tasks if task.retries == 0} == {
        name for name in dag.task_ids if name.startswith("approve.person_")
    }
    assert {task.retries for task in dag.tasks} == {0, 1}


@pytest.mark.parametrize("text", EVERY)
def test_dag_is_not_paused_and_says_whose_it_is(text: str) -> None:
    policy, dag = made(text)
    assert dag.is_paused_upon_creation is False
    assert dag.catchup is False
    assert {"patching", policy.spec.driver.name} <= dag.tags
    assert {task.owner for task in dag.tasks} == {policy.metadata.labels.get("owner", "patching")}
    assert policy.spec.targets.inventory in (dag.doc_md or "")
    assert "**When it goes wrong.**" in (dag.doc_md or "")


def test_form_is_typed_and_asks_only_what_tightens(write, policies: Path) -> None:  # type: ignore[no-untyped-def]
    dag = first(write, policies)
    form = {name: dag.params.get_param(name) for name in dag.params}
    assert set(form) == {"mode", "reason", "limit_to", "plan_digest", "replan"}
    assert {name: item.schema["type"] for name, item in form.items()} == {
        "mode": "string",
        "reason": ["string", "null"],
        "limit_to": ["array", "null"],
        "plan_digest": ["string", "null"],
        "replan": "boolean",
    }
    assert all(item.schema["title"] and (item.description or item.schema["description_md"]) for item in form.values())
    assert form["mode"].schema["enum"] == ["apply", "plan"]
    assert form["mode"].value == "apply"


def test_policy_in_mode_plan_offers_nothing_but_plan(write, policies: Path) -> None:  # type: ignore[no-untyped-def]
    mode = first(write, policies, ("mode: apply", "mode: plan")).params.get_param("mode")
    assert mode.schema["enum"] == ["plan"]
    with pytest.raises(Exception, match="apply"):
        mode.resolve("apply")


@pytest.mark.parametrize(
    ("name", "value"), [("limit_to", "web-1"), ("plan_digest", "latest"), ("replan", "yes"), ("reason", 7)]
)
def test_form_refuses_a_value_of_the_wrong_kind(write, policies: Path, name: str, value: object) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Exception, match=str(value)):
        first(write, policies).params.get_param(name).resolve(value)


@pytest.mark.parametrize(
    "edit",
    [
        ("size: 100%", "size: 25%}\n      - {size: 100%"),
        ("count: 1}, soak: 10m", "count: 3, per: az}, soak: 2h"),
        ("maxTargets: 150", "maxTargets: 900"),
        ("start: 22:00", "start: 23:00"),
        ("required: 2", "required: 2, approvers: [alice, bob]"),
        ("mode: apply", "mode: plan"),
    ],
)
def test_edited_sizes_keep_every_id_and_edge(write, policies: Path, edit: tuple[str, str]) -> None:  # type: ignore[no-untyped-def]
    """T4: an id that disappears in mid-run is killed at once."""
    before = order_of(first(write, policies))
    after = order_of(first(write, policies, edit))
    kept = [pair for pair in before if pair[0].startswith("wave_") and pair[1].startswith("wave_")]
    assert set(kept) <= set(after)
    assert {one for pair in before for one in pair} <= {one for pair in after for one in pair}


def test_sizes_are_in_display_names_only(write, policies: Path) -> None:  # type: ignore[no-untyped-def]
    dag = first(write, policies, ("count: 1}, soak: 10m", "count: 3, per: az}, soak: 2h"))
    groups = dag.task_group.get_task_group_dict()
    assert groups["wave_1"].group_display_name == "wave 1 · canary 3 per az, soak 2h"
    assert groups["wave_2"].group_display_name == "wave 2 · up to 100%"
    assert not [name for name in dag.task_ids if "100" in name or "az" in name]


def test_large_fleet_is_sharded_and_a_small_one_is_one_task(write, policies: Path) -> None:  # type: ignore[no-untyped-def]
    small = first(write, policies, ("maxTargets: 150", "maxTargets: 200")).get_task("wave_1.apply")
    large = first(write, policies, ("maxTargets: 150", "maxTargets: 201")).get_task("wave_1.apply")
    assert isinstance(small, MappedOperator), "a task that becomes mapped in mid-run is killed (T4)"
    assert isinstance(large, MappedOperator)
    assert small.expand_input.value == {"shard": [0]}
    assert large.expand_input.value == {"shard": [0, 1]}
    assert large.partial_kwargs["shards"] == 2
    assert large.trigger_rule == TriggerRule.ALL_DONE


def test_long_label_is_cut_and_takes_no_dag_away(write, policies: Path) -> None:  # type: ignore[no-untyped-def]
    dag = first(write, policies, ("tier: gold", f"tier: {'g' * 300}"))
    assert max(map(len, dag.tags)) == 100
    assert "broken-policy" not in dag.tags


def test_policy_without_windows_runs_only_when_triggered(write, policies: Path) -> None:  # type: ignore[no-untyped-def]
    windows = '    windows: [{rrule: "FREQ=WEEKLY;BYDAY=TU", start: 22:00, duration: 4h}]\n    planAhead: 24h\n'
    assert first(write, policies, (windows, "")).timetable.can_be_scheduled is False
    assert first(write, policies).timetable.can_be_scheduled is True


def test_emergency_dag_has_a_typed_conf_and_room_for_every_policy() -> None:
    """U1: policy and reason must be given, and whatever a policy may ask for can be carried out."""
    dag = build_emergency()
    assert list(dag.task_ids) == expected_ids(MOST_PEOPLE, MOST_WAVES)
    assert [task.task_id for task in dag.leaves] == ["report.report"]
    asked = {name: dag.params.get_param(name) for name in dag.params}
    required = {name for name, item in asked.items() if not item.has_value and "null" not in item.schema["type"]}
    assert required == {"policy", "reason"}
    assert dag.is_paused_upon_creation is False
    with pytest.raises(Exception, match="too short"):
        dag.params.get_param("reason").resolve("x")
