"""Printing: text from hosts and people made safe for a terminal."""

from __future__ import annotations

from patching.value import JsonValue


def printable(value: JsonValue) -> str:
    """Put a value on one line without anything that could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(str(value).split()))
