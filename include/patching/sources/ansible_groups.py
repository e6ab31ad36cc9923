"""Ansible's groups as a graph: which groups a host is in, children included, and which variables it gets from them.

Variables are merged as Ansible does: ``all`` first, then groups from the outermost to the innermost (by depth, then
by name), the host's own last (docs.ansible.com, "How variables are merged").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from patching.errors import InventoryError

ALL = "all"
NO_LABEL = (ALL, "ungrouped")
DEEPEST = 40
MOST_HOSTS = 200_000
_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")
_PORT = re.compile(r"^([^:\[\]]+):(\d+)$")


@dataclass
class Group:
    """One group: its own variables, hosts with their own variables, and names of its children."""

    variables: dict[str, Any] = field(default_factory=dict)
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)


class Groups:
    """All groups of one inventory; ``origin`` is named in errors."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.groups: dict[str, Group] = {}

    def group(self, name: str) -> Group:
        """Give a group, new or known."""
        return self.groups.setdefault(name, Group())

    def add_yaml(self, name: str, body: Any, depth: int = 0) -> None:
        """Take in a group of the YAML form, with what is below it; raises InventoryError for a wrong shape."""
        if depth > DEEPEST:
            raise InventoryError(f'{self.origin}: group "{name}" is nested deeper than {DEEPEST} levels')
        parts = self._mapping(name, "a mapping with hosts, children, vars", body)
        group = self.group(name)
        unknown = set(parts) - {"hosts", "children", "vars"}
        if unknown:
            word = sorted(unknown)[0]
            raise InventoryError(f'{self.origin}: group "{name}" has "{word}"; allowed: hosts, children, vars')
        group.variables |= self._mapping(name, "vars: a mapping", parts.get("vars"))
        for pattern, own in self._mapping(name, "hosts: a mapping of names", parts.get("hosts")).items():
            variables = self._mapping(pattern, "a mapping of variables", own)
            for host, port in expand_hosts(str(pattern), self.origin):
                known = {"ansible_port": port} if port else {}
                group.hosts.setdefault(host, {}).update({**known, **variables})
        for child, below in self._mapping(name, "children: a mapping of groups", parts.get("children")).items():
            if child not in group.children:
                group.children.append(child)
            self.add_yaml(child, below, depth + 1)

    def add_listed(self, name: str, body: Any) -> None:
        """Take in a group of ``ansible-inventory --list``, where hosts and children are lists of names."""
        if isinstance(body, list):
            body = {"hosts": body}
        parts, group = self._mapping(name, "a mapping with hosts, children", body), self.group(name)
        group.variables |= self._mapping(name, "vars: a mapping", parts.get("vars"))
        for key in ("hosts", "children"):
            if not isinstance(parts.get(key) or [], list):
                raise InventoryError(f'{self.origin}: group "{name}": {key} is a list of names')
        group.hosts |= {str(host): {} for host in parts.get("hosts") or ()}
        group.children += [str(child) for child in parts.get("children") or ()]

    def hosts(self) -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
        """Give every host, in the order of the inventory, with its merged variables and its groups."""
        parents = self._parents()
        depth = {name: self._depth(name, parents) for name in self.groups}
        member: dict[str, list[str]] = {}
        for name, group in self.groups.items():
            for host in group.hosts:
                member.setdefault(host, []).append(name)
        for host, direct in member.items():
            found = self._with_ancestors(direct, parents) | {ALL}
            variables: dict[str, Any] = {}
            for name in sorted(found, key=lambda item: (depth.get(item, 0), item)):
                variables |= self.groups[name].variables if name in self.groups else {}
            for name in direct:
                variables |= self.groups[name].hosts[host]
            yield host, variables, tuple(sorted(found - set(NO_LABEL)))

    def _parents(self) -> dict[str, list[str]]:
        parents: dict[str, list[str]] = {}
        for name, group in self.groups.items():
            for child in group.children:
                parents.setdefault(child, []).append(name)
        return parents

    def _depth(self, name: str, parents: Mapping[str, list[str]], seen: tuple[str, ...] = ()) -> int:
        if name == ALL:
            return 0
        if name in seen:
            raise InventoryError(f'{self.origin}: group "{name}" contains itself, by way of {", ".join(seen)}')
        return 1 + max((self._depth(item, parents, (*seen, name)) for item in parents.get(name, ())), default=0)

    def _with_ancestors(self, names: list[str], parents: Mapping[str, list[str]]) -> set[str]:
        found, left = set(names), list(names)
        while left:
            for name in parents.get(left.pop(), ()):
                if name not in found:
                    found.add(name)
                    left.append(name)
        return found

    def _mapping(self, name: str, meaning: str, body: Any) -> dict[str, Any]:
        if body is None:
            return {}
        if not isinstance(body, dict):
            line = getattr(body, "line", None)
            place = f"{self.origin}:{line}" if line else self.origin
            raise InventoryError(f'{place}: "{name}" must be {meaning}, not {type(body).__name__}')
        return body


def expand_hosts(pattern: str, origin: str) -> Iterator[tuple[str, str | None]]:
    """Expand ``web[01:12].example`` (also ``[a:f]`` and a step) and split off ``:port``; raises InventoryError."""
    with_port = _PORT.match(pattern)
    name, port = (with_port[1], with_port[2]) if with_port else (pattern, None)
    ranges = [_range(match, pattern, origin) for match in _RANGE.finditer(name)]
    total = 1
    for items in ranges:
        total *= len(items)
    if total > MOST_HOSTS:
        raise InventoryError(f'{origin}: "{pattern}" stands for {total} hosts; at most {MOST_HOSTS} are read')
    pieces = _RANGE.split(name)[::4]
    for chosen in product(*ranges):
        filled = "".join(piece + part for piece, part in zip(pieces, (*chosen, ""), strict=True))
        yield filled, port


def _range(match: re.Match[str], pattern: str, origin: str) -> list[str]:
    first, last, step = match[1], match[2], int(match[3] or 1)
    numbers = first.isdigit() and last.isdigit()
    letters = len(first) == len(last) == 1 and first.isalpha() and last.isalpha()
    if not step or not (numbers or letters):
        raise InventoryError(f'{origin}: "{pattern}" has a range that cannot be read; write [01:12], [a:f] or [0:9:3]')
    if numbers:
        width = len(first) if first.startswith("0") else 0
        found = [str(number).zfill(width) for number in range(int(first), min(int(last), MOST_HOSTS) + 1, step)]
    else:
        found = [chr(code) for code in range(ord(first), ord(last) + 1, step)]
    if not found:
        raise InventoryError(f'{origin}: "{pattern}" stands for no host: the range ends before it begins')
    return found
