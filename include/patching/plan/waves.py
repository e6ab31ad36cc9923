"""Waves: the canary first, spread over failure domains, then cumulative shares; the same input gives the same waves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from patching.plan.document import PlannedWave
from patching.policy import Canary, RolloutRules
from patching.quantity import resolve
from patching.target import Target


def plan_waves(
    rules: RolloutRules,
    targets: Sequence[Target],
    seed: str,
    ranks: Mapping[str, int] | None = None,
    depths: Mapping[str, int] | None = None,
) -> tuple[PlannedWave, ...]:
    """Put every target into exactly one wave.

    The canary takes ``count`` targets for each value of ``per`` (else in all), dealt over the failure domains by lot,
    but never the whole fleet while one could be left to compare with. Sizes are cumulative shares of all targets,
    percent rounding down, at least one target a wave while any is left; the last wave takes the rest. Later waves
    spread over the domains by their size (Sainte-Laguë), so that every domain is about as far as the fleet, and within
    a domain the most urgent (``ranks``, smaller first) go first. Urgency does not draw the canary: what is compared
    must be alike. A lot is a hash of ``seed`` and name: no chance, and with another seed another draw.
    Whoever must wait for others (``depths``, see ``plan.order``) comes after all that stand further up, in the same
    wave or a later one; so the canary is drawn from those that wait for nobody.
    Empty waves are left out.
    """
    deal = _Deal(rules.failure_domain, targets, seed, ranks or {}, depths or {})
    waves: list[PlannedWave] = []
    for number, rule in enumerate(rules.waves, 1):
        if number == len(rules.waves):
            taken = deal.share(deal.left)
        elif rule.canary is not None:
            taken = deal.canary(rule.canary)
        else:
            goal = resolve(rule.size, deal.total) if rule.size is not None else deal.total
            taken = deal.share(max(goal - (deal.total - deal.left), 1))
        if taken:
            index, names = len(waves) + 1, tuple(target.name for target in taken)
            canary = rule.canary is not None
            waves.append(PlannedWave(index=index, canary=canary, targets=names, soak=rule.soak))
    return tuple(waves)


class _Deal:
    """The targets that are left, by failure domain."""

    def __init__(
        self,
        label: str | None,
        targets: Sequence[Target],
        seed: str,
        ranks: Mapping[str, int],
        depths: Mapping[str, int],
    ) -> None:
        self.label = label
        self.seed = seed
        self.ranks = ranks
        self.depths = depths
        self.total = self.left = len(targets)
        self.domains: dict[str, list[Target]] = {}
        for target in sorted(targets, key=lambda item: (self._depth(item), self._lot(item.name))):
            self.domains.setdefault(target.domain(label), []).append(target)
        self.sizes = {domain: len(found) for domain, found in self.domains.items()}
        self.done: Counter[str] = Counter()

    def share(self, count: int) -> list[Target]:
        """Take targets so that every domain is about as far as all of them together, the most urgent first."""
        for found in self.domains.values():
            found.sort(key=lambda target: (self._depth(target), self.ranks.get(target.name, 0), self._lot(target.name)))
        return self._take(self._order(lambda domain, number: (2 * number + 1) / self.sizes[domain])[:count])

    def canary(self, rule: Canary) -> list[Target]:
        """Take the canary, dealt over the domains: ``count`` in all, or for each value of ``per``."""
        most, seen = max(self.left - 1, 1), Counter[str]()
        taken: list[Target] = []
        for target in self._first(self._order(lambda _domain, number: number)):
            value = target.domain(rule.per)
            if seen[value] < rule.count and len(taken) < most:
                seen[value] += 1
                taken.append(target)
        return self._take(taken)

    def _order(self, key: Callable[[str, int], float]) -> list[Target]:
        """Order what is left by a key of the domain and of how many of it come before; equal keys by lot."""
        keyed = [
            (self._depth(target), key(domain, self.done[domain] + number), lot, number, target)
            for domain, found in self.domains.items()
            for lot in (self._lot(domain),)
            for number, target in enumerate(found)
        ]
        return [item[-1] for item in sorted(keyed, key=lambda item: item[:4])]

    def _first(self, ordered: list[Target]) -> list[Target]:
        """Keep those that wait for nobody: others in the canary would pull in all that they wait for."""
        least = min((self._depth(target) for target in ordered), default=0)
        return [target for target in ordered if self._depth(target) == least]

    def _depth(self, target: Target) -> int:
        return self.depths.get(target.name, 0)

    def _take(self, taken: list[Target]) -> list[Target]:
        names = {target.name for target in taken}
        for domain, found in self.domains.items():
            self.domains[domain] = [target for target in found if target.name not in names]
            self.done[domain] += len(found) - len(self.domains[domain])
        self.left -= len(taken)
        return taken

    def _lot(self, name: str) -> str:
        return lot(self.seed, name)


def lot(seed: str, name: str) -> str:
    """Draw a lot: a hash, which is no chance, and with another seed another draw."""
    return hashlib.sha256(f"{seed}\x1f{name}".encode()).hexdigest()
