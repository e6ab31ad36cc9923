"""Reconciling: what no DAG run owns any more is settled, undone to the end, expired, or given to a new run (T8, T12).

A run is lost when somebody marks it failed (Airflow then skips ``undo`` and ``report`` too), deletes it, or when its
workers die. Nothing here begins a change: it looks after what was begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from patching.change import Outcome, Step
from patching.channels.base import Attach
from patching.errors import ChannelError, FenceLost
from patching.ledger.base import Intent, RolloutRow
from patching.ledger.entry import EntryKind
from patching.plan.capacity import target_claims
from patching.plan.document import Plan
from patching.plan.windows import freeze_at, open_window
from patching.rollout.adoption import valid_until
from patching.rollout.gates import approved
from patching.rollout.incidents import lock_of
from patching.rollout.late_watch import watch_finished
from patching.rollout.left_behind import leave_behind
from patching.rollout.quarantine import end_expired
from patching.rollout.record import Record, free_ended, frozen_plan, moved, say_waiting
from patching.rollout.site import Site
from patching.rollout.states import BEFORE_APPROVAL, RolloutState
from patching.rollout.target_job import TargetJob
from patching.rollout.undo_failure import tend_failed_undo
from patching.rollout.undoing import undo_wave
from patching.value import Value

MOST = 1000
GRACE = timedelta(minutes=5)
"""How long the run that the schedule starts at window open may take to begin."""


class GoOn(Value):
    """A run that should be triggered: the same rollout and window always give the same ``run_id``."""

    dag_id: str
    run_id: str
    reason: str


class Reconciled(Value):
    """What was done, one sentence each, and which runs to trigger."""

    sentences: tuple[str, ...] = ()
    go_on: tuple[GoOn, ...] = ()


async def reconcile(site: Site) -> Reconciled:
    """Look after every open rollout that no run works on; raises LedgerUnavailable.

    Safe beside a run that begins at the same moment: leases and epochs decide who may act on a target.
    """
    said = end_expired(site.ledger, site.clock())
    go_on: list[GoOn] = []
    # Of rollouts that are over too: a worker that died after its last word would take its places for ever.
    for name in sorted({lease.rollout for lease in site.ledger.leases()}):
        free_ended(site, name)
        said += [] if at_work(site, name) else await leave_behind(site, name)
    for row in site.ledger.rollouts(open_only=True, limit=MOST):
        plan = frozen_plan(site, row.id)
        if plan is None or at_work(site, row.id):
            continue
        said += await _settle(site, plan)
        await tend_failed_undo(site, plan)
        row = site.ledger.rollout(row.id) or row
        said += await _move_on(site, row, plan)
        wanted = next_run(site, row, plan, site.clock())
        go_on += [wanted] if wanted is not None else []
    said += await watch_finished(site)
    for sentence in said:
        site.log(sentence)
    return Reconciled(sentences=tuple(said), go_on=tuple(go_on))


def runs_of(site: Site, rollout: str) -> list[str]:
    """Name every run that ever worked on a rollout, oldest first: a cleared run works again after its end."""
    entries = site.ledger.entries(rollout, kinds=[EntryKind.RUN_BEGAN])
    return [str(entry.body["run"]) for entry in entries]


def at_work(site: Site, rollout: str) -> bool:
    """Say whether a run or a worker is at work on a rollout."""
    now = site.ledger.now()
    if any(lease.rollout == rollout and lease.expires_at > now for lease in site.ledger.leases()):
        return True
    return any(site.run_active(run) for run in runs_of(site, rollout))


async def _settle(site: Site, plan: Plan) -> list[str]:
    """Close the open intents that began on a target: what they did is known before anybody goes on."""
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
        looks = [await job.session_for(step, session).look(name, step) for name, step in steps.items()]
        if all(look.attach is Attach.ABSENT for look in looks):
            return None
        busy = await job.acquire(target_claims(plan, planned.target))
        if busy is not None:
            return f"{plan.rollout}: {name} {busy.sentence}"
        async with job.heartbeat():
            ends = await job.settle(session, abandon=False)
    except ChannelError as error:
        return f"{plan.rollout}: the connection to {name} was lost while its steps were settled: {error}"
    except FenceLost:
        return f"{plan.rollout}: another worker has taken {name} over"
    finally:
        await session.close()
    said = ", ".join(f"{end.step.name} {'ok' if end.ok else end.detail}" for end in ends)
    return f"{plan.rollout}: settled on {name}: {said}"


async def _move_on(site: Site, row: RolloutRow, plan: Plan) -> list[str]:
    """Bring a rollout that lost its run to a state in which it may rest."""
    if row.state is RolloutState.RUNNING:
        ends = "its run ended before the wave was judged (marked, deleted or lost)"
        reason = f"{ends}: nothing new begins until the next run goes on with it"
        waiting = RolloutState.WAITING
        if moved(site, row.id, waiting, reason=reason, only_from=(RolloutState.RUNNING,)) is not waiting:
            return []
        say_waiting(site, row.id, reason)
        return [f"{row.id}: {reason}"]
    if row.state is RolloutState.UNDOING:
        stopped = site.ledger.stopped()
        if stopped is not None:
            return [f"{row.id}: the undo is not finished, but everything is stopped: {stopped}"]
        summary = await undo_wave(site, row.id, None, "reconcile")
        return [f"{row.id}: undo: {summary.sentence}"]
    if row.state in BEFORE_APPROVAL and site.clock() >= valid_until(plan):
        reason = "its plan is no longer valid, and nobody began it"
        expired = RolloutState.EXPIRED
        if moved(site, row.id, expired, reason=reason, only_from=BEFORE_APPROVAL) is expired:
            return [f"{row.id}: {reason}"]
    return []


def next_run(site: Site, row: RolloutRow, plan: Plan, now: datetime) -> GoOn | None:
    """Say which run should go on with an approved rollout in an open window: at most one in each window.

    None after a run that did not end by itself: whoever marked it failed wanted it stopped. None without windows:
    such a policy works only when somebody triggers it. None for an emergency: its DAG has a permission of its own.
    """
    schedule = plan.policy.spec.schedule
    window = open_window(schedule, now) if schedule.windows else None
    if window is None or window.closes is None or window.opens + GRACE > now or freeze_at(schedule, now) is not None:
        return None
    if row.state is not RolloutState.WAITING or row.emergency or now >= valid_until(plan):
        return None
    if lock_of(site.ledger, row.policy) is not None:
        return None
    if site.ledger.stopped() is not None or not approved(site, row.id, plan) or not _ended_by_itself(site, row.id):
        return None
    left = sum(item.outcome in (None, Outcome.UNKNOWN) for item in site.ledger.targets(row.id))
    if not left:
        return None
    run_id = f"reconcile__{row.id}__{window.opens:%Y%m%dT%H%M}"
    if f"{plan.policy.dag_id}::{run_id}" in runs_of(site, row.id):
        return None
    reason = f"{left} targets of rollout {row.id} are left, its window is open and no run works on it"
    return GoOn(dag_id=plan.policy.dag_id, run_id=run_id, reason=reason)


def _ended_by_itself(site: Site, rollout: str) -> bool:
    runs = runs_of(site, rollout)
    ended = {str(entry.body.get("run")) for entry in site.ledger.entries(rollout, kinds=[EntryKind.RUN_ENDED])}
    return bool(runs) and runs[-1] in ended
