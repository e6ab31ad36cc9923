"""Inventories that are files: ``ansible-inventory --list`` JSON, Ansible's YAML form, or a plain list of targets.

Labels of a target are its ``labels`` variable, every other plain variable that is not Ansible's own, and
``group:<name>`` = ``true`` for every group it is in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from patching.errors import ConnectionMissing, InventoryError
from patching.sources.base import ConnectionSource, InventorySource
from patching.target import Member, Target

SUFFIXES = (".json", ".yaml", ".yml")


def resolve_inventory(name: str, folder: Path, connections: ConnectionSource | None) -> InventorySource:
    """Find the inventory that a policy names: a file of the folder (with or without suffix), else a connection's path.

    Raises InventoryError that lists what there is.
    """
    for path in (folder / name, *(folder / f"{name}{suffix}" for suffix in SUFFIXES)):
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return InventoryFile(path)
    if connections is not None:
        try:
            path_text = connections.get(name).extra.get("path")
        except ConnectionMissing:
            path_text = None
        if path_text:
            return InventoryFile(Path(str(path_text)))
    known = sorted(item.stem for item in folder.glob("*") if item.suffix in SUFFIXES)
    close = get_close_matches(name, known, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else f"; there is: {', '.join(known) or 'none'}"
    raise InventoryError(f'unknown inventory "{name}": neither a file in {folder} nor a connection with a path{hint}')


class InventoryFile:
    """One inventory file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def targets(self) -> Sequence[Target]:
        """Read every target, in the order of the file; raises InventoryError with the file and what to write."""
        found: dict[str, Target] = {}
        for target in self._read():
            if target.name in found and found[target.name] != target:
                raise InventoryError(f'{self.path}: target "{target.name}" is there twice, with different addresses')
            found[target.name] = target
        return tuple(found.values())

    def _read(self) -> Iterator[Target]:
        document = self._parse()
        if not isinstance(document, dict):
            raise InventoryError(f"{self.path}: an inventory is a mapping; write `ansible-inventory --list` output")
        if "targets" in document:
            yield from self._plain(document["targets"])
        elif "_meta" in document:
            yield from self._ansible_json(document)
        else:
            yield from self._ansible_yaml(document)

    def _parse(self) -> Any:
        try:
            text = self.path.read_text(encoding="utf-8")
            return json.loads(text) if self.path.suffix == ".json" else yaml.load(text, yaml.CSafeLoader)
        except OSError as error:
            raise InventoryError(f"{self.path} cannot be read: {error.strerror}") from error
        except (ValueError, yaml.YAMLError) as error:
            raise InventoryError(f"{self.path} is not valid: {error}") from error

    def _plain(self, items: Any) -> Iterator[Target]:
        if not isinstance(items, list):
            raise InventoryError(f"{self.path}: targets is a list of {{name, address, labels}}")
        for number, item in enumerate(items, 1):
            if not isinstance(item, dict) or "name" not in item:
                raise InventoryError(f"{self.path}: target {number} has no name; write {{name, address, labels}}")
            variables = {"ansible_host": item.get("address", item["name"]), "ansible_port": item.get("port")}
            variables |= {"ansible_user": item.get("user"), "labels": item.get("labels", {})}
            yield self._target(str(item["name"]), variables, ())

    def _ansible_json(self, document: Mapping[str, Any]) -> Iterator[Target]:
        hostvars = document["_meta"].get("hostvars", {})
        groups = {
            name: body for name, body in document.items() if name not in ("_meta", "all") and isinstance(body, dict)
        }
        member = _membership(groups)
        names = dict.fromkeys(hostvars)
        for body in [*groups.values(), document.get("all", {})]:
            names |= dict.fromkeys(body.get("hosts", ()) if isinstance(body, dict) else ())
        for name in names:
            yield self._target(name, hostvars.get(name, {}), member.get(name, ()))

    def _ansible_yaml(self, document: Mapping[str, Any]) -> Iterator[Target]:
        variables: dict[str, dict[str, Any]] = {}
        member: dict[str, list[str]] = {}

        def walk(name: str, body: Any, inherited: Mapping[str, Any], path: tuple[str, ...]) -> None:
            body = body or {}
            if not isinstance(body, dict):
                raise InventoryError(f'{self.path}: group "{name}" is a mapping with hosts, children, vars')
            known = {**inherited, **(body.get("vars") or {})}
            groups = path if name == "all" else (*path, name)
            for host, own in (body.get("hosts") or {}).items():
                variables[host] = {**known, **variables.get(host, {}), **(own or {})}
                member.setdefault(host, []).extend(groups)
            for child, below in (body.get("children") or {}).items():
                walk(child, below, known, groups)

        for name, body in document.items():
            walk(name, body, {}, ())
        for host, found in variables.items():
            yield self._target(str(host), found, tuple(dict.fromkeys(member[host])))

    def _target(self, name: str, variables: Mapping[str, Any], groups: Sequence[str]) -> Target:
        labels = {key: _text(value) for key, value in variables.items() if _is_label(key, value)}
        own = variables.get("labels") or {}
        if not isinstance(own, dict):
            raise InventoryError(f'{self.path}: labels of "{name}" is a mapping of texts')
        labels |= {str(key): _text(value) for key, value in own.items()}
        labels |= {f"group:{group}": "true" for group in groups}
        port, user = variables.get("ansible_port"), variables.get("ansible_user")
        member = Member(
            address=str(variables.get("ansible_host") or name),
            port=int(port) if port is not None else None,
            user=str(user) if user else None,
        )
        return Target(name=name, labels=labels, members=(member,))


def _is_label(key: str, value: Any) -> bool:
    return not key.startswith("ansible_") and key != "labels" and isinstance(value, (str, int, float, bool))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _membership(groups: Mapping[str, Any]) -> dict[str, list[str]]:
    """Say for every host which groups it is in, children included."""
    member: dict[str, list[str]] = {}

    def hosts(name: str, seen: tuple[str, ...] = ()) -> list[str]:
        body = groups.get(name, {})
        found = list(body.get("hosts", ()))
        for child in body.get("children", ()):
            if child not in seen:
                found += hosts(child, (*seen, name))
        return found

    for name in groups:
        for host in hosts(name):
            if name not in member.setdefault(host, []):
                member[host].append(name)
    return member
