"""``patching validate`` and ``patching schema``: for editors, pre-commit hooks and CI; no Airflow, no network."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from patching.diagnostics import Diagnostic, PolicyError, as_json, render_all
from patching.limits import LIMITS_FILE, load_limits
from patching.people import PEOPLE_FILE, load_people
from patching.policy_files import find_policies, load_all

Paths = Annotated[list[Path], typer.Argument(help="Policy files, or directories of them.", metavar="PATH")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def validate(paths: Paths, as_json_: AsJson = False) -> int:
    """Check policy files and show every error with its place.

    Exit code 0: no errors. 1: errors. 2: a path does not exist or has no policy.
    """
    files: list[Path] = []
    for path in paths:
        found = find_policies(path) if path.is_dir() else [path]
        if not path.exists() or not found:
            reason = "has no policy files (*.yaml)" if path.exists() else "does not exist"
            print(f"patching validate: {path} {reason}", file=sys.stderr)
            return 2
        files.extend(found)
    errors = _check(list(dict.fromkeys(files)))
    count = len({str(file) for file in files} | {error.path for error in errors})
    if as_json_:
        print(json.dumps(as_json(errors, count), indent=2))
    else:
        print(render_all(errors, count))
    return 1 if errors else 0


def schema() -> None:
    """Print the JSON Schema of policy files.

    Editors with a YAML language server use it by the first line of a policy file; the repository has it as
    dags/policies/schemas/patch-policy.v1alpha1.json. Exit code 0: it is printed.
    """
    from patching.policy_schema import schema_text

    print(schema_text(), end="")


def _check(files: list[Path]) -> list[Diagnostic]:
    errors: list[Diagnostic] = []
    for people in (file for file in files if file.name == PEOPLE_FILE):
        try:
            load_people(people.parent)
        except PolicyError as error:
            errors.extend(error.diagnostics)
    for folder in dict.fromkeys(file.parent for file in files):
        try:
            load_limits(folder)
        except PolicyError as error:
            errors.extend(error.diagnostics)
    policies = [file for file in files if file.name not in (PEOPLE_FILE, LIMITS_FILE)]
    _, found = load_all(policies, now=datetime.now(UTC))
    return list(dict.fromkeys([*errors, *found]))
