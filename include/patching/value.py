"""The frozen base of every value that is compared, stored in the ledger or shown to a person."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

JsonValue: TypeAlias = Any

_SAFE_INTEGER = 2**53 - 1


class Value(BaseModel):
    """An immutable value whose JSON form is stable: the same value always gives the same digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CamelValue(Value):
    """A value that people write in YAML, in the field's camelCase."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


def canonical(value: Value | JsonValue) -> bytes:
    """Serialise to canonical JSON (RFC 8785): the bytes that digests and the hash chain cover."""
    plain = value.model_dump(mode="json") if isinstance(value, Value) else value
    if _same_in_c(plain):
        return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return rfc8785.dumps(plain)


def _same_in_c(value: JsonValue) -> bool:
    """Whether Python's own encoder, ten times as fast, gives the canonical form.

    It differs in the text of floats, in the order of names beyond ASCII, and in integers that RFC 8785 refuses.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_SAFE_INTEGER <= value <= _SAFE_INTEGER)
    if kind is dict:
        return all(type(name) is str and name.isascii() and _same_in_c(item) for name, item in value.items())
    return kind is list and all(map(_same_in_c, value))


def not_valid(error: ValidationError) -> str:
    """Say in one sentence where a kept document is not valid in this release."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    place = f"{error.title} at {where}" if where else error.title
    return f"what was frozen with it is not valid in this release: {place}: {first['msg']}{more}"


def digest(value: Value | JsonValue) -> str:
    """Name a value by the SHA-256 of its canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()
