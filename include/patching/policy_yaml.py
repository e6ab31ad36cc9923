"""YAML 1.2 core schema on PyYAML's C loader: plain data, and a position for every part of it.

The C loader is about twenty times faster than a pure-Python one, but speaks YAML 1.1, in which ``22:30`` is 1350 and
``no`` is false. So the C loader only composes nodes; resolving and building are done here by the core schema
(yaml.org/spec/1.2.2, chapter 10.3): null, true/false, decimal, ``0o`` and ``0x`` numbers, floats; all else is text.
Numbers that JSON cannot carry exactly are refused, because digests are made of canonical JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from patching.diagnostics import Diagnostic
from patching.policy_source import Source, Span, decode, refuse_text
from patching.value import JsonValue

MAX_DEPTH = 40
MAX_VALUES = 20_000
_EXACT = 2**53 - 1
_TAG = "tag:yaml.org,2002:"
_TAB_INDENT = re.compile(r"(?:^|(?<=[\n\r\x85\u2028\u2029])) *\t+(?=[^\s#])")
_RADIX = re.compile(r"^0(?:o[0-7]+|x[0-9a-fA-F]+)$")

Loc = Sequence[str | int]


class _CoreLoader(yaml.CSafeLoader):
    """Composes nodes with the tags of the core schema; never constructs anything."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- PyYAML's own shape


for _name, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
):
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


@dataclass
class Document:
    """One YAML document: its plain data, and its nodes for positions. ``root`` is None where nothing could be read."""

    source: Source
    root: Node | None = None
    data: JsonValue = None
    errors: list[Diagnostic] = field(default_factory=list)

    def span(self, loc: Loc, *, key: bool = False) -> Span:
        """Find the place of the value (or, ``key``, of the key) at ``loc``, or of its nearest existing parent."""
        node, key_node = self.root, None
        for part in loc:
            found = _child(node, part)
            if found is None:
                break
            key_node, node = found
        if node is None:
            return Span(1, 1, 2)
        wide = isinstance(node, (MappingNode, SequenceNode)) and not node.flow_style
        if key_node is not None and (key or wide or _empty(node)):
            node = key_node
        return self._node_span(node)

    def report(self, loc: Loc, message: str, rule: str, *, key: bool = False) -> Diagnostic:
        """Make a diagnostic at ``loc``."""
        return self.source.diagnostic(self.span(loc, key=key), message, rule)

    def _node_span(self, node: Node) -> Span:
        start, end = node.start_mark, node.end_mark
        line = start.line + 1
        if end.line == start.line:
            return Span(line, start.column + 1, max(end.column, start.column + 1) + 1)
        if isinstance(node, MappingNode) and not node.flow_style and node.value:
            return self._node_span(node.value[0][0])
        return Span(line, start.column + 1, max(len(self.source.line(line).rstrip()), start.column + 1) + 1)


def read(raw: bytes | str, path: str, *, max_values: int = MAX_VALUES) -> Document:
    """Read one document; never raises for what the text contains: ``errors`` says what is wrong, with positions."""
    text = decode(raw, path)
    if isinstance(text, Diagnostic):
        return Document(Source(path, ""), errors=[text])
    source = Source(path, text)
    refused = refuse_text(source)
    if refused:
        return Document(source, errors=[refused])
    root = _compose(source)
    if isinstance(root, Diagnostic):
        return Document(source, errors=[root])
    builder = _Builder(source, max_values)
    data = builder.build(root, 0)
    if builder.values > max_values:
        builder.fail(root, f"aliases expand to more than {max_values} values; write them out", "yaml-alias-bomb")
    fatal = any(item.rule == "yaml-alias-bomb" for item in builder.errors)
    errors = [*_tabs(source, root), *builder.errors]
    return Document(source, None if fatal else root, None if fatal else data, errors)


def _compose(source: Source) -> Node | Diagnostic:
    try:
        loader = _CoreLoader(source.text)
        root = loader.get_node() if loader.check_node() else None
        if root is not None and loader.check_node():
            span = _mark_of_next(loader)
            return source.diagnostic(span, "a second document starts here; a file has exactly one", "yaml-documents")
    except yaml.YAMLError as error:
        return _syntax(source, error)
    if root is None or (isinstance(root, ScalarNode) and root.tag == _TAG + "null"):
        return source.diagnostic(Span(1, 1, 2), "the file is empty; a policy was expected", "yaml-empty")
    return root


def _mark_of_next(loader: _CoreLoader) -> Span:
    node = loader.get_node()
    mark = node.start_mark if node is not None else yaml.Mark("", 0, 0, 0, None, 0)
    return Span(mark.line + 1, mark.column + 1, mark.column + 2)


def _syntax(source: Source, error: yaml.YAMLError) -> Diagnostic:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    context = getattr(error, "context", None)
    if mark is None:
        return source.diagnostic(Span(1, 1, 2), f"this is not YAML: {problem}", "yaml-syntax")
    span = Span(mark.line + 1, mark.column + 1, mark.column + 2)
    before = source.line(span.line)[: mark.column + 1]
    if "\t" in before and not before.strip():
        col = before.index("\t") + 1
        tab = Span(span.line, col, col + 1)
        return source.diagnostic(tab, "a tab is used for indentation; YAML allows only spaces", "yaml-tab")
    if "nesting depth" in problem:
        return source.diagnostic(span, f"nested deeper than {MAX_DEPTH} levels", "yaml-depth")
    if "undefined alias" in problem:
        return source.diagnostic(span, "the alias refers to no anchor above it", "yaml-alias")
    opened = getattr(error, "context_mark", None)
    where = f" ({context} that began at line {opened.line + 1})" if context and opened is not None else ""
    return source.diagnostic(span, f"this is not YAML: {problem}{where}", "yaml-syntax")


def _tabs(source: Source, root: Node) -> Iterator[Diagnostic]:
    """Refuse tabs in indentation that the parser lets pass (inside ``[ ]`` and ``{ }``), but not inside text."""
    if "\t" not in source.text:
        return
    texts = [(n.start_mark.index, n.end_mark.index) for n in _scalars(root) if n.start_mark.line != n.end_mark.line]
    for found in _TAB_INDENT.finditer(source.text):
        index = source.text.index("\t", found.start())
        if not any(first <= index < last for first, last in texts):
            yield source.diagnostic(
                source.at(index), "a tab is used for indentation; YAML allows only spaces", "yaml-tab"
            )


def _scalars(root: Node) -> Iterator[ScalarNode]:
    seen: set[int] = set()
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(node)
        elif isinstance(node, ScalarNode):
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.extend(node.value)


def _child(node: Node | None, part: str | int) -> tuple[Node | None, Node] | None:
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
        return None, node.value[part]
    return None


def _empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.start_mark.index == node.end_mark.index


class _Builder:
    """Turns nodes into plain data; counts what aliases expand to, and collects errors instead of raising."""

    def __init__(self, source: Source, max_values: int) -> None:
        self.source = source
        self.max_values = max_values
        self.values = 0
        self.errors: list[Diagnostic] = []
        self._reported: set[int] = set()
        self._open: set[int] = set()

    def fail(self, node: Node, message: str, rule: str) -> None:
        """Report a node once, however many aliases lead to it."""
        if id(node) not in self._reported:
            self._reported.add(id(node))
            span = Document(self.source, node).span(())
            self.errors.append(self.source.diagnostic(span, message, rule))

    def build(self, node: Node, depth: int) -> JsonValue:
        """Build a node's data; stops building once the limit of values is passed."""
        self.values += 1
        if self.values > self.max_values:
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if depth >= MAX_DEPTH or id(node) in self._open:
            looped = id(node) in self._open
            message = "the alias contains itself" if looped else f"nested deeper than {MAX_DEPTH} levels"
            self.fail(node, message, "yaml-alias-bomb" if looped else "yaml-depth")
            return None
        self._open.add(id(node))
        mapping = isinstance(node, MappingNode)
        if node.tag != _TAG + ("map" if mapping else "seq"):
            self._tag(node)
        built: JsonValue
        built = self._mapping(node, depth) if mapping else [self.build(item, depth + 1) for item in node.value]
        self._open.discard(id(node))
        return built

    def _mapping(self, node: Node, depth: int) -> dict[str, JsonValue]:
        built: dict[str, JsonValue] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag != _TAG + "str":
                self.fail(key, f"a key must be text; quote it: {_quoted(key)}", "yaml-key")
            elif key.value in first:
                message = f'duplicate key "{key.value}"; first at line {first[key.value]}'
                self.fail(key, message, "duplicate-key")
            else:
                first[key.value] = key.start_mark.line + 1
                built[key.value] = self.build(value, depth + 1)
        return built

    def _scalar(self, node: ScalarNode) -> JsonValue:
        tag, text = node.tag, node.value
        if tag == _TAG + "str":
            return text
        if tag == _TAG + "null":
            return None
        if tag == _TAG + "bool":
            return text.lower() == "true"
        if tag in (_TAG + "int", _TAG + "float"):
            return self._number(node)
        self._tag(node)
        return text

    def _number(self, node: ScalarNode) -> int | float | None:
        text = node.value
        try:
            if node.tag == _TAG + "int":
                number: int | float = int(text, 0) if _RADIX.match(text) else int(text)
            else:
                number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            number = math.inf
        if not math.isfinite(number) or (isinstance(number, int) and abs(number) > _EXACT):
            shown = text if len(text) <= 24 else text[:21] + "..."
            self.fail(node, f"{shown} cannot be stored exactly as a number; quote it if it is text", "yaml-number")
            return None
        return number

    def _tag(self, node: Node) -> None:
        shown = node.tag.replace(_TAG, "!!")
        self.fail(node, f'the tag "{shown}" is not allowed; policies hold plain data only', "yaml-tag")


def _quoted(key: Node) -> str:
    return f'"{key.value}"' if isinstance(key, ScalarNode) else "only a single word can be a key"
