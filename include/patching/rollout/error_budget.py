"""Error budgets of a policy: read from metric sources and written down for the gates, which ask only the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from patching.canary.error_budget import BudgetView, Count, Level, judge_budget, windows, worst
from patching.errors import ConnectionMissing, LedgerUnavailable, MetricSourceUnavailable
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.capacity import most_at_once
from patching.plan.document import Plan
from patching.policy import ErrorBudget, Policy
from patching.rollout.beside import beside
from patching.rollout.record import frozen_plan, moved
from patching.rollout.site import Site
from patching.rollout.states import AT_WORK, RolloutState

FRESH = timedelta(minutes=10)
"""A look that is older says nothing about now."""
SOAK_LOOKS = timedelta(minutes=2, seconds=30)
"""How often a soaking wave asks: twice in the shortest window (5 min) of the burn rates."""


async def look_at_budgets(site: Site, policy: Policy, now: datetime) -> tuple[BudgetView, ...]:
    """Read every error budget of a policy; one whose source does not answer is ``no_data``, never a pass."""
    return tuple(await asyncio.gather(*(_look(site, budget, now) for budget in policy.spec.error_budgets)))


async def _look(site: Site, budget: ErrorBudget, now: datetime) -> BudgetView:
    try:
        source = site.metrics(budget.connection)
        counts = {
            seconds: Count(
                errors=await source.total(budget.errors, seconds, now),
                requests=await source.total(budget.requests, seconds, now),
            )
            for seconds in windows(budget)
        }
    except (MetricSourceUnavailable, ConnectionMissing) as error:
        return BudgetView(budget=budget.name, level=Level.NO_DATA, sentence=f"{budget.name}: {error}")
    return judge_budget(budget, counts)


async def record_budgets(site: Site, rollout: str, wave: int) -> BudgetView | None:
    """Write down what the error budgets say before or during a wave, as often as that changes; gives the worst.

    Raises LedgerUnavailable.
    """
    plan = frozen_plan(site, rollout)
    if plan is None or not plan.policy.spec.error_budgets:
        return None
    now = site.clock()
    views = await look_at_budgets(site, plan.policy, now)
    found = worst(views)
    looks = site.ledger.entries(rollout, kinds=[EntryKind.ERROR_BUDGET])
    body = {"wave": wave, "level": found.level.value if found else "", "budgets": [_body(view) for view in views]}
    if not looks or looks[-1].body != body or now - looks[-1].at >= FRESH / 2:
        key = f"error-budget:{len(looks) + 1}"
        site.ledger.append(NewEntry(chain=rollout, kind=EntryKind.ERROR_BUDGET, key=key, body=body))
    return found


def _body(view: BudgetView) -> dict[str, object]:
    return view.model_dump(mode="json")


def budget_now(site: Site, rollout: str, wave: int) -> BudgetView | None:
    """Give the worst error budget by the newest look at it for a wave; one that is not fresh is ``no_data``."""
    looks = site.ledger.entries(rollout, kinds=[EntryKind.ERROR_BUDGET])
    mine = [entry for entry in looks if entry.body.get("wave") == wave]
    if not mine or site.clock() - mine[-1].at > FRESH:
        return BudgetView(budget="-", level=Level.NO_DATA, sentence="nobody has looked at the error budget yet")
    return worst([BudgetView.model_validate(item) for item in mine[-1].body["budgets"]])


def hold_for(site: Site, rollout: str, found: BudgetView) -> str | None:
    """Hold a running rollout whose service burns its error budget; gives the sentence, which offers the undo.

    None where somebody else has moved it meanwhile, so that it is not held: their word holds.
    """
    text = f"error budget {found.sentence}; resume the rollout when it has calmed down, or undo what it changed"
    state = moved(site, rollout, RolloutState.HELD, reason=text, only_from=AT_WORK)
    return text if state is RolloutState.HELD else None


def eased(site: Site, plan: Plan, wave: int) -> Plan:
    """Halve how many targets are changed at once in all (at least 1) while the newest look is at ticket level."""
    looks = site.ledger.entries(plan.rollout, kinds=[EntryKind.ERROR_BUDGET])
    mine = [entry for entry in looks if entry.body.get("wave") == wave]
    if not mine or mine[-1].body["level"] != Level.TICKET:
        return plan
    return plan.eased(max(most_at_once(plan, wave) // 2, 1))


def _bound(plan: Plan) -> bool:
    """Say whether error budgets may hold this rollout: an emergency may ignore them."""
    spec = plan.policy.spec
    return bool(spec.error_budgets) and not (plan.emergency and "error-budget" in spec.emergency.ignore)


def next_budget_look(plan: Plan, now: datetime) -> datetime | None:
    """Say when the budgets of a soaking wave are looked at next; None where they hold nothing."""
    return now + SOAK_LOOKS if _bound(plan) else None


async def burning(site: Site, plan: Plan, wave: int) -> str | None:
    """Look at the error budgets of a wave that soaks; one at page level holds the rollout, and the sentence says so.

    Raises LedgerUnavailable.
    """
    found = await record_budgets(site, plan.rollout, wave) if _bound(plan) else None
    return hold_for(site, plan.rollout, found) if found is not None and found.level is Level.PAGE else None


@asynccontextmanager
async def watched(site: Site, plan: Plan, wave: int, ease: Callable[[Plan], None]) -> AsyncIterator[None]:
    """Look at the error budgets while the body applies a wave; ``ease`` gets the plan that the jobs to come go by.

    One that burns at page level holds the rollout: nothing new begins. At ticket level half as many work at once.
    """
    if not _bound(plan):
        yield
        return
    ease(eased(site, plan, wave))
    async with beside(_watch(site, plan, wave, ease)):
        yield


async def _watch(site: Site, plan: Plan, wave: int, ease: Callable[[Plan], None]) -> None:
    while True:
        await asyncio.sleep(site.look_every)
        try:
            found = await record_budgets(site, plan.rollout, wave)
            row = site.ledger.rollout(plan.rollout)
            ease(eased(site, plan, wave))
        except LedgerUnavailable as error:
            site.log(f"the error budgets were not looked at: {error}")
            continue
        if row is None or row.state is not RolloutState.RUNNING:
            return
        if found is not None and found.level is Level.PAGE:
            if (text := hold_for(site, plan.rollout, found)) is not None:
                site.log(text)
            return
