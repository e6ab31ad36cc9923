"""The order of versions, by the rules of the ecosystem that made them; one place for drivers and advisories.

The rules are univers': Debian policy 5.6.12 (as dpkg compares), rpm's vercmp, and SemVer 2.0. Comparing costs about
0.1 ms, so answers are cached: a fleet asks the same questions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from univers.debian import Version as DebianVersion
from univers.rpm import RpmVersion

DEBIAN_LIKE = ("Debian", "Ubuntu")
RPM_LIKE = ("AlmaLinux", "openSUSE", "Red Hat", "Rocky Linux", "SUSE")
SEMVER_LIKE = ("crates.io", "Go", "Hex", "npm", "Pub", "SwiftURL")
CACHED = 262_144


def _semver(version: str) -> Any:
    # Imported here: only semantic versions need it, and every worker pays for an import.
    from univers.versions import SemverVersion

    return SemverVersion(version.removeprefix("v"))


_PARSERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(DEBIAN_LIKE, DebianVersion.from_string),
    **dict.fromkeys(RPM_LIKE, RpmVersion.from_string),
    **dict.fromkeys(SEMVER_LIKE, _semver),
}


def known_ecosystem(ecosystem: str) -> bool:
    """Whether the order of versions of an OSV ecosystem (``Debian:12``) is known."""
    return ecosystem.partition(":")[0] in _PARSERS


@lru_cache(maxsize=CACHED)
def _parsed(family: str, version: str) -> Any:
    parser = _PARSERS.get(family)
    if parser is None:
        raise ValueError(f'the order of versions of "{family}" is not known; known: {", ".join(sorted(_PARSERS))}')
    try:
        return parser(version)
    except ValueError as error:
        raise ValueError(f'"{version}" is no version of {family}') from error


@lru_cache(maxsize=CACHED)
def compare(ecosystem: str, a: str, b: str) -> int:
    """Order two versions of an OSV ecosystem (``Debian:12``): -1, 0 or 1.

    Raises ValueError for an ecosystem whose order is not known, and for what is no version there.
    """
    family = ecosystem.partition(":")[0]
    first, second = _parsed(family, a), _parsed(family, b)
    if a == b:
        return 0
    return -1 if first < second else 1 if first > second else 0


def newest(ecosystem: str, versions: Iterable[str]) -> str | None:
    """Give the highest version, the first of equal ones, None of none; raises ValueError as ``compare`` does."""
    best: str | None = None
    for version in versions:
        if best is None or compare(ecosystem, version, best) > 0:
            best = version
    return best


def in_order(ecosystem: str, versions: Iterable[str]) -> list[str]:
    """Sort versions, the lowest first; raises ValueError as ``compare`` does."""
    return sorted(versions, key=functools.cmp_to_key(lambda a, b: compare(ecosystem, a, b)))
