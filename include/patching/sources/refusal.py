"""What planning says of a metric: a query that cannot work blocks, targets without a value now do not; pure."""

from __future__ import annotations

from collections.abc import Sequence

from patching.change import Refusal

MOST_NAMES = 5


def unusable(key: str, problem: str, remedy: str) -> Refusal:
    """Refuse the query under a key of the check."""
    return Refusal(code="metrics-query", message=f'"{key}": {problem}', remedy=remedy)


def silent(targets: Sequence[str], what: str, remedy: str) -> list[Refusal]:
    """Say which targets have no data now: nothing is blocked, but their check will hold."""
    if not targets:
        return []
    more = f" and {len(targets) - MOST_NAMES} more" if len(targets) > MOST_NAMES else ""
    message = f"no current {what} for {', '.join(targets[:MOST_NAMES])}{more}: the check will be inconclusive there"
    return [Refusal(code="metrics-no-data", message=message, remedy=remedy, blocking=False)]
