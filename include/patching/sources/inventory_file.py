"""Inventories that are files: ``ansible-inventory --list`` JSON, Ansible's YAML form, or a plain list of targets.

Labels of a target are its ``labels`` variable (they win), every other variable with a short plain value whose name is
not Ansible's own (``ansible_*``, ``inventory_*``, ``group_names`` …), and ``group:<name>`` = ``true`` for every group
it is in, parents included. Variables that look like secrets never become labels: labels are stored in the ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from patching.diagnostics import did_you_mean
from patching.errors import ConnectionMissing, InventoryError
from patching.ledger.redaction import redact_text
from patching.sources.ansible_groups import ALL, Groups
from patching.sources.base import ConnectionSource, InventorySource
from patching.sources.inventory_yaml import read_yaml
from patching.target import Member, Target

SUFFIXES = (".json", ".yaml", ".yml")
LONGEST_LABEL = 200
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]*$")
_SECRET = re.compile(r"(?i)(?:^|[_-])(?:pass|passwd|passphrase|\w*password|\w*secret|\w*token|credentials?|\w*key)$")
_NOT_LABELS = ("labels", "omit", "environment", "playbook_dir", "group_names", "groups", "hostvars")
_OWN_PREFIXES = ("ansible_", "inventory_", "_")
_PLAIN = {"name", "address", "port", "user", "labels"}


def resolve_inventory(name: str, folder: Path, connections: ConnectionSource | None) -> InventorySource:
    """Find the inventory that a policy names: a file of the folder (with or without suffix), else a connection's path.

    Raises InventoryError that lists what there is.
    """
    for path in (folder / name, *(folder / f"{name}{suffix}" for suffix in SUFFIXES)):
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return InventoryFile(path)
    stated = _connection_path(name, connections)
    if stated is not None:
        return InventoryFile(stated)
    known = sorted({item.stem for item in folder.glob("*") if item.suffix in SUFFIXES})
    hint = did_you_mean(name, known) or "; the folder has none yet"
    raise InventoryError(
        f'unknown inventory "{name}": neither a file in {folder} nor a connection whose extra has "path"{hint}'
    )


def _connection_path(name: str, connections: ConnectionSource | None) -> Path | None:
    if connections is None:
        return None
    try:
        stated = connections.get(name).extra.get("path")
    except ConnectionMissing:
        return None
    if not stated:
        raise InventoryError(f'connection "{name}" names no inventory: give its extra a "path" to the inventory file')
    return Path(str(stated))


class InventoryFile:
    """One inventory file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def targets(self) -> Sequence[Target]:
        """Read every target, in the order of the file; raises InventoryError with the place and what to write."""
        found: dict[str, Target] = {}
        for place, target in self._read():
            if target.name in found:
                raise InventoryError(f'{place}: target "{target.name}" is there twice; a name stands for one target')
            found[target.name] = target
        return tuple(found.values())

    def _read(self) -> Iterator[tuple[str, Target]]:
        document = self._parse()
        if document is None:
            raise InventoryError(f"{self.path}: the inventory is empty; write `targets:` or `all:` with hosts")
        if isinstance(document, list):
            document = {"targets": document}
        if not isinstance(document, dict):
            raise InventoryError(f"{self.path}: an inventory is a mapping; write `targets:` or `all:` with hosts")
        if "targets" in document and not isinstance(document["targets"], dict):
            yield from self._plain(document["targets"])
        else:
            yield from self._ansible(document)

    def _parse(self) -> Any:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InventoryError(f"{self.path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InventoryError(f"{self.path} is not UTF-8; save it as UTF-8") from error
        if self.path.suffix != ".json":
            return read_yaml(text, self.path)
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            place = f"{self.path}:{error.lineno}:{error.colno}"
            raise InventoryError(f"{place}: this inventory is not JSON: {error.msg}") from error

    def _plain(self, items: Any) -> Iterator[tuple[str, Target]]:
        if not isinstance(items, list):
            raise InventoryError(f"{self.path}: targets is a list; write `- {{name: web-1, address: 10.0.0.1}}`")
        for number, item in enumerate(items, 1):
            line = getattr(item, "line", None)
            place = f"{self.path}:{line}" if line else f"{self.path}: target {number}"
            if not isinstance(item, dict) or not item.get("name"):
                raise InventoryError(f"{place}: the target has no name; write `{{name: web-1, address: 10.0.0.1}}`")
            unknown = sorted(set(item) - _PLAIN)
            if unknown:
                raise InventoryError(f'{place}: unknown key "{unknown[0]}"{did_you_mean(unknown[0], sorted(_PLAIN))}')
            variables = {f"ansible_{key}": item.get(word) for key, word in _ADDRESSING.items()}
            yield place, self._target(place, str(item["name"]), {**variables, "labels": item.get("labels")}, ())

    def _ansible(self, document: Mapping[str, Any]) -> Iterator[tuple[str, Target]]:
        groups, meta = Groups(str(self.path)), document.get("_meta")
        listed = meta is not None or (self.path.suffix == ".json" and any(map(_is_listed, document.values())))
        for name, body in document.items():
            if name != "_meta":
                (groups.add_listed if listed else groups.add_yaml)(name, body)
        hostvars = (meta or {}).get("hostvars") or {} if isinstance(meta, dict) else {}
        for host in hostvars:
            groups.group(ALL).hosts.setdefault(host, {})
        for host, variables, member in groups.hosts():
            own = {**variables, **(hostvars.get(host) or {})}
            yield str(self.path), self._target(f"{self.path}: host {host}", host, own, member)

    def _target(self, place: str, name: str, variables: Mapping[str, Any], groups: Sequence[str]) -> Target:
        if not _NAME.match(name):
            raise InventoryError(f'{place}: "{name}" is no name of a target; use letters, digits and . _ - : @')
        own = variables.get("labels") or {}
        if not isinstance(own, dict) or not all(_plain_value(value) for value in own.values()):
            raise InventoryError(f'{place}: labels of "{name}" is a mapping of short texts; write {{env: prod}}')
        labels = {key: _text(value) for key, value in variables.items() if _is_label(key, value)}
        labels |= {str(key): _text(value) for key, value in own.items()}
        labels |= {f"group:{group}": "true" for group in groups}
        return Target(name=name, labels=labels, members=(_member(place, name, variables),))


_ADDRESSING = {"host": "address", "port": "port", "user": "user"}


def _member(place: str, name: str, variables: Mapping[str, Any]) -> Member:
    address, user = str(variables.get("ansible_host") or name), variables.get("ansible_user")
    if "{{" in address or "{{" in str(user):
        raise InventoryError(
            f"{place}: the address is a template ({address}); give its value: templates are not evaluated here"
        )
    if address.startswith("-") or any(char.isspace() for char in address):
        raise InventoryError(f'{place}: "{address}" is no address')
    port = variables.get("ansible_port")
    if port is not None and not (str(port).isdigit() and 0 < int(port) < 65536):
        raise InventoryError(f'{place}: "{port}" is no port; write a number from 1 to 65535')
    return Member(address=address, port=int(port) if port is not None else None, user=str(user) if user else None)


def _is_listed(body: Any) -> bool:
    return isinstance(body, list) or (isinstance(body, dict) and isinstance(body.get("hosts"), list))


def _plain_value(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool)) and len(str(value)) <= LONGEST_LABEL and "\n" not in str(value)


def _is_label(key: str, value: Any) -> bool:
    if key in _NOT_LABELS or key.startswith(_OWN_PREFIXES) or not _plain_value(value):
        return False
    text = str(value)
    return "{{" not in text and not _SECRET.search(key) and redact_text(text) == text


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
