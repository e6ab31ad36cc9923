"""Policy files: from YAML on disk to frozen policies, with every error of a file at its place in the file.

``load_policy`` is what DAG files, the CLI and workers call. It does no network access, reads no clock (``now`` is a
parameter) and needs no Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from patching.diagnostics import Diagnostic, PolicyError
from patching.limits import LIMITS_FILE
from patching.people import PEOPLE_FILE, People, load_people
from patching.policy import Policy
from patching.policy_rules import check_policy
from patching.policy_salvage import salvage
from patching.policy_schema_errors import explain
from patching.policy_yaml import Document, read
from patching.value import digest

SUFFIXES = (".yaml", ".yml")


def load_policy(path: Path | str, *, now: datetime | None = None) -> Policy:
    """Read one policy file; approver groups come from ``people.yaml`` beside it.

    ``now`` (with a zone) lets the rules see windows that have passed. Raises PolicyError with all errors of the file.
    """
    file = Path(path)
    policy, errors = _load(file, _people_beside(file), now)
    if policy is None:
        raise PolicyError(errors)
    return policy


def load_text(text: str | bytes, path: str = "policy.yaml", *, now: datetime | None = None) -> Policy:
    """Read a policy from text; raises PolicyError with all errors."""
    policy, errors = _parse(text, path, None, now)
    if policy is None:
        raise PolicyError(errors)
    return policy


def load_all(paths: Iterable[Path | str], *, now: datetime | None = None) -> tuple[dict[str, Policy], list[Diagnostic]]:
    """Read many policy files: path → policy for the good ones, and the errors of all, in the order of the paths.

    A name used by two files is an error of the second one. ``people.yaml`` beside the files is read once.
    """
    policies: dict[str, Policy] = {}
    errors: list[Diagnostic] = []
    named: dict[str, str] = {}
    people: dict[Path, People | None] = {}
    for file in map(Path, paths):
        if file.parent not in people:
            people[file.parent], wrong = _read_people(file.parent)
            errors.extend(wrong)
        policy, found = _load(file, people[file.parent], now)
        errors.extend(found)
        if policy is None:
            continue
        if policy.name in named:
            errors.append(_same_name(file, policy.name, named[policy.name]))
            continue
        named[policy.name] = str(file)
        policies[str(file)] = policy
    return policies, errors


def find_policies(directory: Path | str) -> list[Path]:
    """List the policy files directly in a directory, sorted: people.yaml, limits.yaml and hidden files are none."""
    found = (item for item in Path(directory).iterdir() if item.suffix in SUFFIXES)
    others = (PEOPLE_FILE, LIMITS_FILE)
    return sorted(item for item in found if item.name not in others and not item.name.startswith("."))


def policy_digest(policy: Policy) -> str:
    """Name a policy by what it means, not by how its file is written: 64 hexadecimal digits."""
    return digest(policy)


def _load(file: Path, people: People | None, now: datetime | None) -> tuple[Policy | None, list[Diagnostic]]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        return None, [Diagnostic(path=str(file), line=1, col=1, message=message, rule="file")]
    return _parse(raw, str(file), people, now)


def _parse(
    raw: str | bytes, path: str, people: People | None, now: datetime | None
) -> tuple[Policy | None, list[Diagnostic]]:
    document = read(raw, path)
    errors = list(document.errors)
    policy: Policy | None = None
    if document.root is not None:
        try:
            policy = _validate(document)
        except ValidationError as error:
            told = {_place(item) for item in errors}
            errors.extend(item for item in explain(error, Policy, document) if _place(item) not in told)
            policy = salvage(document.data, error.errors(include_url=False))
    if policy is not None:
        errors.extend(check_policy(policy, document, people=people, now=now))
    return (None, sorted(errors, key=_place)) if errors else (policy, [])


def _validate(document: Document) -> Policy:
    # As JSON and strict: a list may become a tuple and text a date, but "no" never becomes false, nor "3" a number.
    return Policy.model_validate_json(
        json.dumps(document.data), strict=True, context={"units": True}, by_alias=True, by_name=False
    )


def _people_beside(file: Path) -> People | None:
    people, errors = _read_people(file.parent)
    if errors:
        raise PolicyError(errors)
    return people


def _read_people(directory: Path) -> tuple[People | None, Sequence[Diagnostic]]:
    try:
        return load_people(directory), ()
    except PolicyError as error:
        return None, error.diagnostics


def _same_name(file: Path, name: str, first: str) -> Diagnostic:
    document = read(file.read_bytes(), str(file))
    message = f'the name "{name}" is used by {first} already; each policy has a DAG of its own'
    return document.report(("metadata", "name"), message, "duplicate-name")


def _place(item: Diagnostic) -> tuple[int, int]:
    return item.line, item.col
