"""Reconciling: what no DAG run owns any more is settled, undone to the end, expired, or given to a new run (T8, T12).

A run is lost when somebody marks it failed (Airflow then skips ``undo`` and ``report`` too), deletes it, or when its
workers die. Nothing here begins a change: it looks after what was begun.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from patching.change import Outcome
from patching.ledger.base import RolloutRow
from patching.ledger.entry import EntryKind
from patching.plan.document import Plan
from patching.plan.windows import freeze_at, open_window
from patching.rollout.adoption import valid_until
from patching.rollout.apart import apart
from patching.rollout.gates import approved
from patching.rollout.incidents import lock_of
from patching.rollout.late_watch import watch_finished
from patching.rollout.left_behind import leave_behind
from patching.rollout.quarantine import end_expired
from patching.rollout.record import free_ended, frozen_plan, moved, say_waiting
from patching.rollout.settling import settle
from patching.rollout.site import Site
from patching.rollout.states import BEFORE_APPROVAL, FINAL, RolloutState
from patching.rollout.undo_failure import tend_failed_undo
from patching.rollout.undoing import to_undo, undo_wave
from patching.value import Value

MOST = 1000
AT_ONCE = 20
"""How many rollouts are looked after side by side."""
LONGEST = 240.0
"""Seconds for one rollout in one tick: nobody else is told or looked after before all have had theirs."""
CANNOT = "patch_reconcile cannot look after it"
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


async def reconcile(site: Site, *, longest: float = LONGEST) -> Reconciled:
    """Look after every open rollout that no run works on, each at most ``longest`` seconds; raises LedgerUnavailable.

    Safe beside a run that begins at the same moment: leases and epochs decide who may act on a target. What goes wrong
    with one rollout is said, by that rollout too, and keeps nobody from looking after the others.
    """
    said = end_expired(site.ledger, site.clock())
    # Of rollouts that are over too: a worker that died after its last word would take its places for ever.
    leased = {lease.rollout for lease in site.ledger.leases()}
    for name in sorted(leased):
        with apart(name, said, CANNOT):
            free_ended(site, name)
    opened = {row.id for row in site.ledger.rollouts(open_only=True, limit=MOST)}
    tended = [_Tended(site, name, is_open=name in opened) for name in sorted(leased | opened)]
    room = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as jobs:
        for item in tended:
            jobs.create_task(item.tend(room, longest))
    said += [sentence for item in tended for sentence in item.said]
    said += await watch_finished(site)
    for sentence in said:
        site.log(sentence)
    return Reconciled(sentences=tuple(said), go_on=tuple(run for item in tended for run in item.go_on))


class _Tended:
    """What was done with one rollout; the sentences of before its time was over are kept."""

    def __init__(self, site: Site, rollout: str, *, is_open: bool) -> None:
        self.site = site
        self.rollout = rollout
        self.is_open = is_open
        self.said: list[str] = []
        self.go_on: list[GoOn] = []

    async def tend(self, room: asyncio.Semaphore, longest: float) -> None:
        """Look after the rollout within its time; what is not done by then is done at the next ticks."""
        async with room:
            with apart(self.rollout, self.said, CANNOT) as trouble:
                try:
                    async with asyncio.timeout(longest):
                        await self._work()
                except TimeoutError:
                    self.said.append(f"{self.rollout}: not done within {longest:g} s: the next tick goes on with it")
        if self.is_open:
            with apart(self.rollout, self.said, CANNOT):
                _say_trouble(self.site, self.rollout, trouble.sentence)

    async def _work(self) -> None:
        site, name = self.site, self.rollout
        if at_work(site, name):
            return
        self.said += await leave_behind(site, name)
        plan = frozen_plan(site, name) if self.is_open else None
        if plan is None:
            return
        self.said += await settle(site, plan)
        await tend_failed_undo(site, plan)
        row = site.ledger.rollout(name)
        if row is None:
            return
        self.said += await _move_on(site, row, plan)
        wanted = next_run(site, site.ledger.rollout(name) or row, plan, site.clock())
        self.go_on += [wanted] if wanted is not None else []


def _say_trouble(site: Site, rollout: str, sentence: str) -> None:
    """Let a rollout say why it is not looked after, and what it said before once that is over."""
    row = site.ledger.rollout(rollout)
    if row is None or row.state in FINAL or not (sentence or row.waits_for.startswith(CANNOT)):
        return
    say_waiting(site, rollout, sentence or _said_before(site, rollout))


def _said_before(site: Site, rollout: str) -> str:
    """Give the newest sentence of its present state that is not of us."""
    entries = site.ledger.entries(rollout, kinds=[EntryKind.WAITS, EntryKind.TRANSITION])
    for entry in reversed(entries):
        if entry.kind is EntryKind.TRANSITION:
            return ""
        said = str(entry.body["sentence"])
        if entry.target is None and not said.startswith(CANNOT):
            return said
    return ""


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
    if row.state is RolloutState.UNDOING or _failed_and_not_undone(site, row, plan):
        stopped = site.ledger.stopped()
        if stopped is not None:
            return [f"{row.id}: the undo is not finished, but everything is stopped: {stopped}"]
        summary = await undo_wave(site, row.id, None, "reconcile", once=True)
        return [f"{row.id}: undo: {summary.sentence}"]
    if row.state in BEFORE_APPROVAL and site.clock() >= valid_until(plan):
        reason = "its plan is no longer valid, and nobody began it"
        expired = RolloutState.EXPIRED
        if moved(site, row.id, expired, reason=reason, only_from=BEFORE_APPROVAL) is expired:
            return [f"{row.id}: {reason}"]
    return []


def _failed_and_not_undone(site: Site, row: RolloutRow, plan: Plan) -> bool:
    """Whether a held rollout has an undo left that found no place, or whose run was lost."""
    if row.state is not RolloutState.HELD or plan.policy.spec.on_failure.undo == "never":
        return False
    return bool(to_undo(site.ledger.targets(row.id), row.state, None))


def next_run(site: Site, row: RolloutRow, plan: Plan, now: datetime) -> GoOn | None:
    """Say which run should go on with an approved rollout in an open window: at most one in each window.

    None after a run that a person marked: whoever did wanted it stopped. One that was deleted, or lost its last
    worker, is gone on with. None without windows:
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
    if site.ledger.stopped() is not None or not approved(site, row.id, plan) or not _may_go_on(site, row.id):
        return None
    left = sum(item.outcome in (None, Outcome.UNKNOWN) for item in site.ledger.targets(row.id))
    if not left:
        return None
    run_id = f"reconcile__{row.id}__{window.opens:%Y%m%dT%H%M}"
    if f"{plan.policy.dag_id}::{run_id}" in runs_of(site, row.id):
        return None
    reason = f"{left} targets of rollout {row.id} are left, its window is open and no run works on it"
    return GoOn(dag_id=plan.policy.dag_id, run_id=run_id, reason=reason)


def _may_go_on(site: Site, rollout: str) -> bool:
    """Say whether the last run ended by itself or was lost: whoever marked it wanted it to end."""
    runs = runs_of(site, rollout)
    ended = {str(entry.body.get("run")) for entry in site.ledger.entries(rollout, kinds=[EntryKind.RUN_ENDED])}
    return bool(runs) and (runs[-1] in ended or site.run_lost(runs[-1]) is not None)
