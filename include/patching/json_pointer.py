"""JSON Pointer (RFC 6901): one place in a JSON document; pure."""

from __future__ import annotations

import re

from patching.errors import PatchingError
from patching.value import JsonValue

_FORM = re.compile(r"(/([^~/]|~[01])*)*")
_INDEX = re.compile(r"0|[1-9][0-9]*")
_MOST_NAMES = 8


class PointerUnresolved(PatchingError):
    """A document has no such place; says how far the pointer leads, and what is there instead."""


def is_pointer(text: str) -> bool:
    """Say whether a text has the form of a pointer: empty, or every part begins with a slash."""
    return _FORM.fullmatch(text) is not None


def escape(name: str) -> str:
    """Write a name as one part of a pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def resolve(document: JsonValue, pointer: str) -> JsonValue:
    """Give what is at the place; raises PointerUnresolved."""
    found, gone = document, ""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        else:
            raise PointerUnresolved(f'there is no "{name}" at "{gone}", but {_inside(found)}')
        gone += f"/{part}"
    return found


def _inside(found: JsonValue) -> str:
    if isinstance(found, dict):
        names = list(found)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return f"{', '.join(names[:_MOST_NAMES])}{more}" if names else "an empty object"
    if isinstance(found, list):
        return f"a list of {len(found)}"
    return f"a value ({type(found).__name__})"
