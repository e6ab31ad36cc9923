"""Dependents: the targets of services that depend, near or far, on a service that a wave changes; pure.

They are changed after it (``plan.order``), and feel a change that they did not get. So they are measured for
themselves, and are no control: errors that the patch causes there would hide those that it causes on what it changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from patching.plan.order import SERVICE
from patching.policy import RolloutRules
from patching.target import Target


def dependents(
    rules: RolloutRules, targets: Sequence[Target], wave: Collection[str], *, changed_too: bool = False
) -> dict[str, tuple[str, ...]]:
    """Give service → its targets, for every service that depends on one of the ``wave``'s and is not in it itself.

    ``changed_too``: those that are in it as well; who depends on others may break by them although it was changed too.
    """
    if not rules.depends_on:
        return {}
    label, inside = rules.service or SERVICE, set(wave)
    changed = {target.labels.get(label, "") for target in targets if target.name in inside}
    found: dict[str, list[str]] = {}
    for target in targets:
        service = target.labels.get(label, "")
        if (changed_too or service not in changed) and _behind(rules, service) & changed:
            found.setdefault(service, []).append(target.name)
    return {service: tuple(names) for service, names in sorted(found.items())}


def _behind(rules: RolloutRules, service: str) -> set[str]:
    """Name the services that one depends on, near or far."""
    found: set[str] = set()
    left = list(rules.depends_on.get(service, ()))
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += rules.depends_on.get(name, ())
    return found
