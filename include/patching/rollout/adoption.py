"""Adoption: whether a run goes on with the policy's open rollout, or closes it and makes the one new plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from patching.ledger.base import RolloutRow
from patching.plan.document import Plan
from patching.plan.windows import close_of_nth_window, open_window, spoken
from patching.policy import Policy
from patching.quantity import format_duration
from patching.rollout.answers import Request
from patching.rollout.new_findings import News, following_window
from patching.rollout.states import RolloutState
from patching.value import Value, digest

VALID_WITHOUT_WINDOWS = timedelta(days=7)
NO_NEWS = News()
NOT_BEGUN = frozenset({RolloutState.PLANNED, RolloutState.AWAITING_APPROVAL, RolloutState.WAITING})


class Adoption(Value):
    """Adopt the open rollout, or close it as superseded, and why."""

    adopt: bool
    reason: str


def valid_until(plan: Plan) -> datetime:
    """Say when a plan becomes too old: ``plan.validFor``, else the close of the second window after it was made."""
    spec = plan.policy.spec
    if spec.plan.valid_for is not None:
        return plan.created_at + timedelta(seconds=spec.plan.valid_for)
    close = close_of_nth_window(spec.schedule, plan.created_at, 2) if spec.schedule.windows else None
    return close or plan.created_at + VALID_WITHOUT_WINDOWS


def decide(
    row: RolloutRow,
    plan: Plan | None,
    policy: Policy,
    request: Request,
    now: datetime,
    *,
    begun: bool,
    news: News = NO_NEWS,
    unsettled: Sequence[str] = (),
) -> Adoption:
    """Decide about an open rollout; one that has begun is superseded when it is too old, or new findings cannot wait.

    ``begun`` says whether any target of it was begun, ``unsettled`` which of them are in mid-change: those keep it.
    A person can always ask for a new plan.
    """
    if plan is None:
        return Adoption(adopt=True, reason="its planning was interrupted: it is finished now")
    if request.replan:
        return Adoption(adopt=False, reason="a new plan was asked for")
    if row.state is RolloutState.UNDOING:
        return Adoption(adopt=True, reason="its undo is not finished")
    if now >= valid_until(plan):
        age = format_duration((now - plan.created_at).total_seconds())
        return Adoption(adopt=False, reason=f"its plan is {age} old and no longer valid")
    urgent = _urgent(row, policy, news, now, unsettled)
    if urgent is not None:
        return urgent
    if begun or row.state not in NOT_BEGUN:
        return Adoption(adopt=True, reason="it has begun and is within its validity")
    return _not_begun(row, plan, policy, request)


def _urgent(row: RolloutRow, policy: Policy, news: News, now: datetime, unsettled: Sequence[str]) -> Adoption | None:
    """Close a plan that leaves out what falls due before another plan could be carried out in a window of its own.

    Where plans are made ahead, an open window is for work: what is found in it is planned for the one after.
    """
    following = following_window(policy, now)
    due = news.due_before(following)
    working = policy.spec.schedule.plan_ahead > 0 and open_window(policy.spec.schedule, now) is not None
    if not due or following is None or working or row.state not in (*NOT_BEGUN, RolloutState.RUNNING):
        return None
    first = due[0]
    named = f"{first.advisory} on {first.target} (due {first.due:%Y-%m-%d})" + (
        f" and {len(due) - 1} more" if len(due) > 1 else ""
    )
    if unsettled:
        return Adoption(adopt=True, reason=f"{unsettled[0]} is in mid-change and is settled first, before {named}")
    opens = spoken(policy.spec.schedule, following, now)
    return Adoption(adopt=False, reason=f"new: {named} falls due before the window after the next one, {opens}")


def _not_begun(row: RolloutRow, plan: Plan, policy: Policy, request: Request) -> Adoption:
    if plan.policy_digest != digest(policy):
        return Adoption(adopt=False, reason="the policy was edited before anything had begun")
    if request.limit_to and set(request.limit_to) != set(plan.limit_to):
        return Adoption(adopt=False, reason="this run is limited to other targets")
    if plan.limit_to and not request.limit_to and row.state is RolloutState.PLANNED:
        # It was made to look at a few targets; carried out tonight, it would pass for the whole fleet.
        return Adoption(adopt=False, reason="its plan was made for some targets only, this run is for all")
    if request.mode == "plan" and row.state is RolloutState.PLANNED:
        return Adoption(adopt=False, reason="a fresh plan was asked for and nothing had begun")
    return Adoption(adopt=True, reason="nothing has changed since it was planned")


def carried_over(applied: int, left: int) -> str:
    """Say what is done and what is left, as people say it."""
    return f"{applied} applied, {left} carried over"
