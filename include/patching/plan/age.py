"""Age of an update: since when it is known to be published, by whom, and whether that is long enough for ``minAge``.

Whatever is said here is a lower limit: an update may be older than we can show, it is never younger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from patching.advisory import Advisory, Finding
from patching.assess.matching import bare
from patching.change import Patch, Refusal
from patching.quantity import format_duration
from patching.value import Value
from patching.version_order import compare

# These name a hole; they are often published long before a fix is. A distribution's own notice appears with the fix.
_OF_THE_HOLE = re.compile(r"(?:^|-)(?:CVE|GHSA)-")


class KnownSince(Value):
    """The earliest moment at which an update is shown to have been published, and what shows it."""

    at: datetime
    shown_by: str


def offer_name(component: str, version: str) -> str:
    """Name an offered version on all targets alike: ``libssl3=3.0.15-1~deb12u1``."""
    return f"{bare(component)}={version}"


def known_since(
    patch: Patch,
    findings: Sequence[Finding],
    ecosystem: str,
    advisories: Mapping[str, Advisory],
    first_seen: Mapping[str, datetime],
) -> KnownSince | None:
    """Give since when a patch is known to be published; None where neither an advisory nor an earlier look tells.

    A notice tells only of the very version that it names as the fix: a later version that closes it as well is younger.
    ``first_seen`` maps ``offer_name`` to when a target was first seen to be offered it.
    """
    dates = [
        KnownSince(at=found.published, shown_by=f"{found.id} was published")
        for found in (advisories.get(item) for item in _naming(patch, findings, ecosystem))
        if found is not None and found.published is not None and not _OF_THE_HOLE.search(found.id)
    ]
    newest = max(dates, key=lambda item: item.at, default=None)
    seen = first_seen.get(offer_name(patch.component, patch.after or ""))
    shown = [item for item in (newest, seen and KnownSince(at=seen, shown_by="it was first seen here")) if item]
    return min(shown, key=lambda item: item.at, default=None)


def _naming(patch: Patch, findings: Sequence[Finding], ecosystem: str) -> list[str]:
    """Name the closed advisories whose fix is just the version that the patch installs."""
    return [
        item.advisory
        for item in findings
        if item.advisory in patch.advisories
        and item.fixed is not None
        and patch.after is not None
        and compare(ecosystem, patch.after, item.fixed) == 0
    ]


def too_young(patch: Patch, since: KnownSince | None, min_age: float, now: datetime) -> Refusal | None:
    """Refuse an update that is not shown to be ``min_age`` seconds old, and say from when on it will be taken."""
    least = timedelta(seconds=min_age)
    shown = since or KnownSince(at=now, shown_by="nobody says when it was published, and it was first seen here")
    if now - shown.at >= least:
        return None
    age = format_duration(max(0.0, (now - shown.at).total_seconds()))
    return Refusal(
        code="too_young",
        message=f"{patch.component} {patch.before} → {patch.after}: {shown.shown_by} {age} ago, minAge is "
        f"{format_duration(min_age)}; due {shown.at + least:%Y-%m-%d %H:%M} UTC",
        blocking=False,
    )
