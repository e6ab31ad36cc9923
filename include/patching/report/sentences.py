"""Sentences: the one place that says in words how a rollout stands, what it waits for, and what a person must do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from patching.change import Outcome, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.rollout.states import FINAL, RolloutState

MOST_NAMES = 8

OPENINGS = {
    RolloutState.PLANNED: "Planned",
    RolloutState.AWAITING_APPROVAL: "Waits for approval",
    RolloutState.WAITING: "Waits",
    RolloutState.RUNNING: "Running",
    RolloutState.HELD: "HELD",
    RolloutState.UNDOING: "UNDOING",
    RolloutState.COMPLETED: "Completed",
    RolloutState.UNDONE: "UNDONE",
    RolloutState.ABORTED: "ABORTED",
    RolloutState.SUPERSEDED: "Superseded",
    RolloutState.EXPIRED: "EXPIRED",
}

WAITS_BY_STATE = {
    RolloutState.PLANNED: "waits for a run that may carry it out",
    RolloutState.AWAITING_APPROVAL: "waits for approval",
    RolloutState.WAITING: "waits for a run to go on with it",
    RolloutState.HELD: "waits for a person to resume or abort it",
}
_TARGET_WAITS = {
    RolloutState.PLANNED: "waits with its rollout for a run that may carry it out",
    RolloutState.AWAITING_APPROVAL: "waits for the approval of the plan",
    RolloutState.WAITING: "waits with its rollout for the next run",
    RolloutState.HELD: "waits for a person: its rollout is held",
}
NOT_AT_WORK = (TargetState.PENDING, TargetState.WAITING)
UNSETTLED = (
    "waits for the next run, or patch_reconcile, to settle how its change ended; until then, or until a person "
    "releases it, it keeps its place"
)

# Everything that is not what the plan wanted is said, the worst first.
_TROUBLE = (
    Outcome.UNKNOWN,
    Outcome.FAILED,
    Outcome.DRIFTED,
    Outcome.OFFLINE,
    Outcome.QUARANTINED,
    Outcome.SKIPPED,
    Outcome.SUPERSEDED,
)
_WORDS = {Outcome.NOTHING_TO_DO: "had nothing to do"}


def names(items: Sequence[str], most: int = MOST_NAMES) -> str:
    """List names, at most ``most`` of them, then how many more there are."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def standing(rows: Sequence[TargetRow]) -> str:
    """Say how many targets are where: ``14 of 40 applied, 1 failed, 25 to go``."""
    changed = [row for row in rows if row.outcome is Outcome.APPLIED and row.undo_outcome is None]
    parts = [f"{len(changed)} of {len(rows)} applied"]
    undone = sum(row.undo_outcome is Outcome.UNDONE for row in rows)
    failed = sum(row.undo_outcome in (Outcome.FAILED, Outcome.UNKNOWN, Outcome.STAYS_CHANGED) for row in rows)
    parts += [f"{undone} undone"] if undone else []
    parts += [f"{failed} could NOT be undone"] if failed else []
    outcomes = Counter(row.outcome for row in rows if row.undo_outcome is None)
    for outcome in (Outcome.NOTHING_TO_DO, *_TROUBLE):
        if outcomes[outcome]:
            parts.append(f"{outcomes[outcome]} {_WORDS.get(outcome, outcome.value)}")
    busy = sum(row.state in (TargetState.RUNNING, TargetState.UNDOING) for row in rows)
    left = sum(row.state in (TargetState.PENDING, TargetState.WAITING) and row.outcome is None for row in rows)
    parts += [f"{busy} at work"] if busy else []
    parts += [f"{left} to go"] if left else []
    return ", ".join(parts)


def headline(row: RolloutRow, rows: Sequence[TargetRow], *, stopped: str | None = None, locked: str = "") -> str:
    """Say in one sentence how a rollout stands: state, targets, and what it waits for or why it ended."""
    said = f"{OPENINGS[row.state]}: {standing(rows)}" if rows else f"{OPENINGS[row.state]}: no target is planned"
    more = waiting_for(row, rows, stopped=stopped, locked=locked) or row.reason
    return f"{said}; {more}" if more else said


def waiting_for(
    row: RolloutRow, rows: Sequence[TargetRow] = (), *, stopped: str | None = None, locked: str = ""
) -> str:
    """Answer "what is it waiting for?" in one sentence; empty where it waits for nothing.

    First what only a person can end: ``locked`` (the sentence of the incident that locks its policy), ``stopped`` (the
    reason of the stop switch). Then the rollout's own sentence, and, while it runs, what its targets wait for.
    """
    if row.state in FINAL:
        return ""
    if locked and row.state is not RolloutState.UNDOING:
        return f"waits for a person to release an incident: {locked}"
    if stopped is not None and row.state in (RolloutState.RUNNING, RolloutState.WAITING):
        return f"waits for the stop switch to be turned off: everything is stopped ({stopped})"
    if row.waits_for:
        return row.waits_for
    if row.state in WAITS_BY_STATE:
        said = WAITS_BY_STATE[row.state]
        return f"{said}: {row.reason}" if row.reason else said
    return _targets_wait(rows, undoing=row.state is RolloutState.UNDOING)


def _to_be_undone(target: TargetRow) -> bool:
    changed = target.outcome in (None, Outcome.APPLIED, Outcome.FAILED, Outcome.UNKNOWN)
    return changed and target.began_at is not None and target.undo_outcome is None


def _targets_wait(rows: Sequence[TargetRow], *, undoing: bool) -> str:
    waiting = [item for item in rows if item.waits_for and (_to_be_undone(item) if undoing else item.outcome is None)]
    if not waiting:
        return ""
    if len(waiting) == 1:
        return f"{waiting[0].target} {waiting[0].waits_for}"
    common, number = Counter(target.waits_for for target in waiting).most_common(1)[0]
    if number == len(waiting):
        return f"{number} targets: {common}"
    return f"{len(waiting)} targets wait, {number} of them: {common}"


def target_waits(
    row: RolloutRow, target: TargetRow, begun: Collection[int], *, stopped: str | None = None, locked: str = ""
) -> str:
    """Answer "what is it waiting for?" for one target in one sentence; empty for one that works or has ended.

    ``begun`` are the waves whose gate has opened; ``stopped`` and ``locked`` are as for the rollout.
    """
    if row.state is RolloutState.UNDOING and _to_be_undone(target):
        at_work = target.state in (TargetState.RUNNING, TargetState.UNDOING)
        return target.waits_for or ("" if at_work else "waits for its turn to be undone")
    if target.outcome is Outcome.UNKNOWN and target.undo_outcome is None:
        return UNSETTLED
    if row.state in FINAL or target.outcome is not None or target.state not in NOT_AT_WORK:
        return target.waits_for
    if row.state is RolloutState.UNDOING:
        return "waits for nothing any more: the rollout is being undone"
    if locked:
        return "waits for a person to release the incident that locks its policy"
    if stopped is not None and row.state in (RolloutState.RUNNING, RolloutState.WAITING):
        return "waits for the stop switch to be turned off"
    if target.waits_for:
        return target.waits_for
    if row.state in _TARGET_WAITS:
        return _TARGET_WAITS[row.state]
    if target.wave in begun:
        return f"waits for its turn in wave {target.wave}"
    return f"waits for wave {max(begun)} to be promoted" if begun else f"waits for the gate of wave {target.wave}"


def next_steps(
    row: RolloutRow, rows: Sequence[TargetRow], quarantined: Sequence[str] = (), *, incident: str = ""
) -> list[str]:
    """Say what a person must do next, most urgent first; empty where nothing is to be done.

    ``incident`` is the id of the incident that locks the policy.
    """
    steps = []
    if incident:
        steps.append(
            f"Read `patching incident show {incident}` and do what its runbook says, then "
            f"`patching incident release {incident} --reason …`: until then no rollout of this policy begins anything."
        )
    unknown = [item.target for item in rows if Outcome.UNKNOWN in (item.outcome, item.undo_outcome)]
    broken = [item.target for item in rows if item.undo_outcome is Outcome.FAILED]
    if broken:
        steps.append(
            f"Repair {names(broken)} by hand: the undo failed there, so neither the old nor the new version is proven."
        )
    stays = [item.target for item in rows if item.undo_outcome is Outcome.STAYS_CHANGED]
    if stays:
        steps.append(
            f"Decide about {names(stays)}: the change stays there, because it cannot be undone: go forward, or restore "
            "a backup (docs/runbooks/cannot-be-undone.md)."
        )
    if unknown:
        steps.append(
            f"Look at {names(unknown)}: nobody saw how the change ended there, and its capacity is kept until the next "
            "run settles it, or you `patching release` it."
        )
    if quarantined:
        steps.append(
            f"Release {names(quarantined)} from quarantine once repaired (`patching release TARGET --reason …`): no "
            "rollout touches them until then, or until the date that `patching quarantine` shows."
        )
    steps += _by_state(row, rows)
    steps += _by_outcome(rows)
    return steps


def _by_state(row: RolloutRow, rows: Sequence[TargetRow]) -> list[str]:
    if row.state is RolloutState.HELD:
        return [
            f"Decide, with --reason: `patching resume {row.id}` (`promote` for a wave that a verdict holds), "
            f"`patching undo {row.id}`, or `patching abort {row.id}` (docs/runbooks/held.md)."
        ]
    if row.state is RolloutState.ABORTED and _stays_changed(rows):
        return [f"What it changed stays changed; `patching undo {row.id} --reason …` puts it back."]
    if row.state is RolloutState.AWAITING_APPROVAL:
        return ["Approve or reject the plan in Airflow: Browse, Required Actions."]
    if row.state is RolloutState.UNDONE:
        return ["Find out why the patch was judged bad before it is tried again (docs/runbooks/canary-undone.md)."]
    if row.state is RolloutState.EXPIRED:
        return ["Trigger the policy again if the change is still wanted: this plan is no longer valid."]
    return []


def _stays_changed(rows: Sequence[TargetRow]) -> bool:
    return any(row.began_at is not None and row.undo_outcome is None for row in rows)


def _by_outcome(rows: Sequence[TargetRow]) -> list[str]:
    steps = []
    for outcome, text in (
        (Outcome.FAILED, "Find out why {names} failed; `patching retry` tries them once more in an open rollout."),
        (Outcome.DRIFTED, "Plan {names} anew: somebody else changed them after planning."),
        (Outcome.OFFLINE, "Bring {names} back online: they were left out and still run the old version."),
    ):
        found = [row.target for row in rows if row.outcome is outcome and row.undo_outcome is not Outcome.FAILED]
        if found:
            steps.append(text.format(names=names(found)))
    return steps
