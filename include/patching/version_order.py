"""The order of versions, by the rules of the ecosystem that made them; one place for drivers and advisories."""

from __future__ import annotations

from functools import lru_cache

from univers.debian import Version

DEBIAN_LIKE = ("Debian", "Ubuntu")


@lru_cache(maxsize=65536)
def _debian(version: str) -> Version:
    return Version.from_string(version)


@lru_cache(maxsize=65536)
def compare(ecosystem: str, a: str, b: str) -> int:
    """Order two versions of an OSV ecosystem (``Debian:12``): -1, 0 or 1; raises ValueError for unknown ones.

    Debian policy 5.6.12, as dpkg compares; cached, because a fleet asks the same questions.
    """
    if ecosystem.partition(":")[0] not in DEBIAN_LIKE:
        raise ValueError(f"the order of versions of {ecosystem} is not known; known: {', '.join(DEBIAN_LIKE)}")
    if a == b:
        return 0
    first, second = _debian(a), _debian(b)
    return -1 if first < second else 1 if first > second else 0
