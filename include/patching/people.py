"""People: which users belong to the groups that policies name as approvers (``policies/people.yaml``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from patching.diagnostics import Diagnostic, PolicyError
from patching.policy_schema_errors import explain
from patching.policy_yaml import Document, read
from patching.value import CamelValue

PEOPLE_FILE = "people.yaml"


class People(CamelValue):
    """Groups of users; ``users`` lists people who may approve without being in any group."""

    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    users: tuple[str, ...] = ()

    def known_users(self) -> frozenset[str]:
        """Every user that the file names."""
        return frozenset(self.users).union(*self.groups.values())

    def knows(self, name: str) -> bool:
        """Whether a name is a group or a user of the file."""
        return name in self.groups or name in self.known_users()

    def resolve(self, names: Sequence[str]) -> tuple[str, ...]:
        """Replace groups by their users, keep users, drop repetitions, keep the order; unknown names stay as users."""
        found = (user for name in names for user in self.groups.get(name, (name,)))
        return tuple(dict.fromkeys(found))


def load_people(directory: Path | str) -> People | None:
    """Read ``people.yaml`` of a policies directory; None where there is none. Raises PolicyError with all errors."""
    file = Path(directory) / PEOPLE_FILE
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        raise PolicyError([Diagnostic(path=str(file), line=1, col=1, message=message, rule="file")]) from error
    return parse_people(raw, str(file))


def parse_people(raw: str | bytes, path: str = PEOPLE_FILE) -> People:
    """Read people from text; raises PolicyError with all errors."""
    document = read(raw, path)
    errors = list(document.errors)
    people = People()
    if document.root is not None:
        try:
            people = People.model_validate_json(json.dumps(document.data), strict=True, by_alias=True, by_name=False)
        except ValidationError as error:
            errors.extend(explain(error, People, document))
        errors.extend(_check(people, document))
    if errors:
        raise PolicyError(errors)
    return people


def _check(people: People, document: Document) -> list[Diagnostic]:
    errors = []
    for name, members in people.groups.items():
        if not members:
            message = f'the group "{name}" has nobody in it, so nobody could approve'
            errors.append(document.report(("groups", name), message, "empty-group", key=True))
        for index, member in enumerate(members):
            if member in people.groups:
                message = f'"{member}" is a group; groups list users, not other groups'
                errors.append(document.report(("groups", name, index), message, "nested-group"))
    return errors
