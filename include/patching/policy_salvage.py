"""What can still be judged of a file whose fields are partly wrong, so that all of its errors show at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from patching.policy import API_VERSION, Policy
from patching.value import JsonValue

_REQUIRED: dict[str, JsonValue] = {
    "driver": {"name": "simulated", "connection": "none"},
    "targets": {"inventory": "none"},
}


def salvage(data: JsonValue, errors: Sequence[ErrorDetails]) -> Policy | None:
    """Give the policy without its wrong parts (each replaced by its default), None where nothing is left to judge.

    Unknown keys go alone; a wrong field takes along its whole entry of a section (``spec.rollout.waves``), and if
    that is required its whole section, because half of a list would break rules that the file does not break.
    """
    if not isinstance(data, dict) or not isinstance(data.get("spec"), dict):
        return None
    for depth in (3, 2):
        policy = _validated(_without(data, errors, depth))
        if policy is not None:
            return policy
    return None


def _validated(data: JsonValue) -> Policy | None:
    try:
        return Policy.model_validate_json(
            json.dumps(data), strict=True, context={"units": True}, by_alias=True, by_name=False
        )
    except ValidationError:
        return None


def _without(data: dict[str, Any], errors: Sequence[ErrorDetails], depth: int) -> dict[str, Any]:
    kept = copy.deepcopy(data)
    kept |= {"apiVersion": API_VERSION, "kind": "PatchPolicy"}
    if not isinstance(kept.get("metadata"), dict) or any(item["loc"][:1] == ("metadata",) for item in errors):
        kept["metadata"] = {"name": "unnamed"}
    for item in errors:
        loc = item["loc"] if item["type"] == "extra_forbidden" else item["loc"][:depth]
        if loc[:1] == ("spec",) or item["type"] == "extra_forbidden":
            _drop(kept, loc)
    for name, placeholder in _REQUIRED.items():
        kept["spec"].setdefault(name, placeholder)
    return kept


def _drop(data: Any, loc: Sequence[str | int]) -> None:
    for part in loc[:-1]:
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not inside:
            return
        data = data[part]
    if isinstance(data, dict):
        data.pop(loc[-1], None)
    elif isinstance(data, list):
        data.clear()
