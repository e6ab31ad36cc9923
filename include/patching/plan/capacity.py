"""Capacity: which leases a change of one target needs, and which domains have none left before anything begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from patching.ledger.base import Claim
from patching.plan.document import Plan
from patching.policy import RolloutRules
from patching.quantity import resolve
from patching.target import Target


def target_claims(plan: Plan, target: Target) -> list[Claim]:
    """Give the claims of a change job: the target itself, and a place in its failure domain."""
    label = plan.policy.spec.rollout.failure_domain
    sizes = Counter(item.target.domain(label) for item in plan.targets)
    domain = target.domain(label)
    limit = resolve(plan.policy.spec.rollout.max_unavailable, sizes[domain], at_least=1)
    name = f"{plan.policy.name} {label}={domain}" if label else plan.policy.name
    return [Claim(kind="target", name=target.name, limit=1), Claim(kind="domain", name=name, limit=limit)]


def reboot_claims(plan: Plan, target: Target) -> list[Claim]:
    """Give the claim of a reboot: a place among those that may reboot at once."""
    return [Claim(kind="reboot", name=plan.policy.name, limit=plan.policy.spec.reboot.max_concurrent)]


def blocked_domains(rules: RolloutRules, targets: Sequence[Target], down: Iterable[str]) -> tuple[str, ...]:
    """Say which domains cannot move because targets that are down already use up what may be unavailable."""
    label, absent = rules.failure_domain, set(down)
    members: dict[str, list[Target]] = {}
    for target in targets:
        members.setdefault(target.domain(label), []).append(target)
    said = []
    for domain, found in sorted(members.items()):
        missing = sorted(target.name for target in found if target.name in absent)
        limit = resolve(rules.max_unavailable, len(found), at_least=1)
        if missing and len(missing) >= limit and len(missing) < len(found):
            name = domain if label else "the fleet"
            said.append(f"{name} cannot move: {', '.join(missing)} down, limit {limit}")
    return tuple(said)
