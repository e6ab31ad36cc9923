"""From a pydantic error to a diagnostic at the right node: one cause, one error, in the words of the YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from patching.diagnostics import Diagnostic, did_you_mean, nearest, one_of
from patching.policy_yaml import Document, Loc

_DNS_LABEL = "a DNS label: lower-case letters, digits and hyphens, at most 63, no hyphen at either end"
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "tuple_type": "a list",
    "list_type": "a list",
    "date_type": "a date such as 2026-12-24",
    "date_parsing": "a date such as 2026-12-24",
    "date_from_datetime_parsing": "a date such as 2026-12-24",
}
_LIMITS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
_LIMITS |= {"greater_than": ("gt", "more than"), "less_than": ("lt", "less than")}


def explain(error: ValidationError, model: type[BaseModel], document: Document, prefix: Loc = ()) -> list[Diagnostic]:
    """Turn pydantic's errors into diagnostics; ``prefix`` is where the model sits in the document.

    One cause is one error: a misspelt key is not reported as a missing key too.
    """
    found: list[Diagnostic] = []
    details = _one_per_union(error.errors(include_url=False), document, tuple(prefix))
    meant: set[tuple[str | int, ...]] = set()
    for item in details:
        if item["type"] == "extra_forbidden":
            diagnostic, suggested = _unknown(item, model, document, tuple(prefix))
            meant.add((*item["loc"][:-1], suggested))
            found.append(diagnostic)
    for item in details:
        if item["type"] != "extra_forbidden" and not (item["type"] == "missing" and tuple(item["loc"]) in meant):
            message, rule, key = _words(item, tuple(prefix))
            found.append(document.report((*prefix, *item["loc"]), message, rule, key=key))
    return found


def _one_per_union(
    details: list[ErrorDetails], document: Document, prefix: tuple[str | int, ...]
) -> list[ErrorDetails]:
    """Where a value fits none of several types, keep the error of the type that it comes nearest to.

    Pydantic puts the name of each type into ``loc``; it is known by not being in the document.
    """
    kept: dict[tuple[str | int, ...], ErrorDetails] = {}
    plain: list[ErrorDetails] = []
    for item in details:
        loc, union = _real(item, document, prefix)
        if union is None:
            plain.append(item)
            continue
        item["loc"] = loc
        before = kept.get(union)
        if before is None or _nearness(item) > _nearness(before):
            kept[union] = item
    return plain + list(kept.values())


def _real(
    item: ErrorDetails, document: Document, prefix: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], tuple[str | int, ...] | None]:
    """Give ``loc`` without names of types, and the place of the first union on the way (None = no union)."""
    here = document.data
    for part in prefix:
        here = here[part]
    real: list[str | int] = []
    union: tuple[str | int, ...] | None = None
    for index, part in enumerate(item["loc"]):
        known = part in here if isinstance(here, dict) else isinstance(part, int) and isinstance(here, list)
        if known:
            real.append(part)
            here = here[part]
        elif part == "[key]" or (item["type"] == "missing" and index == len(item["loc"]) - 1):
            real.append(part)
        else:
            union = union if union is not None else tuple(real)
    return tuple(real), union


def _nearness(item: ErrorDetails) -> tuple[int, bool]:
    return len(item["loc"]), item["type"] == "literal_error" and isinstance(item["input"], str)


def _unknown(
    item: ErrorDetails, model: type[BaseModel], document: Document, prefix: tuple[str | int, ...]
) -> tuple[Diagnostic, str]:
    loc = tuple(item["loc"])
    name, known = str(loc[-1]), _keys(model, loc[:-1])
    given = document.data
    for part in (*prefix, *loc[:-1]):
        given = given[part]
    suggested = nearest(name, [key for key in known if key not in given]) or nearest(name, known)
    hint = f'; did you mean "{suggested}"?' if suggested else f"; {one_of(known, name)}"
    message = f'unknown key "{name}"{_within((*prefix, *loc))}{hint if known else "; it has none"}'
    return document.report((*prefix, *loc), message, "unknown-key", key=True), suggested


def _words(item: ErrorDetails, prefix: tuple[str | int, ...]) -> tuple[str, str, bool]:
    """Give message, rule id, and whether the key (not the value) is to blame."""
    loc, kind, given = tuple(item["loc"]), item["type"], item["input"]
    name, context = _name(loc), dict(item.get("ctx", {}))
    if kind == "missing":
        return f'missing key "{name}"{_within((*prefix, *loc))}', "missing-key", True
    if kind in ("literal_error", "enum"):
        return _not_allowed(name, given, str(context["expected"])), "unknown-value", False
    if kind in _WANTED:
        return f'"{name}" must be {_WANTED[kind]}, not {_shown(given)}', "wrong-type", False
    if kind in ("string_pattern_mismatch", "string_too_long"):
        return f"{_shown(given)} is not {_described(name)}", "dns-label" if name == "name" else "invalid-value", False
    if kind in _LIMITS:
        limit, words = _LIMITS[kind]
        return f'"{name}" must be {words} {context[limit]}, not {given}', "out-of-range", False
    message = str(context.get("error") or item["msg"])
    return f'"{name}": {message[:1].lower()}{message[1:]}', "invalid-value", False


def _described(name: str) -> str:
    if name == "start":
        return "a time of day; write HH:MM from 00:00 to 23:59"
    if name == "connection":
        return "a connection id: letters, digits and _ . : / - only, at most 200"
    return _DNS_LABEL if name == "name" else f'a possible "{name}"'


def _not_allowed(name: str, given: Any, expected: str) -> str:
    known = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    if not isinstance(given, str):
        return f'"{name}" must not be {_shown(given)}; {one_of(known)}'
    hint = did_you_mean(given, known)
    listed = "" if len(known) == 1 or hint.startswith("; allowed") else f" {one_of(known, given)}"
    return f'"{given}" is not allowed for "{name}"{hint}{listed}'


def _name(loc: tuple[str | int, ...]) -> str:
    """Name what is wrong by its last key, with an index where it is a part of a list."""
    keys = [part for part in loc if isinstance(part, str) and part != "[key]"]
    if not keys:
        return "the document"
    return f"{keys[-1]}[{loc[-1]}]" if isinstance(loc[-1], int) else keys[-1]


def _within(loc: tuple[str | int, ...]) -> str:
    parents = [part for part in loc[:-1] if isinstance(part, str)]
    return f' in "{parents[-1]}"' if parents else ""


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping of keys"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
    return str(value)


def _keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """List the keys that are known at a place, in the file's spelling."""
    here: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and here is not None:
            here = _model_of(here, part)
    return [field.alias or name for name, field in here.model_fields.items()] if here is not None else []


def _model_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    for name, field in model.model_fields.items():
        if (field.alias or name) == key:
            return next(_models(field.annotation), None)
    return None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
