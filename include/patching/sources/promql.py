"""PromQL: how label values are quoted, ``$series`` as matchers for many targets, the name in a selector; pure."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping

_LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)"""
    r"""|(?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>=~|!~|!=|=|\$series|.)""",
    re.DOTALL,
)
_RE2_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")

Matchers = Mapping[str, Mapping[str, str]]


def quote_value(value: str) -> str:
    """Quote a label value for PromQL: JSON's escapes are a subset of the Go escapes that PromQL reads."""
    return json.dumps(value, ensure_ascii=False)


def escape_regex(value: str) -> str:
    """Escape a literal for RE2, as Go's regexp.QuoteMeta does."""
    return _RE2_SPECIAL.sub(r"\\\g<0>", value)


def series_matchers(matchers: Matchers) -> str:
    """Write what ``$series`` stands for: one matcher a label, an anchored alternation where targets differ.

    All targets must have the same labels. The product of several alternations may match more series than were asked
    for; they are dropped when series are mapped back to targets. Raises ValueError for a bad label name.
    """
    values: dict[str, list[str]] = defaultdict(list)
    for labels in matchers.values():
        for label, value in labels.items():
            if not _LABEL.match(label):
                raise ValueError(f'"{label}" is no Prometheus label name')
            if value not in values[label]:
                values[label].append(value)
    return ",".join(
        f"{label}={quote_value(found[0])}"
        if len(found) == 1
        else f"{label}=~{quote_value('|'.join(escape_regex(value) for value in found))}"
        for label, found in sorted(values.items())
    )


def by_name(selector: str) -> str | None:
    """Give the selector of the same metric name without any other matcher; None where no name is written.

    Reads ``name{…}``, ``{__name__="name",…}`` (also ``=~``) and the quoted ``{"name",…}`` of Prometheus 3. What is no
    selector, such as ``sum(…)``, has no name here.
    """
    found = [match for match in _TOKEN.finditer(selector) if match.lastgroup != "space"]
    tokens = [(str(match.lastgroup), match.group()) for match in found]
    if tokens and tokens[0][0] == "word" and (len(tokens) == 1 or tokens[1][1] == "{"):
        return tokens[0][1]
    if not tokens or tokens[0][1] != "{":
        return None
    kept = [text for matcher in _matchers(tokens[1:]) if (text := _name_matcher(matcher)) is not None]
    return f"{{{','.join(kept)}}}" if kept else None


def _matchers(tokens: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Split what is between the braces at its commas."""
    parts: list[list[tuple[str, str]]] = [[]]
    for token in tokens:
        if token[1] == "}":
            break
        if token[1] == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _name_matcher(matcher: list[tuple[str, str]]) -> str | None:
    """Write a matcher of the name as Prometheus 2 reads it; None for a matcher of anything else."""
    if len(matcher) == 1 and matcher[0][0] == "text":
        return f"__name__={matcher[0][1]}"
    if len(matcher) == 3 and matcher[0][1] == "__name__":
        return "".join(text for _, text in matcher)
    return None
