"""Policy files → DAGs: one file can break without touching the others; a task's start builds one DAG only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from airflow.sdk import DAG

from patching.diagnostics import PolicyError
from patching.people import load_people
from patching.policy import Policy
from patching.policy_files import find_policies, load_policy
from patching_dags.broken_policy import broken
from patching_dags.rollout import build

PREFIX = "patch__"
NOT_DNS = re.compile(r"[^a-z0-9-]+")


def dags(folder: Path, only: str | None = None) -> Iterator[DAG]:
    """Make the DAG of every policy file, or only the one whose id is asked for.

    A file that cannot be read, and a second file with the same policy name, give a stub under the file's own name.
    """
    files = find_policies(folder)
    if only is not None:
        named = [path for path in files if path.stem == only.removeprefix(PREFIX)]
        found = [dag for dag in _dags(folder, named) if dag.dag_id == only]
        if found:
            yield from found
            return
    yield from (dag for dag in _dags(folder, files) if only in (None, dag.dag_id))


def _dags(folder: Path, files: list[Path]) -> Iterator[DAG]:
    made: dict[str, Path] = {}
    for path in files:
        dag = _dag(folder, path)
        if dag.dag_id in made:
            message = (
                f"{path}: the name is taken by {made[dag.dag_id]}; give this policy another one [duplicate-policy]"
            )
            dag = broken(file_name(path, unless=set(made)), message)
        made[dag.dag_id] = path
        yield dag


def _dag(folder: Path, path: Path) -> DAG:
    try:
        policy: Policy = load_policy(path)
        people = load_people(folder)
    except PolicyError as error:
        return broken(file_name(path), str(error))
    approvers = policy.spec.approval.approvers
    return build(policy, path, people.resolve(approvers) if people is not None else approvers)


def file_name(path: Path, unless: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """Make a policy name from a file's name, another one where that is taken."""
    name = NOT_DNS.sub("-", path.stem.lower()).strip("-") or "policy"
    return name if f"{PREFIX}{name}" not in unless else f"{name}-second-file"
