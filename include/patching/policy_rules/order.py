"""Rules about the order of services: nobody waits for himself, not even in a circle."""

from __future__ import annotations

from collections.abc import Iterator

from patching.plan.order import service_cycle
from patching.policy import RolloutRules
from patching.policy_rules.finding import Wrong

_HERE = ("spec", "rollout", "dependsOn")


def breaches(rollout: RolloutRules) -> Iterator[Wrong]:
    """Check ``dependsOn``."""
    circle = service_cycle(rollout.depends_on)
    if circle is not None:
        message = f"{' → '.join(circle)} is a circle: each waits for the next, so none would ever begin"
        yield Wrong((*_HERE, circle[0]), message, "dependency-cycle", key=True)
