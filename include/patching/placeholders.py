"""Placeholders: ``{name}``, ``{address}`` and ``{label:…}`` in what a policy writes once for all of its targets."""

from __future__ import annotations

import re
from collections.abc import Callable

from patching.target import Target

_PLACEHOLDER = re.compile(r"\{(name|address|label:[^{}]+)\}")


def _as_it_is(value: str) -> str:
    return value


def fill(template: str, target: Target, quote: Callable[[str], str] = _as_it_is) -> str:
    """Put a target's name, address and labels into a template, each passed through ``quote``, in one pass.

    One pass, so that a target called ``{address}`` cannot smuggle in a second replacement. Other braces, and labels
    that the target does not have, stay as they are.
    """
    values = {"name": target.name, "address": target.address}
    values |= {f"label:{key}": value for key, value in target.labels.items()}

    def value(found: re.Match[str]) -> str:
        known = values.get(found.group(1))
        return found.group(0) if known is None else quote(known)

    return _PLACEHOLDER.sub(value, template)
