"""Wanted patches of one target: what closes an advisory or comes from a security origin, and why the rest is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from patching.advisory import Advisory, Finding
from patching.change import Patch, Refusal
from patching.policy import Patches
from patching.target import Offer, Snapshot
from patching.value import Value
from patching.version_order import compare


class Wanted(Value):
    """The patches that a policy wants on one target, and every offer it leaves alone with the reason."""

    patches: tuple[Patch, ...] = ()
    left: tuple[Refusal, ...] = ()


def wanted_patches(
    snapshot: Snapshot, findings: Sequence[Finding], advisories: Mapping[str, Advisory], rules: Patches, now: datetime
) -> Wanted:
    """Choose patches: those that close a matched advisory, or whose version a declared security origin offers.

    The version is the one *in that origin*, which may differ from the package manager's candidate. Held components
    are refused by name, never overridden.
    """
    patches: list[Patch] = []
    left: list[Refusal] = []
    by_component: dict[str, list[Finding]] = {}
    for finding in findings:
        by_component.setdefault(finding.component, []).append(finding)
    for component in sorted(snapshot.offers):
        patch = _choose(snapshot, component, by_component.get(component, []), rules)
        if patch is None:
            continue
        refused = _refused(component, patch, snapshot, advisories, rules, now)
        if refused is None:
            patches.append(patch)
        else:
            left.append(refused)
    offered = {patch.component for patch in patches} | {item.code.partition(" ")[2] for item in left}
    left += [_unfixed(item) for item in findings if item.fixed is None and item.component not in offered]
    return Wanted(patches=tuple(patches), left=tuple(left))


def _choose(snapshot: Snapshot, component: str, findings: Sequence[Finding], rules: Patches) -> Patch | None:
    before, ecosystem = snapshot.version(component), snapshot.ecosystem or "Debian"
    newer = [
        offer for offer in snapshot.offers[component] if before is None or compare(ecosystem, offer.version, before) > 0
    ]
    secure = [offer for offer in newer if is_security(offer, rules)]
    closing = [offer for offer in newer if _closes(offer, findings, ecosystem)]
    pool = secure or closing or (newer if "all" in rules.classes else [])
    if not pool:
        return None
    best = pool[0]
    for offer in pool[1:]:
        if compare(ecosystem, offer.version, best.version) > 0:
            best = offer
    closed = tuple(dict.fromkeys(item.advisory for item in findings if _is_closed(best, item, ecosystem)))
    origin = next(
        (name for name in best.origins if _security_name(name, rules)), best.origins[0] if best.origins else None
    )
    reason = f"closes {', '.join(closed)}" if closed else f"offered by {origin}"
    return Patch(
        component=component, before=before, after=best.version, origin=origin, advisories=closed, reason=reason
    )


def is_security(offer: Offer, rules: Patches) -> bool:
    """Whether a declared security origin offers this version."""
    return any(_security_name(name, rules) for name in offer.origins)


def _security_name(name: str, rules: Patches) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in rules.security_origins)


def _closes(offer: Offer, findings: Sequence[Finding], ecosystem: str) -> bool:
    return any(_is_closed(offer, item, ecosystem) for item in findings)


def _is_closed(offer: Offer, finding: Finding, ecosystem: str) -> bool:
    return finding.fixed is not None and compare(ecosystem, offer.version, finding.fixed) >= 0


def _refused(
    component: str,
    patch: Patch,
    snapshot: Snapshot,
    advisories: Mapping[str, Advisory],
    rules: Patches,
    now: datetime,
) -> Refusal | None:
    name = component.partition(":")[0]
    said = f"{component} {patch.before} → {patch.after}"
    if not any(fnmatchcase(name, pattern) for pattern in rules.include):
        return Refusal(code=f"not_included {component}", message=f"{said}: patches.include does not name it")
    matched = next((pattern for pattern in rules.exclude if fnmatchcase(name, pattern)), None)
    if matched is not None:
        return Refusal(code=f"excluded {component}", message=f'{said}: patches.exclude has "{matched}"')
    if component in snapshot.held or name in snapshot.held:
        remedy = f"apt-mark unhold {name}, or exclude it in the policy"
        return Refusal(code=f"held {component}", message=f"{said}: it is held on the host", remedy=remedy)
    known = [advisories[item].published for item in patch.advisories if item in advisories]
    ages = [now - published for published in known if published is not None]
    if rules.min_age and ages and max(ages) < timedelta(seconds=rules.min_age):
        return Refusal(
            code=f"too_young {component}", message=f"{said}: published {max(ages).days} days ago, minAge waits"
        )
    return None


def _unfixed(finding: Finding) -> Refusal:
    message = f"{finding.component} {finding.installed}: {finding.advisory} has no fix yet"
    return Refusal(code=f"no_fix {finding.component}", message=message, blocking=False)
