"""Priority: how urgent a target's findings are, by a decision table, always with the reason.

Tables: ``severity`` (the advisory's own word, else its CVSS band) and ``cisa-bod-26-04`` (CERTCC/SSVC
cisa_bod_26_04_1_0_0: known-exploited × exposed × automatable × technical impact). Labels say what advisories do not:
``exposure: internet`` (or ``public``) is exposed, ``automatable: false`` is not automatable; where nobody states
automatable or total impact, the worse is assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from patching.advisory import Advisory, Finding, Priority
from patching.target import Target

RANKS = {"critical": 0, "high": 1, "medium": 2, "low": 3}
UNRATED = 4
EXPOSED = ("internet", "public")


class Row(NamedTuple):
    """An answer of the table: rank, days to fix (None = with the next upgrade), and whether traces come first."""

    rank: int
    days: int | None
    forensics: bool = False


_UPGRADE, _60, _14, _3, _3F = Row(3, None), Row(2, 60), Row(1, 14), Row(0, 3), Row(0, 3, True)

BOD_26_04: dict[tuple[bool, bool], dict[tuple[bool, bool], Row]] = {
    (False, False): {(False, False): _UPGRADE, (False, True): _UPGRADE, (True, False): _60, (True, True): _60},
    (False, True): {(False, False): _60, (False, True): _14, (True, False): _14, (True, True): _3},
    (True, False): {(False, False): _14, (False, True): _14, (True, False): _14, (True, True): _3F},
    (True, True): {(False, False): _14, (False, True): _3F, (True, False): _3, (True, True): _3F},
}
"""(exploited, exposed) → (automatable, total impact) → row."""


def prioritise(target: Target, findings: Iterable[Finding], advisories: Mapping[str, Advisory], table: str) -> Priority:
    """Rank a target by its most urgent finding; without findings it is ranked last, with that reason.

    ``due`` is the earliest date by which any of its findings must be fixed, None where no table gives one.
    """
    rate = _bod if table == "cisa-bod-26-04" else _severity
    names = dict.fromkeys(item.advisory for item in findings)
    rated = [rate(target, advisories[name]) for name in names if name in advisories]
    if not rated:
        return Priority(rank=UNRATED, name="routine", reason="offered by a declared origin; no advisory matches")
    first = min(rated, key=lambda item: (item.rank, item.reason))
    due = min((item.due for item in rated if item.due is not None), default=None)
    more = f" (and {len(rated) - 1} more)" if len(rated) > 1 else ""
    return first.model_copy(update={"reason": f"{first.reason}{more}", "due": due})


def _severity(_target: Target, advisory: Advisory) -> Priority:
    if advisory.exploited:
        return Priority(rank=0, name="exploited", reason=f"{advisory.id} is known to be exploited")
    word = advisory.severity or "unrated"
    score = f" (CVSS {advisory.score:.1f})" if advisory.score is not None else ""
    return Priority(rank=RANKS.get(word, UNRATED), name=word, reason=f"{advisory.id} is {word}{score}")


def _bod(target: Target, advisory: Advisory) -> Priority:
    exposed = target.labels.get("exposure", "internal") in EXPOSED
    automatable = target.labels.get("automatable", "true") == "true"
    total = advisory.severity in (None, "critical", "high")
    row = BOD_26_04[(advisory.exploited, exposed)][(automatable, total)]
    said = f"{'known to be exploited' if advisory.exploited else 'not exploited'}, "
    said += f"{'exposed' if exposed else 'not exposed'}, {'automatable' if automatable else 'not automatable'}, "
    said += f"{'total' if total else 'partial'} impact"
    when = f"within {row.days} days" if row.days else "with the next upgrade"
    first = "; secure the traces before patching" if row.forensics else ""
    return Priority(
        rank=row.rank,
        name=f"{row.days}d" if row.days else "upgrade",
        reason=f"{advisory.id}: {said}: {when}{first}",
        due=_due(advisory.published, row.days),
    )


def _due(published: datetime | None, days: int | None) -> datetime | None:
    return published + timedelta(days=days) if published is not None and days is not None else None
