"""Error budgets: how fast a service spends what it may fail, and what that allows; counts in, an answer out, pure.

Multi-window, multi-burn-rate rules of the Google SRE workbook (chapter 5, "Alerting on SLOs"), as Sloth generates them
for 30 days: a rule fires when its short *and* its long window burn at least ``share × period ÷ long window``. That is
14.4 and 6 (page), 3 and 1 (ticket) for 30 days. What each level allows is our choice, see docs/explanation/verdict.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from patching.policy import ErrorBudget
from patching.quantity import format_duration, fraction
from patching.value import Value

NEARLY_SPENT = 0.10
"""Share of the budget that must be left, or only emergencies go on."""


class Level(StrEnum):
    """What an error budget says, from good to bad."""

    OK = "ok"
    TICKET = "ticket"
    SPENT = "spent"
    PAGE = "page"
    NO_DATA = "no_data"


WORSE = tuple(Level)


class BurnRule(NamedTuple):
    """One row of the table: ``share`` of the period's budget spent within the long window; windows in seconds."""

    level: Level
    share: float
    short: float
    long: float

    def rate(self, period: float) -> float:
        """Burn rate from which the rule fires: 1 spends exactly the whole budget in one period."""
        return self.share * period / self.long


RULES = (
    BurnRule(Level.PAGE, 0.02, 300, 3_600),
    BurnRule(Level.PAGE, 0.05, 1_800, 21_600),
    BurnRule(Level.TICKET, 0.10, 7_200, 86_400),
    BurnRule(Level.TICKET, 0.10, 21_600, 259_200),
)


class Count(Value):
    """What was counted in one window; None where there is no such series (no error yet is zero, not None)."""

    errors: float | None
    requests: float | None


class BudgetView(Value):
    """What one error budget says now, with its numbers: ``burns`` maps a window (``1h``) to its burn rate."""

    budget: str
    level: Level
    sentence: str
    left: float | None = None
    burns: dict[str, float] = Field(default_factory=dict)


def windows(budget: ErrorBudget) -> tuple[float, ...]:
    """List the windows (seconds) in which errors and requests must be counted, the whole period last."""
    return (*sorted({item for rule in RULES for item in (rule.short, rule.long)}), budget.period)


def burn(count: Count, objective: float) -> float | None:
    """Give the burn rate of one window: error share ÷ allowed share; None without request series.

    A window without a single request spends nothing.
    """
    if count.requests is None:
        return None
    share = (count.errors or 0.0) / count.requests if count.requests > 0 else 0.0
    return share / (1 - objective)


def judge_budget(budget: ErrorBudget, counts: Mapping[float, Count]) -> BudgetView:
    """Say what an error budget allows; a window without data makes it ``no_data``, which is never a pass."""
    objective = fraction(budget.objective) or 0.0
    burns = {seconds: burn(counts.get(seconds, Count(errors=None, requests=None)), objective) for seconds in counts}
    missing = [seconds for seconds in windows(budget) if burns.get(seconds) is None]
    shown = {format_duration(seconds): round(rate, 3) for seconds, rate in burns.items() if rate is not None}
    if missing:
        said = f"no requests are counted over {format_duration(missing[0])}, so nobody knows what is left"
        return BudgetView(budget=budget.name, level=Level.NO_DATA, sentence=f"{budget.name}: {said}", burns=shown)
    known = {seconds: rate for seconds, rate in burns.items() if rate is not None}
    left = 1 - known[budget.period]
    level, said = _level(budget, known, left)
    return BudgetView(budget=budget.name, level=level, sentence=f"{budget.name}: {said}", left=left, burns=shown)


def _level(budget: ErrorBudget, burns: Mapping[float, float], left: float) -> tuple[Level, str]:
    rest = f"{max(left, 0.0):.0%} of the error budget of {format_duration(budget.period)} is left"
    fired = [rule for rule in RULES if min(burns[rule.short], burns[rule.long]) >= rule.rate(budget.period)]
    if fired:
        rule = fired[0]
        rates = f"{burns[rule.short]:.1f} × in {format_duration(rule.short)} and {burns[rule.long]:.1f} ×"
        said = f"burns {rates} in {format_duration(rule.long)} (limit {rule.rate(budget.period):.1f}); {rest}"
        if rule.level is Level.PAGE or left >= NEARLY_SPENT:
            return rule.level, said
    if left < NEARLY_SPENT:
        return Level.SPENT, f"{rest}, less than {NEARLY_SPENT:.0%}: only emergencies go on"
    return Level.OK, rest


def worst(views: Sequence[BudgetView]) -> BudgetView | None:
    """Give the budget that allows least, None without budgets."""
    return max(views, key=lambda view: WORSE.index(view.level), default=None)
