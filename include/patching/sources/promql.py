"""PromQL: how label values are quoted and how ``$series`` becomes matchers for many targets at once; pure."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping

_LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")
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
