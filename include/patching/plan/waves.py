"""Waves: the canary first, spread over failure domains, then cumulative shares; the same input gives the same waves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from patching.plan.document import PlannedWave
from patching.policy import RolloutRules, WaveRule
from patching.quantity import resolve
from patching.target import Target


def plan_waves(rules: RolloutRules, targets: Sequence[Target], seed: str) -> tuple[PlannedWave, ...]:
    """Put every target into exactly one wave.

    The canary takes ``count`` targets for each value of ``per`` (else in all, dealt over the failure domains). Sizes
    are cumulative shares of all targets, percent rounding down but at least one target a wave while any is left; the
    last wave takes the rest. Within a domain the order is by a hash of ``seed`` and name, so that not always the same
    hosts go first. Waves that would be empty are left out.
    """
    left = _dealt(targets, rules.failure_domain, seed)
    total, done = len(left), 0
    waves: list[PlannedWave] = []
    for number, rule in enumerate(rules.waves, 1):
        last = number == len(rules.waves)
        taken = left if last else _take(rule, left, total, done, seed)
        if not taken:
            continue
        left = [target for target in left if target not in taken]
        done += len(taken)
        names = tuple(target.name for target in taken)
        waves.append(PlannedWave(index=len(waves) + 1, canary=rule.canary is not None, targets=names, soak=rule.soak))
    return tuple(waves)


def _take(rule: WaveRule, left: list[Target], total: int, done: int, seed: str) -> list[Target]:
    if rule.canary is not None:
        return _canary(rule.canary.count, rule.canary.per, left, seed)
    goal = resolve(rule.size, total) if rule.size is not None else total
    return left[: max(goal - done, 1)]


def _canary(count: int, per: str | None, left: list[Target], seed: str) -> list[Target]:
    """Take the canary; it never takes the whole fleet while a control could be left."""
    if per is None:
        taken = left[:count]
    else:
        seen: dict[str, int] = {}
        taken = []
        for target in left:
            domain = target.domain(per)
            if seen.get(domain, 0) < count:
                seen[domain] = seen.get(domain, 0) + 1
                taken.append(target)
    spare = 1 if len(left) > 1 and len(taken) == len(left) else 0
    return taken[: len(taken) - spare]


def _dealt(targets: Sequence[Target], label: str | None, seed: str) -> list[Target]:
    """Order targets as cards are dealt: one from each domain in turn."""
    hands: dict[str, list[Target]] = {}
    for target in sorted(targets, key=lambda item: _shuffle(seed, item.name)):
        hands.setdefault(target.domain(label), []).append(target)
    order: list[Target] = []
    for turn in range(max((len(hand) for hand in hands.values()), default=0)):
        order += [hand[turn] for _, hand in sorted(hands.items()) if turn < len(hand)]
    return order


def _shuffle(seed: str, name: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{name}".encode()).hexdigest()
