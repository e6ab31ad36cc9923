"""Settling what no run owns: the steps that were begun on hosts are closed by their ids, and none is run again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from patching.change import Step
from patching.channels.base import Attach
from patching.errors import ChannelError, FenceLost
from patching.ledger.base import Intent
from patching.plan.capacity import target_claims
from patching.plan.document import Plan
from patching.rollout.record import Record
from patching.rollout.site import Site
from patching.rollout.target_job import TargetJob

LAST_WAIT = 5.0
"""Seconds that a step over its deadline still has to end before it is cancelled."""


async def settle(site: Site, plan: Plan) -> list[str]:
    """Close the open intents that ended on a target: what they did is known before anybody goes on.

    One sentence each. A step that still runs there is left to run, and looked at again another time.
    """
    intents = site.ledger.intents(rollout=plan.rollout, open_only=True)
    names = sorted({intent.target for intent in intents})
    if not names:
        return []
    record, room = Record(site, plan.rollout), asyncio.Semaphore(site.concurrency)

    async def one(name: str) -> str | None:
        async with room:
            return await _settle_target(record, plan, name, [item for item in intents if item.target == name])

    try:
        found = await asyncio.gather(*(one(name) for name in names))
    finally:
        await record.close()
    return [sentence for sentence in found if sentence is not None]


async def _settle_target(record: Record, plan: Plan, name: str, intents: Sequence[Intent]) -> str | None:
    """Attach to what runs or ran on one target; its lease is kept, because its change is not finished."""
    site, planned = record.site, plan.planned(name)
    row = next((item for item in site.ledger.targets(plan.rollout) if item.target == name), None)
    if planned is None or row is None:
        return None
    spec = plan.policy.spec.driver
    channel, driver = site.channel(spec.connection), site.driver(spec.name, dict(spec.options))
    job = TargetJob(record, plan, planned, channel, driver, row)
    try:
        session = await job.open()
    except ChannelError as error:
        return f"{plan.rollout}: {name} has {len(intents)} open steps and does not answer: {error}"
    try:
        steps = {item.step_id: Step.model_validate(item.step) for item in intents}
        looks = {name: await job.session_for(step, session).look(name, step) for name, step in steps.items()}
        if all(look.attach is Attach.ABSENT for look in looks.values()):
            return None
        running = [item for item in intents if looks[item.step_id].attach is Attach.RUNNING]
        in_time = [steps[item.step_id].name for item in running if not _overdue(site, item, steps[item.step_id])]
        if in_time:
            return f"{plan.rollout}: {name}: {in_time[0]} still runs there: it is looked at again at the next tick"
        busy = await job.acquire(target_claims(plan, planned.target))
        if busy is not None:
            return f"{plan.rollout}: {name} {busy.sentence}"
        async with job.heartbeat():
            ends = await job.settle(session, abandon=False, wait=LAST_WAIT)
    except ChannelError as error:
        return f"{plan.rollout}: the connection to {name} was lost while its steps were settled: {error}"
    except FenceLost:
        return f"{plan.rollout}: another worker has taken {name} over"
    finally:
        await session.close()
    said = ", ".join(f"{end.step.name} {'ok' if end.ok else end.detail}" for end in ends)
    return f"{plan.rollout}: settled on {name}: {said}"


def _overdue(site: Site, intent: Intent, step: Step) -> bool:
    return site.ledger.now() >= intent.at + timedelta(seconds=step.deadline)
