"""Matching: which advisories apply to which components of which targets, decided once per distinct version.

A fleet shares package sets: the decision (package, version) × advisory is made once and expanded to the hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from patching.advisory import Advisory, AffectedRange, Finding
from patching.target import Component, Snapshot
from patching.version_order import compare

Decision = tuple[tuple[str, str | None], ...]


def match(snapshots: Mapping[str, Snapshot], advisories: Sequence[Advisory]) -> dict[str, tuple[Finding, ...]]:
    """Give every target's findings; withdrawn advisories do not count, those without a fix do.

    Debian's OSV records name source packages, so a component is matched by its source, else by its own name.
    """
    index = _index(advisories)
    decided: dict[tuple[str, str, str], Decision] = {}
    found: dict[str, tuple[Finding, ...]] = {}
    for name, snapshot in snapshots.items():
        ecosystem, findings = snapshot.ecosystem or "", []
        for component, installed in snapshot.installed.items():
            package, version = _subject(component, installed)
            if package not in index:
                continue
            key = (ecosystem, package, version)
            if key not in decided:
                decided[key] = tuple(_affecting(index[package], ecosystem, version).items())
            findings += [
                Finding(advisory=advisory, target=name, component=component, installed=installed.version, fixed=fixed)
                for advisory, fixed in decided[key]
            ]
        found[name] = tuple(findings)
    return found


def unmatched(advisories: Sequence[Advisory], snapshots: Iterable[Snapshot]) -> tuple[str, ...]:
    """Name the advisories whose packages no target has: said, so that nobody takes silence for safety."""
    present = {_subject(name, item)[0] for found in snapshots for name, item in found.installed.items()}
    return tuple(
        advisory.id for advisory in advisories if not any(item.package in present for item in advisory.affected)
    )


def _subject(component: str, installed: Component) -> tuple[str, str]:
    name = installed.source or component.partition(":")[0]
    return name, installed.source_version or installed.version


def _index(advisories: Sequence[Advisory]) -> dict[str, list[tuple[str, AffectedRange]]]:
    index: dict[str, list[tuple[str, AffectedRange]]] = {}
    for advisory in advisories:
        if advisory.withdrawn is not None:
            continue
        for item in advisory.affected:
            index.setdefault(item.package, []).append((advisory.id, item))
    return index


def _affecting(ranges: Sequence[tuple[str, AffectedRange]], ecosystem: str, version: str) -> dict[str, str | None]:
    return {
        advisory: item.fixed
        for advisory, item in ranges
        if same_ecosystem(item.ecosystem, ecosystem) and affects(item, version)
    }


@lru_cache(maxsize=1024)
def same_ecosystem(stated: str, target: str) -> bool:
    """Whether an advisory's ecosystem is the target's: ``Debian`` covers ``Debian:12``, ``Debian:11`` does not."""
    return stated == target or (":" not in stated and target.partition(":")[0] == stated)


def affects(item: AffectedRange, version: str) -> bool:
    """Whether a version lies in a range, in the order of the range's ecosystem."""
    if item.introduced != "0" and compare(item.ecosystem, version, item.introduced) < 0:
        return False
    if item.last_affected is not None:
        return compare(item.ecosystem, version, item.last_affected) <= 0
    return item.fixed is None or compare(item.ecosystem, version, item.fixed) < 0
