"""Order: which targets end before which begin, from ``dependsOn`` between services and from the roles in a cluster.

A target waits for all planned targets of the services that its own depends on. In a cluster (label ``cluster``) whose
members have roles (label ``role``), the leader comes after its followers and no two go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter

from patching.errors import PlanError
from patching.policy import RolloutRules
from patching.target import Target

CLUSTER, ROLE = "cluster", "role"
LEADERS = frozenset({"leader", "primary", "master"})
FOLLOWERS = frozenset({"follower", "replica", "standby", "secondary"})
SERVICE = "service"
"""Label that names the service of a target where the policy names no other (``rollout.service``)."""

Node = tuple[str, str]


def pair_of(target: Target) -> str | None:
    """Cluster of a target whose members never go together, None where it has no cluster or no role in it."""
    cluster = target.labels.get(CLUSTER)
    return cluster if cluster and target.labels.get(ROLE) in LEADERS | FOLLOWERS else None


def service_cycle(depends_on: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Find services that depend on each other in a circle, the first one again at the end; None where there is none."""
    try:
        TopologicalSorter(depends_on).prepare()
    except CycleError as error:
        return tuple(reversed(error.args[1]))
    return None


class Order:
    """The order of a plan's targets; raises PlanError naming a cycle."""

    def __init__(self, rules: RolloutRules, targets: Sequence[Target]) -> None:
        self._label = rules.service or SERVICE
        self._services = {name: tuple(found) for name, found in rules.depends_on.items()}
        self._members: dict[str, list[str]] = {}
        self._followers: dict[str, list[str]] = {}
        for target in targets:
            self._members.setdefault(target.labels.get(self._label, ""), []).append(target.name)
            if pair_of(target) is not None and target.labels[ROLE] in FOLLOWERS:
                self._followers.setdefault(target.labels[CLUSTER], []).append(target.name)
        self._needed = cache(self._behind)
        self.depth = self._depths(targets)

    def before(self, target: Target) -> frozenset[str]:
        """Name the planned targets that must have ended well before this one is begun."""
        services = self._services.get(target.labels.get(self._label, ""), ())
        first = frozenset[str]().union(*(self._needed(name) for name in services))
        return first | frozenset(self._led(target))

    def _behind(self, service: str) -> frozenset[str]:
        """Name the targets of a service and of all that it depends on: one of those may have no target here."""
        deeper = (self._needed(name) for name in self._services.get(service, ()))
        return frozenset(self._members.get(service, ())).union(*deeper)

    def _led(self, target: Target) -> list[str]:
        led = pair_of(target) is not None and target.labels[ROLE] in LEADERS
        return [name for name in self._followers.get(target.labels[CLUSTER], ()) if name != target.name] if led else []

    def _depths(self, targets: Sequence[Target]) -> dict[str, int]:
        """Give for every target how many others stand before it, one behind the other, at most."""
        graph = self._graph(targets)
        depth: dict[Node, int] = {}
        try:
            for node in TopologicalSorter(graph).static_order():
                before = (depth[item] + (item[0] == "target") for item in graph.get(node, ()))
                depth[node] = max(before, default=0)
        except CycleError as error:
            circle = " → ".join(name for _, name in reversed(error.args[1]))
            raise PlanError(
                f"the order of the targets is a circle: {circle} (each waits for the next); nothing was planned. "
                "Take one arrow out of spec.rollout.dependsOn, or correct the labels of the targets"
            ) from error
        return {target.name: depth[("target", target.name)] for target in targets}

    def _graph(self, targets: Sequence[Target]) -> dict[Node, set[Node]]:
        """Draw targets and services as nodes: arrows are as many as both together, not as their product."""
        graph: dict[Node, set[Node]] = {}
        for name, needed in self._services.items():
            graph[("service", name)] = {("service", item) for item in needed}
        for name in set(self._services) | {item for needed in self._services.values() for item in needed}:
            members: Iterable[Node] = (("target", item) for item in self._members.get(name, ()))
            graph.setdefault(("service", name), set()).update(members)
        for target in targets:
            needed = self._services.get(target.labels.get(self._label, ""), ())
            before: set[Node] = {("service", item) for item in needed}
            graph[("target", target.name)] = before | {("target", item) for item in self._led(target)}
        return graph
