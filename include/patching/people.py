"""People: which users belong to the groups that policies name as approvers (``policies/people.yaml``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from patching.diagnostics import Diagnostic
from patching.policy_document import load_document, parse_document
from patching.policy_yaml import Document
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
    return load_document(Path(directory) / PEOPLE_FILE, People, _check)


def parse_people(raw: str | bytes, path: str = PEOPLE_FILE) -> People:
    """Read people from text; raises PolicyError with all errors."""
    return parse_document(raw, path, People, _check)


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
