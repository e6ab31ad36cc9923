"""Reference pages and the JSON Schema, made from the code: ``python -m patching.cli.reference`` writes them.

A test compares what is committed with what would be written, so the pages cannot go stale.
"""

from __future__ import annotations

import sys
from typing import Any

from patching import policy_schema
from patching.cli import command_page
from patching.cli.lab import checkout
from patching.cli.rule_examples import FILES, MEANINGS, Example
from patching.rollout.states import TRANSITIONS

_MADE = "<!-- Made by `python -m patching.cli.reference`; do not edit. -->"


def pages() -> dict[str, str]:
    """Give every generated file: path in the checkout → text."""
    return {
        policy_schema.FILE: policy_schema.schema_text(),
        "docs/reference/policy.md": policy_page(),
        "docs/reference/policy-errors.md": errors_page(),
        "docs/reference/rollout-states.md": states_page(),
        "docs/reference/cli.md": f"{_MADE}\n\n{command_page.page()}",
    }


def policy_page() -> str:
    """Write the page of all fields: type, default and meaning, section by section."""
    made = policy_schema.schema()
    models: dict[str, Any] = made["$defs"]
    order: list[str] = []
    _collect(made, models, order)
    lines = [_MADE, "", "# Policy files", "", *_INTRO, "", *_table(made), ""]
    for name in order:
        lines += [f"## {name}", "", _code(models[name].get("description", "")), "", *_table(models[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def errors_page() -> str:
    """Write the page of all rules, each with a wrong and a right example; the ids are anchors."""
    lines = [_MADE, "", "# Errors in policy files", "", *_ERRORS_INTRO, ""]
    for title, rules in (("The file and its fields", FILES), ("What the policy means", MEANINGS)):
        lines += [f"## {title}", ""]
        for rule, example in rules.items():
            lines += [f"### {rule}", "", *_example(example), ""]
    return "\n".join(lines).rstrip() + "\n"


def states_page() -> str:
    """Write the page of a rollout's states: which may follow which, and why."""
    lines = [_MADE, "", "# States of a rollout", "", *_STATES_INTRO, "", "| from | to | because |", "|---|---|---|"]
    for state, following in TRANSITIONS.items():
        lines += [f"| {state} | {to} | {why} |" for to, why in following.items()]
        lines += [] if following else [f"| {state} | – | it is final |"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write every page into the checkout and say which ones changed."""
    for path, text in pages().items():
        file = checkout() / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"wrote {path}", file=sys.stderr)


_INTRO = [
    "A policy is one YAML file in `dags/policies/`. This page lists every key; how to write a policy is told in",
    "[write a policy](../how-to/write-a-policy.md), and every error message is explained in",
    "[errors in policy files](policy-errors.md).",
    "",
    "- The language is YAML 1.2: `22:30`, `no` and `on` are text, `010` is ten; no key may be unknown or appear twice.",
    "- A *duration* is a number with a unit, or several: `90s`, `30m`, `4h`, `2d`, `1h30m`.",
    "- *Number or percentage* is a whole number such as `2`, or a percentage such as `10%` (rounded down).",
    "- For completion in an editor, let a policy begin with",
    "  `# yaml-language-server: $schema=./schemas/patch-policy.v1alpha1.json`.",
]
_STATES_INTRO = [
    "Any other change is refused, whoever asks, and the refusal lists what is allowed. Each change is in the ledger",
    "with its reason, and with who asked where that was a person. "
    "See [operate a rollout](../how-to/operate-a-rollout.md).",
]
_ERRORS_INTRO = [
    "`patching validate` ends each message with the id of its rule in brackets. Every rule is listed here with an",
    "example that breaks it and one that keeps it. Most examples are a part of `spec`.",
]


def _collect(model: dict[str, Any], models: dict[str, Any], order: list[str]) -> None:
    names = [name for field in model["properties"].values() for name in _refs(field)]
    for name in names:
        if name not in order:
            order.append(name)
            _collect(models[name], models, order)


def _refs(field: Any) -> list[str]:
    if isinstance(field, dict):
        here = [field["$ref"].rpartition("/")[2]] if "$ref" in field else []
        return here + [name for inner in field.values() for name in _refs(inner)]
    return [name for inner in field for name in _refs(inner)] if isinstance(field, list) else []


def _table(model: dict[str, Any]) -> list[str]:
    required = model.get("required", [])
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, field in model["properties"].items():
        default = "**required**" if key in required else _default(field)
        meaning = field["description"].replace(" (a duration such as 90s, 30m, 4h, 2d)", "").replace("|", r"\|")
        lines.append(f"| `{key}` | {_kind(field)} | {default} | {meaning} |")
    return lines


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "duration" in field.get("description", "") and "pattern" in str(field):
        return "duration"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        kinds = [_kind(inner) for inner in field["anyOf"] if inner.get("type") != "null"]
        return "number or percentage" if kinds == ["whole number", "text"] else " or ".join(dict.fromkeys(kinds))
    return _plain(field)


def _plain(field: dict[str, Any]) -> str:
    kind = field.get("type")
    if kind == "array":
        return f"list of {_kind(field['items'])}"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_kind(values)}" if isinstance(values, dict) else "mapping"
    words = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    text = "date" if field.get("format") == "date" else words.get(str(kind), "anything")
    low, high = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum", field.get("exclusiveMaximum"))
    if text in ("whole number", "number") and high is not None:
        return f"{text} from {low} to {high}"
    return text


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if value in (None, "", []):
        return "–"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _example(example: Example) -> list[str]:
    if not example.wrong:
        return [example.meaning]
    kind = "text" if example.wrong_bytes is not None else "yaml"
    lines = [example.meaning, "", "Wrong:", "", f"```{kind}", example.wrong.strip("\n"), "```", ""]
    if example.people is not None:
        lines[2:2] = ["With this `people.yaml`:", "", "```yaml", example.people.strip("\n"), "```", ""]
    return [*lines, "Right:", "", f"```{kind}", example.right.strip("\n"), "```"]


def _code(text: str) -> str:
    return text.replace("``", "`").replace("\n\n", "\n")


if __name__ == "__main__":
    main()
