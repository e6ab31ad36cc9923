"""What a rule gives: where in the policy something is wrong, the sentence, and the rule's stable id."""

from __future__ import annotations

from typing import NamedTuple


class Wrong(NamedTuple):
    """One breach of a rule. ``loc`` is in the file's spelling; ``key`` points at the key instead of the value."""

    loc: tuple[str | int, ...]
    message: str
    rule: str
    key: bool = False
