"""Weights: how the allowed chance of a false alarm is shared by waves and metrics; frozen by the plan; pure.

Boole's inequality: with shares that sum to at most 1, P(any false alarm in the rollout) ≤ alpha under any dependence of
waves and metrics. Evidence of several waves is never multiplied: clean waves would hide a bad one.
"""

from __future__ import annotations

from collections.abc import Sequence

from patching.policy import Check, Policy


def share_of(check: Check, checks: Sequence[Check], looks: int) -> float:
    """Give w of one metric check: its ``weight`` among the metric checks, divided by the number of shares."""
    measured = [item for item in checks if item.metric is not None]
    whole = sum(item.compare.weight for item in measured)
    return check.compare.weight / (whole * max(looks, 1)) if whole > 0 else 0.0


def watches(check: Check) -> bool:
    """Say whether the guard watches a check while a wave is applied: a metric that may stop, beside a control."""
    return check.metric is not None and check.critical and not check.dry_run and "control" in check.compare.against


def guarded(checks: Sequence[Check], targets: int) -> bool:
    """Say whether a wave of so many targets is watched while it is applied: only where something is left to stop."""
    return targets > 1 and any(watches(check) for check in checks)


def looks_of(checks: Sequence[Check], waves: Sequence[int], *, watched: bool, dependents: int = 0) -> int:
    """Give how many shares a rollout with waves of so many targets needs.

    One a wave for its soak, one more for the guard of each guarded wave, one where the end is ``watched``, one for each
    service that is judged in a wave because it depends on it (``dependents``, summed over the waves), and one in
    reserve for waves that a retry reopens (``reopened_looks``).
    """
    return len(waves) + sum(guarded(checks, targets) for targets in waves) + watched + dependents + 1


def reopened_looks(looks: int, number: int, parts: int) -> int:
    """Give k of the share 1/k that each of ``parts`` judgements of a reopened wave has.

    ``number`` counts the reopenings of the rollout from 1. The n-th has 1/(n(n+1)) of the reserve, so that however
    often people retry, all of them together spend no more than the reserve.
    """
    return looks * number * (number + 1) * max(parts, 1)


def replayed_looks(policy: Policy, judged: Sequence[int], dependents: int = 0) -> int:
    """Give the shares of a recorded rollout whose judged waves had so many targets; the others are taken as guarded."""
    rules = policy.spec.rollout
    waves = [*judged, *[2] * (len(rules.waves) - len(judged))]
    return looks_of(policy.spec.verify, waves, watched=bool(rules.watch), dependents=dependents)


def block_share(number: int) -> float:
    """Give the part of the guard's share that the ``number``-th block of a wave has (from 1): 1/2, 1/6, 1/12, …

    They sum to 1 however long the wave lasts.
    """
    return 1.0 / (number * (number + 1))
