"""Durations as Prometheus writes them (``1h30m``) and int-or-percent as Kubernetes writes it (``2``, ``10%``)."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

_UNITS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+)(ms|[wdhms])")
_WHOLE = re.compile(r"^(?:\d+(?:ms|[wdhms]))+$")


def parse_duration(text: Any) -> float:
    """Turn ``1h30m`` into seconds; raises ValueError for anything without a unit, except 0."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if text == 0:
            return 0.0
        raise ValueError(f"a duration needs a unit: write {text}s, {text}m or {text}h")
    if not isinstance(text, str) or not _WHOLE.match(text):
        raise ValueError(f'"{text}" is not a duration; write for example 90s, 30m, 4h or 2d')
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _seconds_or_duration(value: Any, info: ValidationInfo) -> float:
    """Accept plain seconds too, as stored plans have them, unless a person wrote the value (context ``units``)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not (info.context or {}).get("units"):
        if math.isfinite(value) and value >= 0:
            return float(value)
        raise ValueError(f"{value} is not a duration: it must be finite and not negative")
    return parse_duration(value)


def format_duration(seconds: float) -> str:
    """Write seconds in the largest whole units: 5400 → ``1h30m``."""
    left, parts = round(seconds), []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_int_or_percent(value: Any) -> int | str:
    """Accept a whole number ≥ 0 or a percentage from 0% to 100%; raises ValueError otherwise."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.match(r"^(100|\d{1,2})(\.\d+)?%$", value):
        return value
    raise ValueError(f'"{value}" is neither a whole number nor a percentage; write for example 2 or 10%')


def fraction(value: int | str) -> float | None:
    """Share that a percentage stands for, None for a plain number."""
    return float(value[:-1]) / 100 if isinstance(value, str) else None


def resolve(value: int | str, total: int, *, at_least: int = 0) -> int:
    """Turn int-or-percent into a number out of ``total``; percent rounds down."""
    share = fraction(value)
    number = int(value) if share is None else int(share * total + 1e-9)
    return max(number, at_least)


Duration = Annotated[
    float,
    BeforeValidator(_seconds_or_duration),
    WithJsonSchema(
        {
            "description": "duration such as 90s, 30m, 4h, 2d",
            "anyOf": [{"type": "string", "pattern": _WHOLE.pattern}, {"const": 0}],
        }
    ),
]
IntOrPercent = Annotated[
    int | str,
    BeforeValidator(parse_int_or_percent),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?%$"}]}),
]
