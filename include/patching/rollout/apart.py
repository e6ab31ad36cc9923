"""Apart: what goes wrong with one rollout is said, and every other rollout is looked after all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from patching.errors import LedgerUnavailable, PatchingError
from patching.value import not_valid


class Trouble:
    """What was found wrong with one rollout, in one sentence; empty where nothing was."""

    def __init__(self) -> None:
        self.sentence = ""


def trouble(error: BaseException) -> str | None:
    """Say in one sentence what is wrong with one rollout; None for what concerns all, or what nobody foresaw.

    That is a ledger that is gone, and every error that is not ours. Jobs side by side raise theirs in a group.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [trouble(inner) for inner in error.exceptions]
        said = list(dict.fromkeys(item for item in found if item is not None))
        return "; ".join(said) if None not in found else None
    if isinstance(error, LedgerUnavailable):
        return None
    if isinstance(error, ValidationError):
        return not_valid(error)
    return str(error) if isinstance(error, PatchingError) else None


@contextmanager
def apart(rollout: str, said: list[str], what: str) -> Iterator[Trouble]:
    """Keep what goes wrong with one rollout its own: it is added to ``said``, as ``what`` could not be done.

    Raises LedgerUnavailable, and every error that is not one of ours.
    """
    found = Trouble()
    try:
        yield found
    except Exception as error:
        sentence = trouble(error)
        if sentence is None:
            raise
        found.sentence = f"{what}: {sentence}"
        said.append(f"{rollout}: {found.sentence}")
