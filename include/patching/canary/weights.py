"""Weights: how the allowed chance of a false alarm is shared by waves and metrics; frozen by the plan; pure.

Boole's inequality: with shares that sum to at most 1, P(any false alarm in the rollout) ≤ alpha under any dependence of
waves and metrics. Evidence of several waves is never multiplied: clean waves would hide a bad one.
"""

from __future__ import annotations

from collections.abc import Sequence

from patching.policy import Check


def share_of(check: Check, checks: Sequence[Check], waves: int) -> float:
    """Give w of one metric check in one wave: its ``weight`` among the metric checks, divided by the waves."""
    measured = [item for item in checks if item.prometheus is not None]
    whole = sum(item.compare.weight for item in measured)
    return check.compare.weight / (whole * max(waves, 1)) if whole > 0 else 0.0
