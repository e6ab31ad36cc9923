"""Wanted patches of one target: what closes an advisory or comes from a security origin, and why the rest is left."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from types import MappingProxyType

from patching.advisory import Advisory, Finding
from patching.assess.matching import bare
from patching.change import Patch, Refusal
from patching.plan.age import known_since, too_young
from patching.policy import Patches
from patching.target import Component, Offer, Snapshot
from patching.value import Value
from patching.version_order import compare, newest

MANY_CODES = ("not_offered", "no_fix")
SHOWN = 3
_REBUILD = re.compile(r"\+b\d+$")


class Wanted(Value):
    """The patches that a policy wants on one target, and every offer or finding it leaves alone, with the reason.

    Codes of ``left``: not_included, excluded, held, too_young, not_chosen, not_offered, no_fix.
    """

    patches: tuple[Patch, ...] = ()
    left: tuple[Refusal, ...] = ()


def wanted_patches(
    snapshot: Snapshot,
    findings: Sequence[Finding],
    advisories: Mapping[str, Advisory],
    rules: Patches,
    now: datetime,
    first_seen: Mapping[str, datetime] = MappingProxyType({}),
) -> Wanted:
    """Choose patches: those that close a matched advisory, or whose version a declared security origin offers.

    The version is the newest *in that origin*, which may differ from the package manager's candidate; without such an
    origin it is the candidate (``snapshot.facts["candidates"]`` where the driver gives it), never a version that the
    host's pins rank lower. Held components are refused by name, never overridden. ``first_seen`` (as in ``plan.age``)
    dates for ``minAge`` what no advisory dates.
    """
    by_component: dict[str, list[Finding]] = {}
    for finding in findings:
        by_component.setdefault(finding.component, []).append(finding)
    patches: list[Patch] = []
    left: list[Refusal] = []
    for component in sorted(snapshot.offers.keys() | by_component.keys()):
        case = _Case(snapshot, component, tuple(by_component.get(component, ())), rules)
        patch = case.choose()
        refused = _refused(patch, snapshot, rules) if patch is not None else None
        if patch is not None and refused is None and rules.min_age:
            since = known_since(patch, case.findings, case.ecosystem, advisories, first_seen)
            refused = too_young(patch, since, rules.min_age, now)
        if patch is not None and refused is None:
            patches.append(patch)
        left += [refused] if refused is not None else case.unclosed(patch)
    return Wanted(patches=tuple(patches), left=tuple(_condensed(left)))


def _condensed(left: Sequence[Refusal]) -> list[Refusal]:
    """Put findings that nothing can be done about into one sentence a code: a host has hundreds without a fix."""
    kept = [item for item in left if item.code not in MANY_CODES]
    for code in MANY_CODES:
        found = [item for item in left if item.code == code]
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            message = "; ".join(item.message for item in found[:SHOWN]) + more
            kept.append(found[0].model_copy(update={"message": message}))
    return kept


@dataclass(frozen=True)
class _Case:
    """One component of one target, with its findings."""

    snapshot: Snapshot
    component: str
    findings: tuple[Finding, ...]
    rules: Patches

    @property
    def ecosystem(self) -> str:
        return self.snapshot.ecosystem or "Debian"

    @property
    def before(self) -> str | None:
        return self.snapshot.version(self.component)

    def newer(self) -> list[Offer]:
        before = self.before
        offers = self.snapshot.offers.get(self.component, ())
        return [offer for offer in offers if before is None or compare(self.ecosystem, offer.version, before) > 0]

    def closed_by(self, version: str) -> tuple[str, ...]:
        """Advisories that a version closes; only where versions of the component and of the advisory compare."""
        closing = [
            item.advisory
            for item in self.findings
            if item.fixed is not None and self.tells(item) and compare(self.ecosystem, version, item.fixed) >= 0
        ]
        return tuple(dict.fromkeys(closing))

    def tells(self, finding: Finding) -> bool:
        """Whether a version of the component tells if a finding is closed."""
        return comparable(self.snapshot.installed.get(self.component), finding.package)

    def choose(self) -> Patch | None:
        pool = self._pool()
        version = newest(self.ecosystem, [offer.version for offer in pool])
        if version is None:
            return None
        origins = [name for offer in pool if offer.version == version for name in offer.origins]
        origin = next((name for name in origins if is_security_origin(name, self.rules)), None) or next(
            iter(origins), None
        )
        closed = self.closed_by(version)
        reason = f"closes {', '.join(closed)}" if closed else f"offered by {origin}"
        return Patch(
            component=self.component,
            before=self.before,
            after=version,
            origin=origin,
            advisories=closed,
            reason=reason,
        )

    def _pool(self) -> list[Offer]:
        """Offers to choose from: a security origin's; else the candidate if it closes one or all is wanted."""
        newer = self.newer()
        chosen = [offer for offer in newer if self._is_candidate(offer)]
        if "all" in self.rules.classes:
            return chosen
        secure = [offer for offer in newer if any(is_security_origin(name, self.rules) for name in offer.origins)]
        closing = [offer for offer in chosen if self.closed_by(offer.version)]
        if secure and closing and not any(self.closed_by(offer.version) for offer in secure):
            return closing
        return secure or closing

    def _is_candidate(self, offer: Offer) -> bool:
        candidates = self.snapshot.facts.get("candidates")
        known = candidates.get(self.component) if isinstance(candidates, dict) else None
        return known is None or known == offer.version

    def unclosed(self, patch: Patch | None) -> list[Refusal]:
        """Say of every finding that the chosen patch leaves open why it stays open.

        Where versions do not compare, a patch may close it: the next snapshot's source version will tell.
        """
        closed = set(patch.advisories) if patch is not None else set()
        return [
            self._open(item)
            for item in self.findings
            if item.advisory not in closed and (patch is None or self.tells(item))
        ]

    def _open(self, finding: Finding) -> Refusal:
        said = f"{finding.component} {finding.installed}: {finding.advisory}"
        if finding.fixed is None:
            return Refusal(code="no_fix", message=f"{said} has no fix yet", blocking=False)
        offers = [offer for offer in self.newer() if finding.advisory in self.closed_by(offer.version)]
        if offers:
            origins = ", ".join(offers[0].origins) or "an unnamed origin"
            return Refusal(
                code="not_chosen",
                message=f"{said} is fixed in {offers[0].version} of {origins}, which the host does not choose itself",
                remedy="add the origin to patches.securityOrigins, or change the host's pin",
                blocking=False,
            )
        return Refusal(
            code="not_offered",
            message=f"{said} is fixed in {finding.fixed}, which no source of the host offers under this name",
            remedy="check the host's package sources",
            blocking=False,
        )


def comparable(installed: Component | None, package: str = "") -> bool:
    """Whether a component's versions can be compared with those of the package that an advisory names.

    They can where it names the component itself, and where the source has the same version, rebuilds (``+b1``) apart.
    """
    if installed is None or installed.source_version is None or (package and package != installed.source):
        return True
    return _REBUILD.sub("", installed.version) == installed.source_version


def is_security_origin(name: str, rules: Patches) -> bool:
    """Whether a policy declares an origin (``Label:Suite``) as one of security updates."""
    return any(fnmatchcase(name, pattern) for pattern in rules.security_origins)


def _refused(patch: Patch, snapshot: Snapshot, rules: Patches) -> Refusal | None:
    name, component = bare(patch.component), patch.component
    said = f"{component} {patch.before} → {patch.after}"
    if not matching_pattern(rules.include, name, component):
        return Refusal(code="not_included", message=f"{said}: patches.include does not name it", blocking=False)
    matched = matching_pattern(rules.exclude, name, component)
    if matched is not None:
        return Refusal(code="excluded", message=f'{said}: patches.exclude has "{matched}"', blocking=False)
    if component in snapshot.held or name in snapshot.held:
        remedy = f"run `apt-mark unhold {name}` there, or add it to patches.exclude"
        return Refusal(code="held", message=f"{said}: {name} is held on the host", remedy=remedy)
    return None


def matching_pattern(patterns: Sequence[str], name: str, component: str) -> str | None:
    """Give the first pattern that a component's bare name or its whole one matches."""
    return next((item for item in patterns if fnmatchcase(name, item) or fnmatchcase(component, item)), None)
