"""Hosts that a dead worker left entered and not changed, in a rollout that nobody works on: their hooks are left.

A host in mid-change stays as it is, out of service: the next run goes on with it, or the undo brings it back, and
either of them leaves its hooks. Nobody would come for the others, where the rollout is over or rests until tomorrow.
"""

from __future__ import annotations

from patching.change import JobResult, Outcome, Phase, TargetState
from patching.errors import ChannelError, FenceLost
from patching.hooks.kinds import standing
from patching.ledger.base import TargetRow
from patching.plan.capacity import target_claims
from patching.plan.document import Plan
from patching.rollout.hooking import KINDS, HookRun, only_prepared
from patching.rollout.record import Record, frozen_plan
from patching.rollout.site import Site
from patching.rollout.states import FINAL
from patching.rollout.target_job import TargetJob


async def leave_behind(site: Site, rollout: str) -> list[str]:
    """Leave what stands entered on unchanged targets of a rollout that neither a run nor a worker is at work on.

    Gives one sentence for each; a host that does not answer, or a service that refuses, is tried again next time.
    """
    plan = frozen_plan(site, rollout)
    if plan is None or not plan.policy.spec.hooks:
        return []
    leased = {lease.target for lease in site.ledger.leases() if lease.rollout == rollout}
    rows = [row for row in site.ledger.targets(rollout) if row.target in leased and _is_left(site, row)]
    record = Record(site, rollout)
    try:
        return [await _leave(record, plan, row) for row in rows]
    finally:
        await record.close()


def _is_left(site: Site, row: TargetRow) -> bool:
    """Say whether a target is entered and unchanged."""
    if row.state is TargetState.ENDED:
        return False
    intents = site.ledger.intents(rollout=row.rollout, target=row.target, open_only=False)
    if not only_prepared([Phase(item.step["phase"]) for item in intents]):
        return False
    return bool(standing(site.ledger.entries(row.rollout, kinds=KINDS, target=row.target)))


async def _leave(record: Record, plan: Plan, row: TargetRow) -> str:
    site, planned = record.site, plan.planned(row.target)
    if planned is None:
        return f"{plan.rollout}: {row.target} is not in the plan, so its hooks cannot be left"
    spec = plan.policy.spec.driver
    channel, driver = site.channel(spec.connection), site.driver(spec.name, dict(spec.options))
    job = TargetJob(record, plan, planned, channel, driver, row)
    said = f"{plan.rollout}: {row.target} was entered by a worker that died and was not changed"
    try:
        return f"{said}: {await _left(job)}"
    except ChannelError as error:
        return f"{said}, and it does not answer, so its hooks stand: {error}"
    except FenceLost:
        return f"{plan.rollout}: another worker has taken {row.target} over"


async def _left(job: TargetJob) -> str:
    """Take the dead worker's lease over, leave the hooks and give the lease back."""
    session = await job.open()
    try:
        busy = await job.acquire(target_claims(job.plan, job.target))
        if busy is not None:
            return busy.sentence
        async with job.heartbeat():
            await job.settle(session, abandon=True)
            bad = await HookRun(job, session).leave(Outcome.SKIPPED, again=True)
            if bad is not None:
                return f"its hooks could not all be left: {bad.result.reason}"
            state = await job.record.call(job.site.ledger.rollout, job.plan.rollout)
            if state is not None and state.state in FINAL:
                reason = "its worker died before it changed anything; its hooks were left, and its rollout is over"
                await job.conclude(JobResult(outcome=Outcome.SKIPPED, reason=reason), undo=False)
            await job.release()
        return "its hooks were left"
    finally:
        await job.services.close()
        await session.close()
