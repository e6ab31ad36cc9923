"""Sent: what a metric source was really asked, word for word, so that the evidence can be asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from patching.value import Value


class SentQuery(Value):
    """One query as it was sent: its text, the end of its span, the ``window`` before that, and the ``step`` (seconds).

    ``step`` is None where raw samples or rows were asked for.
    """

    text: str
    end: datetime
    window: float
    step: float | None = None


_noted: ContextVar[list[SentQuery] | None] = ContextVar("sent_queries", default=None)


@contextmanager
def noted() -> Iterator[list[SentQuery]]:
    """Collect what is sent while the body runs, in this task and those that it starts."""
    found: list[SentQuery] = []
    before = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(before)


def note(text: str, start: datetime, end: datetime, step: float | None = None) -> None:
    """Write down one query for whoever collects; nothing where nobody does."""
    found = _noted.get()
    if found is not None:
        found.append(SentQuery(text=text, end=end, window=(end - start).total_seconds(), step=step))
