"""The frozen base of every value that is compared, stored in the ledger or shown to a person."""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

import rfc8785
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

JsonValue: TypeAlias = Any


class Value(BaseModel):
    """An immutable value whose JSON form is stable: the same value always gives the same digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CamelValue(Value):
    """A value that people write in YAML, in the field's camelCase."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


def canonical(value: Value | JsonValue) -> bytes:
    """Serialise to canonical JSON (RFC 8785): the bytes that digests and the hash chain cover."""
    plain = value.model_dump(mode="json") if isinstance(value, Value) else value
    return rfc8785.dumps(plain)


def digest(value: Value | JsonValue) -> str:
    """Name a value by the SHA-256 of its canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()
