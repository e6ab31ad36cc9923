"""One file can break without touching the others, and a rollout under way goes on (S2, F8, T4)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from patching_airflow.operators.planning import BrokenPolicyOperator
from patching_dags import policy_files
from patching_dags.policy_files import dags
from patching_dags.rollout import MOST_PEOPLE, MOST_WAVES

WRONG = ("maxTargets", "maxTargest")


def kinds(dag: Any) -> dict[str, str]:
    return {task.task_id: task.task_type for task in dag.tasks}


def by_id(folder: Path) -> dict[str, Any]:
    return {dag.dag_id: dag for dag in dags(folder)}


def test_broken_file_gives_a_stub_with_every_id_and_operator_that_a_running_rollout_needs(write, policies) -> None:  # type: ignore[no-untyped-def]
    write("web.yaml", ("required: 2", f"required: {MOST_PEOPLE}"))
    sound = kinds(by_id(policies)["patch__web"])
    write("web.yaml", WRONG)
    (stub,) = dags(policies)
    assert stub.dag_id == "patch__web"
    broken = kinds(stub)
    assert {f"wave_{number}.undo" for number in range(1, MOST_WAVES + 1)} <= set(broken)
    discover = "discover.targets"
    assert {name: kind for name, kind in sound.items() if name != discover}.items() <= broken.items()
    assert broken[discover] == "BrokenPolicyOperator"
    assert [task.task_id for task in stub.leaves] == ["report.report"]
    assert stub.timetable.can_be_scheduled is False
    assert "broken-policy" in stub.tags


def test_discover_of_a_stub_fails_with_the_place_of_the_error_and_is_not_retried(write, policies, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    notes: list[str] = []
    monkeypatch.setattr("patching_airflow.hooks.run_note.write_run_note", lambda *words: notes.append(words[-1]))
    write("web.yaml", WRONG)
    (stub,) = dags(policies)
    task = stub.get_task("discover.targets")
    assert isinstance(task, BrokenPolicyOperator)
    with pytest.raises(AirflowFailException) as caught:
        task.execute({"ti": SimpleNamespace(dag_id="patch__web", run_id="run-1")})
    said = str(caught.value)
    assert "web.yaml:7" in said
    assert 'did you mean "maxTargets"?' in said
    assert notes == [said]
    assert said in (stub.doc_md or "")


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\xff\xfe\x00",
        b"kind: [",
        b"a: &a [*a]",
        b"metadata: {name: Web_1}",
        b"- 1\n- 2\n",
        b"\x00\x01",
    ],
)
def test_no_content_of_one_file_touches_the_dag_of_another(write, policies, wrong: bytes) -> None:  # type: ignore[no-untyped-def]
    write("web.yaml")
    (policies / "Bad File.yaml").write_bytes(wrong)
    found = by_id(policies)
    assert set(found) == {"patch__web", "patch__bad-file"}
    assert "broken-policy" in found["patch__bad-file"].tags
    assert "broken-policy" not in found["patch__web"].tags


def test_unreadable_file_is_a_stub(write, policies) -> None:  # type: ignore[no-untyped-def]
    write("web.yaml")
    (policies / "gone.yaml").symlink_to(policies / "nowhere")
    assert "broken-policy" in by_id(policies)["patch__gone"].tags


def test_an_error_of_our_own_in_one_policy_is_shown_as_its_stub(write, policies, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    write("db.yaml", ("name: web", "name: db"))
    write("web.yaml")
    real = policy_files.build

    def build(policy: Any, path: Path) -> Any:
        if policy.name == "db":
            raise KeyError("something of ours")
        return real(policy, path)

    monkeypatch.setattr(policy_files, "build", build)
    found = by_id(policies)
    assert "broken-policy" not in found["patch__web"].tags
    assert "something of ours" in found["patch__db"].get_task("discover.targets").message


def test_second_file_with_a_name_is_a_stub_and_the_first_keeps_its_dag(write, policies) -> None:  # type: ignore[no-untyped-def]
    write("a.yaml", ("Web hosts.", "The first."))
    write("web.yaml")
    found = by_id(policies)
    assert set(found) == {"patch__web", "patch__web-second-file"}
    assert found["patch__web"].description == "The first."
    assert "duplicate-policy" in found["patch__web-second-file"].get_task("discover.targets").message


@pytest.mark.parametrize("only", ["patch__web", "patch__web-second-file"])
def test_task_start_builds_the_same_dag_that_the_scheduler_saw_where_two_files_share_a_name(  # type: ignore[no-untyped-def]
    write, policies, only: str
) -> None:
    write("a.yaml", ("Web hosts.", "The first."))
    write("web.yaml")
    (alone,) = dags(policies, only=only)
    assert alone.dag_id == only
    assert alone.description == by_id(policies)[only].description


def test_broken_people_file_is_said_by_every_policy_and_hides_none(write, policies) -> None:  # type: ignore[no-untyped-def]
    write("web.yaml")
    (policies / "people.yaml").write_text("groups: {sre: []}\n")
    (stub,) = dags(policies)
    assert stub.dag_id == "patch__web"
    assert "people.yaml:1" in stub.get_task("discover.targets").message


def test_missing_folder_is_an_error_and_not_an_empty_list(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotADirectoryError, match="policies_dir"):
        list(dags(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("text", "shards"),
    [
        ("maxTargets: 900", 5),
        ('"maxTargets" : 201', 2),
        ("maxTargets: 9999999", 500),
        ("maxTargets: 0", 1),
        ("maxTargest: 900", 1),
    ],
)
def test_stub_has_the_shards_of_the_rollout_under_way(write, policies, text: str, shards: int) -> None:  # type: ignore[no-untyped-def]
    """T4: a shard that the stub lacks would be removed, and its worker killed in the middle of a change."""
    write("web.yaml", ("maxTargets: 150", text), ("mode: apply", "modee: apply"))
    (stub,) = dags(policies)
    assert "broken-policy" in stub.tags
    apply = stub.get_task("wave_1.apply")
    assert apply.expand_input.value == {"shard": list(range(shards))}
    assert apply.partial_kwargs["shards"] == shards
