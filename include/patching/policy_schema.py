"""JSON Schema of policy files, for editors and other tools; made from the models, committed, tested to be current."""

from __future__ import annotations

import json
from typing import Any

from patching.policy import Policy
from patching.policy_fields import MEANING
from patching.quantity import format_duration

FILE = "dags/policies/schemas/patch-policy.v1alpha1.json"
_DURATION = "duration such as"


def schema() -> dict[str, Any]:
    """Give the schema (draft 2020-12), with the meaning of each field and defaults as people write them."""
    made = Policy.model_json_schema(by_alias=True, mode="validation")
    for name, model in (("Policy", made), *made["$defs"].items()):
        for key, field in model.get("properties", {}).items():
            _describe(field, MEANING[name][key])
    made = _tidy(made)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": FILE.rpartition("/")[2], **made}


def schema_text() -> str:
    """Give the schema as the text of its file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _describe(field: dict[str, Any], meaning: str) -> None:
    kinds = [field, *field.get("anyOf", ())]
    if any(_DURATION in kind.get("description", "") for kind in kinds):
        meaning = f"{meaning.rstrip('.')} (a duration such as 90s, 30m, 4h, 2d)."
        if isinstance(field.get("default"), (int, float)):
            field["default"] = format_duration(field["default"])
    field["description"] = meaning
    field.pop("title", None)


def _tidy(node: Any) -> Any:
    """Leave out defaults that are whole sections: their fields say it, and editors would paste them in."""
    if isinstance(node, dict):
        return {key: _tidy(value) for key, value in node.items() if not (key == "default" and _is_section(value))}
    return [_tidy(item) for item in node] if isinstance(node, list) else node


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and not all(isinstance(item, str | int) for item in value)
    )
