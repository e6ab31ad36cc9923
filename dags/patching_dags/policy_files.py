"""Policy files → DAGs: one file can break without touching the others; a task's start builds one DAG only."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from airflow.sdk import DAG

from patching.diagnostics import PolicyError
from patching.policy_files import find_policies, load_policy
from patching_dags.broken_policy import broken
from patching_dags.rollout import SHARD_SIZE, build

PREFIX = "patch__"
NOT_DNS = re.compile(r"[^a-z0-9-]+")
MAX_TARGETS = re.compile(rb"maxTargets[\"']?\s*:\s*(\d{1,9})\b")
MOST_TARGETS = 100_000

log = logging.getLogger(__name__)


def dags(folder: Path, only: str | None = None) -> list[DAG]:
    """Make the DAG of every policy file, or only the one whose id is asked for.

    A file that cannot be read, and a second file with the same policy name, give a stub under the file's own name.
    Raises NotADirectoryError where there is no such folder: no DAG at all must not look like no policy.
    """
    if not folder.is_dir():
        raise NotADirectoryError(
            f"there is no folder {folder}, so no policy has a DAG: create it, or set [patching] policies_dir"
        )
    files = find_policies(folder)
    with _no_garbage():
        if only is not None:
            likely = [path for path in files if _may_be(path, only.removeprefix(PREFIX))]
            found = [dag for dag in _dags(likely) if dag.dag_id == only]
            if found:
                return found
        return [dag for dag in _dags(files) if only in (None, dag.dag_id)]


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Pause the garbage collector: hundreds of DAGs are made and none is dropped, so each pass would be for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _may_be(path: Path, name: str) -> bool:
    """Say whether a file may be the one of this policy, without reading its YAML; a wrong no only costs time."""
    if file_name(path) == name:
        return True
    try:
        raw = path.read_bytes()
    except OSError:
        return False
    return re.search(rb"name[\"']?\s*:\s*[\"']?" + re.escape(name.encode()) + rb"(?![-a-z0-9])", raw) is not None


def _dags(files: Iterable[Path]) -> Iterator[DAG]:
    made: dict[str, Path] = {}
    for path in files:
        dag = _dag(path)
        if dag.dag_id in made:
            message = (
                f"{path}: the name is taken by {made[dag.dag_id]}; give this policy another one [duplicate-policy]"
            )
            dag = broken(file_name(path, made), message)
        made[dag.dag_id] = path
        yield dag


def _dag(path: Path) -> DAG:
    try:
        return build(load_policy(path), path)
    except PolicyError as error:
        return broken(file_name(path), str(error), max_targets(path))
    except Exception as error:
        # One exception here would take away the DAGs of all policies: it is shown where the policy's own DAG would be.
        log.exception("%s: no DAG could be made of this policy", path)
        message = f"{path}: no DAG could be made of it: {type(error).__name__}: {error}"
        return broken(file_name(path), message, max_targets(path))


def max_targets(path: Path) -> int:
    """Read how large a fleet a broken file means, so that its stub has the shards of a rollout that is under way."""
    try:
        found = [int(number) for number in MAX_TARGETS.findall(path.read_bytes())]
    except OSError:
        found = []
    return min(max([SHARD_SIZE, *found]), MOST_TARGETS)


def file_name(path: Path, taken: Iterable[str] = ()) -> str:
    """Make a policy name from a file's name, another one where that is taken."""
    name = NOT_DNS.sub("-", path.stem.lower()).strip("-") or "policy"
    return name if f"{PREFIX}{name}" not in taken else f"{name}-second-file"
