"""Capacity: how many targets of a domain or service may be unavailable at once, as leases and as sentences.

``maxUnavailable`` is of all targets that the policy selects in a failure domain, and of all in a service; percent
rounds down, at least 1. ``minHealthy`` is the quorum of a service that stays; percent rounds up. Limits of
``limits.yaml`` count beside the policy's own, over all policies. Targets that are down are unavailable too, those that
were so when the plan was made and those that became it since: they take places, and a domain without a place left
cannot move.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from patching.ledger.base import Busy, Claim
from patching.limits import PatchLimits
from patching.plan.document import Plan
from patching.plan.order import pair_of
from patching.policy import RolloutRules
from patching.quantity import fraction, resolve
from patching.target import Target
from patching.value import Value


class Domain(Value):
    """One failure domain or service: its size, how many may be unavailable, and which targets are down already.

    ``quorum``: how many must stay healthy, where the limit comes from that.
    """

    name: str
    size: int
    limit: int
    down: tuple[str, ...] = ()
    quorum: int | None = None

    @property
    def places(self) -> int:
        """How many more targets may become unavailable."""
        return max(self.limit - len(self.down), 0)


def domains(rules: RolloutRules, selected: Sequence[Target], down: Iterable[str]) -> dict[str, Domain]:
    """Give every failure domain of the selected targets, ``down`` ones included, by its name."""
    members = _members(selected, lambda target: target.domain(rules.failure_domain))
    return {name: _domain(name, found, down, rules.max_unavailable, None) for name, found in members.items()}


def services(rules: RolloutRules, selected: Sequence[Target], down: Iterable[str]) -> dict[str, Domain]:
    """Give every service of the selected targets by its name; targets without the label belong to none.

    Without ``service`` a ``minHealthy`` counts for everything that the policy selects (service ``-``).
    """
    if rules.service is None and rules.min_healthy is None:
        return {}
    members = _members(selected, lambda target: service_of(rules, target))
    most = rules.max_unavailable if rules.service is not None else None
    return {name: _domain(name, found, down, most, rules.min_healthy) for name, found in members.items()}


def service_of(rules: RolloutRules, target: Target) -> str | None:
    """Service of a target whose capacity the policy limits, None where it limits none."""
    if rules.service is not None:
        return target.labels.get(rules.service)
    return "-" if rules.min_healthy is not None else None


def shared(
    limits: PatchLimits, population: Mapping[str, int], selected: Sequence[Target], down: Iterable[str]
) -> dict[str, Domain]:
    """Give the domains of ``limits.yaml`` (``az=eu-1``) that the selected targets belong to, all policies together.

    ``population`` counts all targets of the inventory in each. Of several limits of one domain the tightest holds.
    Only the selected targets were looked at, so only they can be known to be down.
    """
    found: dict[str, Domain] = {}
    for limit in limits.spec.limits:
        if limit.max_unavailable is None and limit.min_healthy is None:
            continue
        for name, names in _members(selected, limit.domain).items():
            size = max(population.get(name, 0), len(names))
            made = _domain(name, names, down, limit.max_unavailable, limit.min_healthy, size)
            if name not in found or made.limit < found[name].limit:
                found[name] = made
    return found


def shared_reboots(limits: PatchLimits, selected: Sequence[Target]) -> dict[str, int]:
    """Give how many may reboot at once in each domain of ``limits.yaml`` that has such a limit."""
    found: dict[str, int] = {}
    for limit in limits.spec.limits:
        for name in _members(selected, limit.domain) if limit.max_rebooting is not None else ():
            found[name] = min(found.get(name, limit.max_rebooting or 1), limit.max_rebooting or 1)
    return found


def blocked(found: Domain, label: str | None) -> str | None:
    """Say why a domain cannot move, None where it can: ``az-b cannot move: web-7 is down, limit 1``."""
    if found.places or (not found.down and found.quorum is None):
        return None
    name = "the fleet" if not label else found.name if found.name != "-" else f'targets without label "{label}"'
    if found.limit == 0:
        return f"{name} cannot move: {found.quorum} of {found.size} must stay healthy (minHealthy)"
    return _cannot_move(name, found.down, found.limit)


def _cannot_move(name: str, down: Sequence[str], limit: int) -> str:
    shown = ", ".join(down[:5]) + (f" and {len(down) - 5} more" if len(down) > 5 else "")
    return f"{name} cannot move: {shown} {'is' if len(down) == 1 else 'are'} down, limit {limit}"


def blocked_domains(
    rules: RolloutRules, selected: Sequence[Target], down: Iterable[str], waiting: Collection[str] | None = None
) -> tuple[str, ...]:
    """Say which domains cannot move; with ``waiting`` only those in which one of these targets waits for a change."""
    label = rules.failure_domain
    wanted = {target.domain(label) for target in selected if waiting is None or target.name in waiting}
    said = (blocked(found, label) for name, found in domains(rules, selected, down).items() if name in wanted)
    return tuple(sentence for sentence in said if sentence is not None)


def target_claims(plan: Plan, target: Target) -> list[Claim]:
    """Give the claims of a change job: the target, its cluster, and a place in every domain that is limited.

    The policy's own domains and services are named after it, those of ``limits.yaml`` are the same for all policies.
    """
    rules = plan.policy.spec.rollout
    label, domain = rules.failure_domain, target.domain(rules.failure_domain)
    limit = plan.domain_limits.get(domain)
    if limit is None:  # a plan that does not say it: of the planned targets alone, which is fewer, never more
        size = Counter(item.target.domain(label) for item in plan.targets)[domain]
        limit = resolve(rules.max_unavailable, size, at_least=1)
    name = f"{plan.policy.name} {label}={domain}" if label else plan.policy.name
    claims = [Claim(kind="target", name=target.name, limit=1), Claim(kind="domain", name=name, limit=limit)]
    service = service_of(rules, target)
    if service is not None and service in plan.service_limits:
        name = f"{plan.policy.name} {rules.service}={service}" if rules.service else plan.policy.name
        claims.append(Claim(kind="service", name=name, limit=plan.service_limits[service]))
    claims += [
        Claim(kind="limit", name=name, limit=plan.shared_limits[name]) for name in _of(target, plan.shared_limits)
    ]
    if plan.policy.spec.error_budgets:
        claims.append(Claim(kind="rollout", name=plan.rollout, limit=plan.at_once))
    pair = pair_of(target)
    return [*claims, Claim(kind="cluster", name=pair, limit=1)] if pair is not None else claims


def most_at_once(plan: Plan, wave: int) -> int:
    """Give how many targets of a wave its own limits let be unavailable together, whichever of them is the tightest."""
    found = plan.wave(wave)
    targets = [item.target for item in plan.targets if found is not None and item.target.name in found.targets]
    claims = [{claim.kind: claim for claim in target_claims(plan, target)} for target in targets]
    places = []
    for kind in ("domain", "service", "limit"):
        limited = Counter((found[kind].name, found[kind].limit) for found in claims if kind in found)
        free = sum(kind not in found for found in claims)
        places.append(free + sum(min(limit, count) for (_, limit), count in limited.items()))
    return max(min(places), 1)


class Place(Value):
    """What a change job claims of one resource, and which other planned targets are down in it."""

    claim: Claim
    down: tuple[str, ...] = ()

    @property
    def left(self) -> Claim:
        """The claim with the places that those who are down leave."""
        if not self.down:
            return self.claim
        return self.claim.model_copy(update={"limit": max(self.claim.limit - len(self.down), 0)})

    @property
    def cannot_move(self) -> str | None:
        """Why no place will come free while they are down, None where one may."""
        if not self.down or len(self.down) < self.claim.limit:
            return None
        return _cannot_move(f"{self.claim.kind} {self.claim.name}", self.down, self.claim.limit)

    def busy(self, holders: Sequence[str] = ()) -> Busy:
        """Say who is in the way: the holders, and those that are down."""
        said = (*holders, *(f"{name} (down)" for name in self.down))
        return Busy(kind=self.claim.kind, name=self.claim.name, limit=self.claim.limit, holders=said)


def places(plan: Plan, target: Target, down: Collection[str]) -> list[Place]:
    """Give the claims of a change job, each with who is down in it; a target takes no place from itself.

    ``down`` are targets of the plan that are unavailable although no lease says so.
    """
    found = (plan.planned(name) for name in sorted(down) if name != target.name)
    others = [item.target for item in found if item is not None]
    members = {other.name: {(item.kind, item.name) for item in target_claims(plan, other)} for other in others}
    return [
        Place(
            claim=claim,
            down=tuple(sorted(name for name, found in members.items() if (claim.kind, claim.name) in found)),
        )
        for claim in target_claims(plan, target)
    ]


def reboot_claims(plan: Plan, target: Target) -> list[Claim]:
    """Give the claims of a reboot: a place among those of the policy, and of each limited domain, at once."""
    own = Claim(kind="reboot", name=plan.policy.name, limit=plan.policy.spec.reboot.max_concurrent)
    return [own] + [
        Claim(kind="reboot", name=name, limit=plan.shared_reboots[name]) for name in _of(target, plan.shared_reboots)
    ]


def _of(target: Target, limits: Mapping[str, int]) -> list[str]:
    return [name for name in limits if (pair := name.partition("="))[1] and target.labels.get(pair[0]) == pair[2]]


def _members(targets: Sequence[Target], domain: Callable[[Target], str | None]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for target in targets:
        name = domain(target)
        if name is not None:
            members.setdefault(name, []).append(target.name)
    return dict(sorted(members.items()))


def _domain(
    name: str,
    members: Sequence[str],
    down: Iterable[str],
    most: int | str | None,
    healthy: int | str | None,
    size: int | None = None,
) -> Domain:
    """Make a domain; of ``most`` unavailable and ``healthy`` ones that must stay, the tighter holds."""
    total = len(members) if size is None else size
    limit = total if most is None else resolve(most, total, at_least=1)
    quorum = None if healthy is None else _at_least(healthy, total)
    if quorum is not None:
        limit = min(limit, max(total - quorum, 0))
    return Domain(name=name, size=total, limit=limit, down=tuple(sorted(set(down) & set(members))), quorum=quorum)


def _at_least(value: int | str, total: int) -> int:
    share = fraction(value)
    return int(value) if share is None else math.ceil(share * total - 1e-9)
