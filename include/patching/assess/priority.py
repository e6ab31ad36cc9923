"""Priority: how urgent a target's findings are, by a decision table, always with the reason.

Tables: ``severity`` (the advisory's own word) and ``cisa-bod-26-04`` (CERTCC/SSVC cisa_bod_26_04_1_0_0, rows
known-exploited × exposed; automatable and total impact are taken as the worse case where nobody states them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from patching.advisory import Advisory, Finding, Priority
from patching.target import Target

RANKS = {"critical": 0, "high": 1, "medium": 2, "low": 3}
UNRATED = 4
EXPOSED = ("internet", "public")

BOD_26_04: dict[tuple[bool, bool], dict[tuple[bool, bool], tuple[int, int | None]]] = {
    (False, False): {
        (False, False): (3, None),
        (False, True): (3, None),
        (True, False): (2, 60),
        (True, True): (2, 60),
    },
    (False, True): {(False, False): (2, 60), (False, True): (1, 14), (True, False): (1, 14), (True, True): (0, 3)},
    (True, False): {(False, False): (1, 14), (False, True): (1, 14), (True, False): (1, 14), (True, True): (0, 3)},
    (True, True): {(False, False): (1, 14), (False, True): (0, 3), (True, False): (0, 3), (True, True): (0, 3)},
}
"""(exploited, exposed) → (automatable, total impact) → (rank, days to fix; None = on the next upgrade)."""


def prioritise(target: Target, findings: Iterable[Finding], advisories: Mapping[str, Advisory], table: str) -> Priority:
    """Rank a target by its most urgent finding; without findings it is ranked last, with that reason."""
    rate = _bod if table == "cisa-bod-26-04" else _severity
    rated = [rate(target, advisories[item.advisory]) for item in findings if item.advisory in advisories]
    if not rated:
        return Priority(rank=UNRATED, name="routine", reason="offered by a security origin; no advisory matches")
    return min(rated, key=lambda item: (item.rank, item.reason))


def _severity(target: Target, advisory: Advisory) -> Priority:
    if advisory.exploited:
        return Priority(rank=0, name="exploited", reason=f"{advisory.id} is exploited")
    word = advisory.severity or "unrated"
    return Priority(rank=RANKS.get(word, UNRATED), name=word, reason=f"{advisory.id} is {word}")


def _bod(target: Target, advisory: Advisory) -> Priority:
    exposed = target.labels.get("exposure", "internal") in EXPOSED
    automatable = target.labels.get("automatable", "true") == "true"
    total = advisory.severity in (None, "critical", "high")
    rank, days = BOD_26_04[(advisory.exploited, exposed)][(automatable, total)]
    due = _due(advisory.published, days)
    said = f"{'exploited' if advisory.exploited else 'not exploited'}, {'exposed' if exposed else 'not exposed'}"
    when = f"within {days} days" if days else "on the next upgrade"
    return Priority(rank=rank, name=f"{days}d" if days else "upgrade", reason=f"{advisory.id}: {said}: {when}", due=due)


def _due(published: datetime | None, days: int | None) -> datetime | None:
    return published + timedelta(days=days) if published is not None and days is not None else None
