"""Matching: which advisories apply to which components of which targets, decided once per distinct version.

A fleet shares package sets: the decision (package, version) × advisory is made once and expanded to the hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from patching.advisory import Advisory, AffectedRange, Finding
from patching.errors import AdvisoryError
from patching.target import Component, Snapshot
from patching.version_order import compare

Installed = tuple[str, str, str | None, str | None]


class Decision(NamedTuple):
    """One advisory that applies to a component, the package it names, and the version of that which closes it."""

    advisory: str
    package: str
    fixed: str | None


def match(snapshots: Mapping[str, Snapshot], advisories: Sequence[Advisory]) -> dict[str, tuple[Finding, ...]]:
    """Give every target's findings; withdrawn advisories do not count, those without a fix do.

    Debian's OSV records name source packages, others binary ones: a component is matched by its source with the
    source's version, and by its own name with its own version. ``Finding.fixed`` is None when no fix is published.
    Raises AdvisoryError where a record that concerns an installed component has versions that cannot be ordered.
    """
    fleet = _Matching(advisories)
    return {name: fleet.findings(name, snapshot) for name, snapshot in snapshots.items()}


class _Matching:
    """The decisions of one fleet, each made once."""

    def __init__(self, advisories: Sequence[Advisory]) -> None:
        self.index: dict[str, list[tuple[str, AffectedRange]]] = {}
        for advisory in advisories:
            if advisory.withdrawn is None:
                for item in advisory.affected:
                    self.index.setdefault(item.package, []).append((advisory.id, item))
        self.decided: dict[str, dict[Installed, tuple[Decision, ...]]] = {}

    def findings(self, target: str, snapshot: Snapshot) -> tuple[Finding, ...]:
        ecosystem, found = snapshot.ecosystem or "", []
        decided = self.decided.setdefault(ecosystem, {})
        for component, installed in snapshot.installed.items():
            key = (component, installed.version, installed.source, installed.source_version)
            decisions = decided.get(key)
            if decisions is None:
                decisions = decided[key] = self._decide(ecosystem, component, installed)
            found += [
                Finding(
                    advisory=name,
                    target=target,
                    component=component,
                    installed=installed.version,
                    fixed=fixed,
                    package=package,
                )
                for name, package, fixed in decisions
            ]
        return tuple(found)

    def _decide(self, ecosystem: str, component: str, installed: Component) -> tuple[Decision, ...]:
        found: dict[str, Decision] = {}
        for package, version in subjects(component, installed):
            for advisory, item in self.index.get(package, ()):
                if same_ecosystem(item.ecosystem, ecosystem) and self._affects(advisory, item, version):
                    found.setdefault(advisory, Decision(advisory, package, item.fixed))
        return tuple(found.values())

    def _affects(self, advisory: str, item: AffectedRange, version: str) -> bool:
        try:
            return affects(item, version)
        except ValueError as error:
            raise AdvisoryError(
                f"advisory {advisory}, package {item.package}: {error}; nothing is planned on a record that cannot "
                "be decided: correct it, or take it out of the feed"
            ) from error


def unmatched(advisories: Sequence[Advisory], snapshots: Iterable[Snapshot]) -> tuple[str, ...]:
    """Name the advisories whose packages no target has: said, so that nobody takes silence for safety."""
    present: set[str] = set()
    for snapshot in snapshots:
        for component, installed in snapshot.installed.items():
            present.add(bare(component))
            if installed.source:
                present.add(installed.source)
    return tuple(
        advisory.id
        for advisory in advisories
        if advisory.withdrawn is None and not any(item.package in present for item in advisory.affected)
    )


def bare(component: str) -> str:
    """Name of a component without its architecture."""
    return component.partition(":")[0]


def subjects(component: str, installed: Component) -> list[tuple[str, str]]:
    """Give the names under which advisories may mean a component, each with the version to compare."""
    own = (bare(component), installed.version)
    if not installed.source or installed.source == own[0]:
        return [(own[0], installed.source_version or installed.version)]
    return [(installed.source, installed.source_version or installed.version), own]


@lru_cache(maxsize=1024)
def same_ecosystem(stated: str, target: str) -> bool:
    """Whether an advisory's ecosystem is the target's: ``Debian`` covers ``Debian:12``, ``Debian:11`` does not."""
    return bool(stated) and (stated == target or (":" not in stated and target.partition(":")[0] == stated))


def affects(item: AffectedRange, version: str) -> bool:
    """Whether a version lies in a range, in the order of the range's ecosystem; raises ValueError without one."""
    if item.introduced != "0" and compare(item.ecosystem, version, item.introduced) < 0:
        return False
    if item.last_affected is not None:
        return compare(item.ecosystem, version, item.last_affected) <= 0
    return item.fixed is None or compare(item.ecosystem, version, item.fixed) < 0
