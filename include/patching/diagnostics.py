"""Diagnostics: what is wrong in a file, where, and what to do; one value, rendered for people or as JSON."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from patching.errors import PatchingError
from patching.value import JsonValue, Value

SCHEMA = "patching/diagnostics/v1"
LISTED = 8
NEAREST = 3
SNIPPET = 160


class Diagnostic(Value):
    """One error of one file. Lines and columns count from 1, columns in characters; ``end_col`` is exclusive.

    ``rule`` is stable and is the anchor of its explanation in docs/reference/policy-errors.md.
    """

    path: str
    line: int
    col: int
    message: str
    rule: str
    end_col: int = 0
    source: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.col}: {self.message} [{self.rule}]"


class PolicyError(PatchingError):
    """A policy file is refused; ``diagnostics`` has every error that the file has, in the order of the file."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(item) for item in self.diagnostics))


def render(item: Diagnostic) -> str:
    """Write one diagnostic as ``path:line:col: message [rule]``, the source line and carets under the token."""
    if not item.source.strip():
        return str(item)
    start, stop = item.col - 1, max(item.end_col - 1, item.col)
    first = max(0, start - SNIPPET // 2) if start > SNIPPET else 0
    shown = item.source[first : first + SNIPPET]
    lead = "".join("\t" if char == "\t" else " " * _width(char) for char in item.source[first:start])
    carets = "^" * max(1, sum(_width(char) for char in item.source[start : min(stop, first + SNIPPET)]))
    number = str(item.line)
    gutter = " " * len(number)
    return f"{item}\n{gutter} |\n{number} | {_one_cell(shown.rstrip())}\n{gutter} | {lead}{carets}"


def render_all(items: Iterable[Diagnostic], files: int, noun: str = "policies") -> str:
    """Write all diagnostics and the last line, such as ``3 errors in 1 of 4 policies``."""
    found = list(items)
    return "\n".join([*(render(item) for item in found), summary(found, files, noun)])


def summary(items: Sequence[Diagnostic], files: int, noun: str = "policies") -> str:
    """Count errors and files in one line."""
    one = noun.removesuffix("ies") + "y" if noun.endswith("ies") else noun.removesuffix("s")
    named = one if files == 1 else noun
    if not items:
        return f"{files} {named}: no errors"
    errors = "1 error" if len(items) == 1 else f"{len(items)} errors"
    return f"{errors} in {len({item.path for item in items})} of {files} {named}"


def as_json(items: Sequence[Diagnostic], files: int) -> dict[str, JsonValue]:
    """Give the versioned JSON document of a validation."""
    listed = [{"file": item.path, **item.model_dump(exclude={"path"})} for item in items]
    return {"schema": SCHEMA, "valid": not items, "files": files, "errors": listed}


def did_you_mean(word: str, known: Collection[str]) -> str:
    """End a message with the nearest known word, or with the known ones (at most 8, else the nearest 3)."""
    near = nearest(word, known)
    if near:
        return f'; did you mean "{near}"?'
    return f"; {one_of(known, word)}" if known else ""


def nearest(word: str, known: Collection[str]) -> str:
    """Give the known word that was probably meant, spelling style apart; empty when none is near."""
    folded = {_folded(item): item for item in known}
    if _folded(word) in folded:
        return folded[_folded(word)]
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), "")


def one_of(known: Collection[str], word: str = "") -> str:
    """List the allowed words, quoted: all of them up to 8, else the 3 nearest to what was written."""
    if len(known) <= LISTED:
        listed = sorted(known)
        return "allowed: " + ", ".join(f'"{item}"' for item in listed)
    near = difflib.get_close_matches(word, known, n=NEAREST, cutoff=0.0)
    return "the nearest of " + f"{len(known)} allowed: " + ", ".join(f'"{item}"' for item in near)


def printable(text: str) -> str:
    """Show control characters instead of sending them to a terminal; line breaks too, since a message is one line."""
    return "".join(char if char == "\t" or unicodedata.category(char)[0] != "C" else _escape(char) for char in text)


def _one_cell(line: str) -> str:
    """Keep the line's width, so that the carets stay below the token."""
    return "".join("\ufffd" if unicodedata.category(char)[0] == "C" and char != "\t" else char for char in line)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _folded(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
