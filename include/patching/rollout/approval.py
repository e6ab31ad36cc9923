"""Approval: who must say yes to which plan, and whether enough different people did; bound to the plan's digest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from patching.change import JobResult, Outcome
from patching.errors import FenceLost
from patching.ledger.base import TargetRow
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.document import Plan
from patching.plan.windows import next_opening, open_window
from patching.policy import Approval
from patching.report.plan_text import plan_markdown
from patching.rollout.answers import Answer, ApprovalDecision, ApprovalRequest
from patching.rollout.change_job import ChangeJob
from patching.rollout.gates import approved
from patching.rollout.record import Record, first_written, frozen_plan, moved, request_of_run, say_waiting
from patching.rollout.site import Site
from patching.rollout.states import BEFORE_APPROVAL, RolloutState
from patching.rollout.steps import StoppedHere

OPEN_FOR = timedelta(hours=24)


def rules(plan: Plan) -> Approval:
    """Give the approval rules that hold for a plan: an emergency has its own."""
    return plan.policy.spec.emergency.approval if plan.emergency else plan.policy.spec.approval


def asks_until(plan: Plan, now: datetime) -> datetime:
    """Say how long the question stays open: until the window opens (or, in an open one, closes), else a day."""
    wanted, schedule = rules(plan), plan.policy.spec.schedule
    if wanted.timeout is not None:
        return now + timedelta(seconds=wanted.timeout)
    window = open_window(schedule, now) if schedule.windows else None
    if window is not None and window.closes is not None:
        return window.closes
    opening = next_opening(schedule, now) if schedule.windows else None
    return opening or now + OPEN_FOR


def approval_request(site: Site, rollout: str, run_id: str) -> ApprovalRequest | None:
    """Say what people are asked about this rollout's plan; None when there is no plan to ask about.

    ``needed`` is 0 in mode plan, after a decision, and where neither policy nor plan asks for approval.
    """
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    request = request_of_run(site, rollout, run_id)
    if row is None or plan is None or request is None:
        return None
    needed, reason = plan.approval_required, plan.approval_reason
    if request.mode == "plan":
        needed, reason = 0, "mode is plan: nothing is changed, so nobody is asked"
    elif row.state not in BEFORE_APPROVAL:
        needed, reason = 0, f'the rollout is "{row.state.value}": it was decided before'
    elif request.plan_digest is not None and not plan.digest.startswith(request.plan_digest):
        needed, reason = 0, f"this run is for plan {request.plan_digest[:12]}, but the plan is {plan.digest[:12]}"
    if needed:
        moved(site, rollout, RolloutState.AWAITING_APPROVAL, reason=reason, only_from=BEFORE_APPROVAL)
        say_waiting(site, rollout, _missing(site, plan, needed, ()))
    return ApprovalRequest(
        rollout=rollout,
        needed=needed,
        reason=reason,
        approvers=site.people(rules(plan).approvers),
        plan_digest=plan.digest,
        until=asks_until(plan, site.clock()),
        subject=f"Approve plan {plan.digest[:12]} of {plan.policy.name}: {len(plan.targets)} targets",
        body=plan_markdown(plan),
    )


def _missing(site: Site, plan: Plan, needed: int, counted: Sequence[str]) -> str:
    """Say in one sentence whose approval is missing, and until when it is asked for."""
    may = [name for name in site.people(rules(plan).approvers) if name not in counted]
    people = "person" if needed == 1 else "different people"
    there = f"; {' and '.join(counted)} did" if counted else ""
    return (
        f"waits for the approval of plan {plan.digest[:12]} by {needed} {people} of "
        f"{', '.join(may) or 'those who may run it'}, until {asks_until(plan, site.clock()):%a %H:%M} UTC{there}"
    )


def decide(site: Site, rollout: str, run_id: str, answers: Sequence[Answer]) -> ApprovalDecision:
    """Count the answers: different people, none of them the requester, all of them allowed; one rejection ends it.

    The decision is written to the ledger and binds to the plan's digest. Without enough answers the rollout goes on
    waiting where a later run can ask again, and expires otherwise.
    """
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    request = request_of_run(site, rollout, run_id)
    if row is None or plan is None or request is None:
        return ApprovalDecision(approved=False, decided=False, reason="this run has no plan")
    if approved(site, rollout, plan):
        return ApprovalDecision(approved=True, decided=True, reason="the plan was approved before")
    if request.mode == "plan":
        return ApprovalDecision(approved=False, decided=False, reason="mode is plan: nothing is changed")
    if row.state not in BEFORE_APPROVAL:
        return ApprovalDecision(approved=False, decided=True, reason=f'the rollout is "{row.state.value}"')
    if request.plan_digest is not None and not plan.digest.startswith(request.plan_digest):
        reason = f"this run was triggered for plan {request.plan_digest[:12]}, but the plan is {plan.digest[:12]}"
        return ApprovalDecision(approved=False, decided=False, reason=reason)
    for answer in answers:
        body = {
            "person": answer.person,
            "decision": "approve" if answer.approved else "reject",
            "plan": plan.digest,
            "comment": answer.comment,
            "answered_at": answer.at.isoformat(),
        }
        key = f"approval:{plan.digest}:{run_id}:{answer.person}:{answer.at.isoformat()}"
        site.ledger.append(NewEntry(chain=rollout, kind=EntryKind.APPROVAL, key=key, actor=answer.person, body=body))
    return _conclude(site, plan, _count(site, plan, request.requested_by, answers), request.scheduled)


def _count(site: Site, plan: Plan, requester: str | None, answers: Sequence[Answer]) -> ApprovalDecision:
    rejected = [answer.person for answer in answers if not answer.approved]
    if rejected:
        return ApprovalDecision(
            approved=False, decided=True, people=tuple(rejected), reason=f"rejected by {', '.join(rejected)}"
        )
    allowed = set(site.people(rules(plan).approvers))
    people = sorted({answer.person for answer in answers if answer.approved})
    counted = [name for name in people if name != requester and (not allowed or name in allowed)]
    needed = plan.approval_required
    if len(counted) >= needed:
        reason = f"approved by {' and '.join(counted)}" if needed else plan.approval_reason or "no approval is needed"
        return ApprovalDecision(approved=True, decided=True, people=tuple(counted), reason=reason)
    reason = f"{len(counted)} of {needed} approvals by different people"
    if requester in people:
        reason += f" ({requester} asked for this run, so their own answer does not count)"
    barred = [name for name in people if allowed and name not in allowed]
    if barred:
        reason += f" ({', '.join(barred)} may not approve this policy)"
    return ApprovalDecision(approved=False, decided=False, people=tuple(counted), reason=reason)


def _conclude(site: Site, plan: Plan, decision: ApprovalDecision, scheduled: bool) -> ApprovalDecision:
    """Write a decision down and follow it; one that was made at the same moment elsewhere holds instead."""
    rollout = plan.rollout
    goes_on_asking = scheduled and not decision.decided
    left = plan.approval_required - len(decision.people)
    say_waiting(site, rollout, _missing(site, plan, left, decision.people) if goes_on_asking else "")
    if decision.decided:
        body = {
            "approved": decision.approved,
            "people": list(decision.people),
            "plan": plan.digest,
            "reason": decision.reason,
        }
        key = f"approved:{plan.digest}"
        entry = NewEntry(chain=rollout, kind=EntryKind.APPROVAL_DECIDED, key=key, body=body)
        written = first_written(site.ledger, entry).body
        held = {name: written[name] for name in ("approved", "people", "reason")}
        decision = ApprovalDecision.model_validate({**held, "decided": True})
        to = RolloutState.WAITING if decision.approved else RolloutState.ABORTED
        moved(site, rollout, to, reason=decision.reason, only_from=BEFORE_APPROVAL)
    elif not scheduled:
        moved(site, rollout, RolloutState.EXPIRED, reason=decision.reason, only_from=BEFORE_APPROVAL)
    return decision


async def prepare(site: Site, rollout: str, run_id: str) -> str:
    """Download and check the planned packages on every target once the plan is approved; says how it went.

    A target that fails here keeps its place: its change job tries once more and then fails by itself.
    """
    plan, row = frozen_plan(site, rollout), site.ledger.rollout(rollout)
    if plan is None or row is None or not approved(site, rollout, plan) or row.state is not RolloutState.WAITING:
        return "nothing to prepare"
    driver = plan.policy.spec.driver
    channel, driving = site.channel(driver.connection), site.driver(driver.name, dict(driver.options))
    record = Record(site, rollout)
    room = asyncio.Semaphore(site.concurrency)

    async def one(target: TargetRow) -> JobResult | None:
        planned = plan.planned(target.target)
        if planned is None or target.outcome is not None or target.began_at is not None:
            # One in mid-change keeps its lease and its place: its own job goes on with it.
            return None
        async with room:
            try:
                answer = await ChangeJob(record, plan, planned, channel, driving, target).run(only_prepare=True)
            except StoppedHere as stop:
                site.log(str(stop))
                return None
            except FenceLost as error:
                site.log(f"{target.target}: another worker has taken over ({error})")
                return None
        return answer if isinstance(answer, JobResult) else None

    try:
        ended = await asyncio.gather(*(one(target) for target in site.ledger.targets(rollout)))
    finally:
        await record.close()
    done = sum(result is not None and result.outcome is Outcome.APPLIED for result in ended)
    return f"downloaded and checked on {done} of {len(plan.targets)} targets"
