"""Rules about error budgets: an objective that leaves one, a period for its windows, queries of a whole service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from patching.policy import Spec
from patching.policy_rules.finding import Wrong
from patching.quantity import format_duration, fraction

SHORTEST = 604_800.0
"""Seconds: the longest window of the burn-rate rules has 3 days, and must be a part of the period."""


def breaches(spec: Spec) -> Iterator[Wrong]:
    """Check every entry of ``errorBudgets``."""
    names = Counter(item.name for item in spec.error_budgets)
    for index, item in enumerate(spec.error_budgets):
        at: tuple[str | int, ...] = ("spec", "errorBudgets", index)
        if names[item.name] > 1:
            yield Wrong((*at, "name"), f'two error budgets are called "{item.name}"', "duplicate-name")
        share = fraction(item.objective)
        if share is None or not 0 < share < 1:
            message = f'"objective" is the share of requests that must be good, not {item.objective}; write for example'
            yield Wrong((*at, "objective"), f"{message} 99.9%", "objective")
        if item.period < SHORTEST:
            message = f'"period" is {format_duration(item.period)}, but burn rates are looked at over up to 3d'
            yield Wrong((*at, "period"), f"{message}; write at least 7d", "budget-period")
        for key in ("errors", "requests"):
            if "$series" in getattr(item, key):
                message = f'"{key}" is about the whole service, so $series means nothing here'
                yield Wrong((*at, key), message, "budget-series")
