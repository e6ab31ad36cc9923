"""Capacity: how many targets of a failure domain may be unavailable at once, as leases and as sentences.

``maxUnavailable`` is of all targets that the policy selects in a domain, percent rounds down, at least 1. Targets that
are down already are unavailable too: they take places, and a domain without a place left cannot move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from patching.ledger.base import Claim
from patching.plan.document import Plan
from patching.policy import RolloutRules
from patching.quantity import resolve
from patching.target import Target
from patching.value import Value


class Domain(Value):
    """One failure domain: its size, how many may be unavailable, and which targets are down already."""

    name: str
    size: int
    limit: int
    down: tuple[str, ...] = ()

    @property
    def places(self) -> int:
        """How many more targets may become unavailable."""
        return max(self.limit - len(self.down), 0)


def domains(rules: RolloutRules, selected: Sequence[Target], down: Iterable[str]) -> dict[str, Domain]:
    """Give every failure domain of the selected targets, ``down`` ones included, by its name."""
    absent = set(down)
    members: dict[str, list[str]] = {}
    for target in selected:
        members.setdefault(target.domain(rules.failure_domain), []).append(target.name)
    return {
        name: Domain(
            name=name,
            size=len(found),
            limit=resolve(rules.max_unavailable, len(found), at_least=1),
            down=tuple(sorted(absent.intersection(found))),
        )
        for name, found in sorted(members.items())
    }


def blocked(found: Domain, label: str | None) -> str | None:
    """Say why a domain cannot move, None where it can: ``az-b cannot move: web-7 is down, limit 1``."""
    if found.places or not found.down:
        return None
    name = "the fleet" if not label else found.name if found.name != "-" else f'targets without label "{label}"'
    shown = ", ".join(found.down[:5]) + (f" and {len(found.down) - 5} more" if len(found.down) > 5 else "")
    verb = "is" if len(found.down) == 1 else "are"
    return f"{name} cannot move: {shown} {verb} down, limit {found.limit}"


def blocked_domains(
    rules: RolloutRules, selected: Sequence[Target], down: Iterable[str], waiting: Collection[str] | None = None
) -> tuple[str, ...]:
    """Say which domains cannot move; with ``waiting`` only those in which one of these targets waits for a change."""
    label = rules.failure_domain
    wanted = {target.domain(label) for target in selected if waiting is None or target.name in waiting}
    said = (blocked(found, label) for name, found in domains(rules, selected, down).items() if name in wanted)
    return tuple(sentence for sentence in said if sentence is not None)


def target_claims(plan: Plan, target: Target) -> list[Claim]:
    """Give the claims of a change job: the target itself, and a place in its failure domain."""
    rules = plan.policy.spec.rollout
    label, domain = rules.failure_domain, target.domain(rules.failure_domain)
    limit = plan.domain_limits.get(domain)
    if limit is None:  # a plan that does not say it: of the planned targets alone, which is fewer, never more
        size = Counter(item.target.domain(label) for item in plan.targets)[domain]
        limit = resolve(rules.max_unavailable, size, at_least=1)
    name = f"{plan.policy.name} {label}={domain}" if label else plan.policy.name
    return [Claim(kind="target", name=target.name, limit=1), Claim(kind="domain", name=name, limit=limit)]


def reboot_claims(plan: Plan, target: Target) -> list[Claim]:
    """Give the claim of a reboot: a place among those of the policy that may reboot at once."""
    return [Claim(kind="reboot", name=plan.policy.name, limit=plan.policy.spec.reboot.max_concurrent)]
