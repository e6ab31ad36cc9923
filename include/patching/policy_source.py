"""The text of a policy file: decoding, what it may contain, lines and places as the YAML parser counts them."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from dataclasses import dataclass

from patching.diagnostics import Diagnostic, printable

MAX_BYTES = 1 << 20
_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Span:
    """A token's place: line and columns count from 1; ``end_col`` is exclusive and on the same line."""

    line: int
    col: int
    end_col: int


class Source:
    """A file's path, its text, and its lines as the YAML parser counts them."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self._lines: list[str] | None = None

    def line(self, number: int) -> str:
        """Text of a line, counted from 1; empty past the end."""
        if self._lines is None:
            self._lines = _BREAK.split(self.text)
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def at(self, index: int) -> Span:
        """Place of one character of the text."""
        starts = [0, *(found.end() for found in _BREAK.finditer(self.text))]
        line = bisect_right(starts, index)
        col = index - starts[line - 1] + 1
        return Span(line, col, col + 1)

    def diagnostic(self, span: Span, message: str, rule: str) -> Diagnostic:
        """Make a diagnostic at a place of this file; a place past the last line moves to the end of the last one."""
        line = self.line(span.line)
        last = len(self._lines or ())
        while last > 1 and span.line >= last and not self.line(last):
            last -= 1
        if span.line > last:
            line = self.line(last)
            span = Span(last, len(line) + 1, len(line) + 2)
        col = min(span.col, len(line) + 1)
        end = max(span.end_col, col + 1)
        return Diagnostic(
            path=self.path, line=span.line, col=col, end_col=end, message=printable(message), rule=rule, source=line
        )


def decode(raw: bytes | str, path: str) -> str | Diagnostic:
    """Decode UTF-8, with or without a byte order mark; a Diagnostic says what else it is."""
    if len(raw) > MAX_BYTES:
        message = f"the file has {len(raw)} bytes; at most {MAX_BYTES} are read"
        return Diagnostic(path=path, line=1, col=1, message=message, rule="yaml-size")
    if isinstance(raw, str):
        return raw.removeprefix("\ufeff")
    wide = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
    if raw.startswith(wide):
        message = "the file is UTF-16 or UTF-32; save it as UTF-8"
        return Diagnostic(path=path, line=1, col=1, message=message, rule="yaml-encoding")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source = Source(path, raw[: error.start].decode("utf-8-sig") + "\ufffd")
        found = f"byte 0x{raw[error.start]:02x}" if error.start < len(raw) else "the end"
        message = f"the file is not UTF-8 ({found}); save it as UTF-8"
        return source.diagnostic(source.at(len(source.text) - 1), message, "yaml-encoding")


def refuse_text(source: Source) -> Diagnostic | None:
    """Refuse characters that YAML does not allow, at the first of them."""
    found = _UNPRINTABLE.search(source.text)
    if found is None:
        return None
    message = f"control character U+{ord(found.group()):04X} is not allowed; remove it"
    return source.diagnostic(source.at(found.start()), message, "yaml-control-character")
