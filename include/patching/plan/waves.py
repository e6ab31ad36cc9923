"""Waves: the canary first, spread over failure domains, then cumulative shares; the same input gives the same waves."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from patching.plan.document import PlannedWave
from patching.policy import Canary, RolloutRules
from patching.quantity import resolve
from patching.target import Target


def plan_waves(
    rules: RolloutRules, targets: Sequence[Target], seed: str, ranks: Mapping[str, int] | None = None
) -> tuple[PlannedWave, ...]:
    """Put every target into exactly one wave.

    The canary takes ``count`` targets for each value of ``per`` (else in all, dealt over the failure domains), but
    never the whole fleet while one could be left to compare with. Sizes are cumulative shares of all targets, percent
    rounding down, at least one target a wave while any is left; the last wave takes the rest. Later waves take from
    the domain of which the smallest share is done. Within a domain the most urgent (``ranks``, smaller first) go
    first, equals by a hash of ``seed`` and name: neither chance nor always the same hosts. Empty waves are left out.
    """
    deal = _Deal(rules.failure_domain, targets, seed, ranks or {})
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
    """The targets that are left, in one stack for each failure domain."""

    def __init__(self, label: str | None, targets: Sequence[Target], seed: str, ranks: Mapping[str, int]) -> None:
        self.label = label
        self.total = self.left = len(targets)
        self.stacks: dict[str, deque[Target]] = {}
        for target in sorted(targets, key=lambda item: (ranks.get(item.name, 0), _shuffle(seed, item.name))):
            self.stacks.setdefault(target.domain(label), deque()).append(target)
        self.sizes = {domain: len(stack) for domain, stack in self.stacks.items()}
        self.done: Counter[str] = Counter()

    def share(self, count: int) -> list[Target]:
        """Take targets so that no domain is ahead of the others by more than one of its targets."""
        return self._take(count, lambda domain: ((self.done[domain] + 1) / self.sizes[domain], domain))

    def canary(self, rule: Canary) -> list[Target]:
        """Take the canary, dealt over the domains: ``count`` in all, or for each value of ``per``."""
        most = max(self.left - 1, 1)
        if rule.per is None:
            return self._take(min(rule.count, most), self._evenly)
        order, seen = self._take(self.left, self._evenly), Counter[str]()
        taken: list[Target] = []
        for target in order:
            value = target.domain(rule.per)
            if seen[value] < rule.count and len(taken) < most:
                seen[value] += 1
                taken.append(target)
        chosen = {target.name for target in taken}
        for target in reversed([item for item in order if item.name not in chosen]):
            self._put_back(target)
        return taken

    def _evenly(self, domain: str) -> tuple[float, str]:
        return self.done[domain], domain

    def _put_back(self, target: Target) -> None:
        domain = target.domain(self.label)
        self.stacks[domain].appendleft(target)
        self.done[domain] -= 1
        self.left += 1

    def _take(self, count: int, order: Callable[[str], tuple[float, str]]) -> list[Target]:
        taken: list[Target] = []
        while len(taken) < count and self.left:
            domain = min((name for name, stack in self.stacks.items() if stack), key=order)
            taken.append(self.stacks[domain].popleft())
            self.done[domain] += 1
            self.left -= 1
        return taken


def _shuffle(seed: str, name: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{name}".encode()).hexdigest()
