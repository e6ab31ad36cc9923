"""YAML of inventories: Ansible's dialect on PyYAML's C loader, with every scalar as the text that was written.

Labels are texts, so ``no``, ``010`` and ``1.10`` stay what a person wrote (YAML 1.1 would make false, 8 and 1.1 of
them). Vaulted values are left out: what is encrypted in a file must not appear as a label.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from patching.errors import InventoryError

_TAG = "tag:yaml.org,2002:"
_NOTHING = ("", "~", "null", "Null", "NULL")
_TRUTH = {"true": "true", "True": "true", "TRUE": "true", "false": "false", "False": "false", "FALSE": "false"}


class Marked(dict[Hashable, Any]):
    """A mapping that knows the line on which it began, from 1."""

    line = 0


class _InventoryLoader(yaml.CSafeLoader):
    """Resolves nothing but merge keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own shape

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> Marked:
        """Build a mapping; a duplicate key is an error, for one of the two would be lost."""
        _refuse_duplicates(node)
        self.flatten_mapping(node)
        built = Marked()
        built.line = node.start_mark.line + 1
        for key, value in node.value:
            built[str(self.construct_object(key, deep=True))] = self.construct_object(value, deep=True)
        return built


def _refuse_duplicates(node: MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        name = str(key.value)
        if name in first and name != "<<":
            problem = f'duplicate key "{name}"; first at line {first[name]}'
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        first[name] = key.start_mark.line + 1


def _text(_loader: _InventoryLoader, node: ScalarNode) -> str | None:
    if node.style:  # quoted, or a block: text as it is; the C loader calls plain ones ""
        return str(node.value)
    return None if node.value in _NOTHING else _TRUTH.get(node.value, str(node.value))


def _mapping(loader: _InventoryLoader, node: MappingNode) -> Marked:
    return loader.construct_mapping(node)


def _tagged(loader: _InventoryLoader, suffix: str, node: Node) -> Any:
    if suffix == "unsafe" and isinstance(node, ScalarNode):
        return str(node.value)
    if suffix.startswith("vault"):
        return None
    problem = f'the tag "!{suffix}" is not known here; known: !vault, !unsafe'
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_InventoryLoader.add_implicit_resolver(f"{_TAG}merge", yaml.resolver.Resolver.yaml_implicit_resolvers["<"][0][1], ["<"])
_InventoryLoader.add_constructor(f"{_TAG}str", _text)
_InventoryLoader.add_constructor(f"{_TAG}map", _mapping)
_InventoryLoader.add_multi_constructor("!", _tagged)


def read_yaml(text: str, path: Path) -> Any:
    """Read one document; raises InventoryError with ``file:line:column``."""
    try:
        return yaml.load(text, _InventoryLoader)  # noqa: S506 -- a safe loader: it builds texts, lists and mappings
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise InventoryError(f"{place}: this inventory is not YAML that can be read: {problem or error}") from error
    except RecursionError as error:
        raise InventoryError(f"{path}: this inventory is nested too deep; does an alias contain itself?") from error
