"""Closing: the last look at a finished rollout, the report, and the one place that says how a run ended."""

from __future__ import annotations

from patching.change import JobResult, Outcome
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.plan.document import Plan
from patching.report.rollout_report import make_report
from patching.rollout.answers import Closing, WaveSummary
from patching.rollout.discovery import look_for_joined
from patching.rollout.gates import carried_over, promoted
from patching.rollout.incidents import lock_of
from patching.rollout.probing import probe_fleet
from patching.rollout.record import first_written, frozen_plan, moved, request_of_run, rollout_of_run, run_key
from patching.rollout.site import Site
from patching.rollout.states import AT_WORK, RolloutState
from patching.target import Snapshot

GREEN = frozenset({RolloutState.COMPLETED, RolloutState.SUPERSEDED})
RED = frozenset(
    {RolloutState.HELD, RolloutState.UNDONE, RolloutState.UNDOING, RolloutState.ABORTED, RolloutState.EXPIRED}
)


async def verify(site: Site, rollout: str, run_id: str) -> WaveSummary:
    """Look once more at every applied target after the last wave, and complete the rollout if all run what was planned.

    Skipped while a wave is not promoted. A target that drifted away, or does not answer, holds the rollout. One that a
    person resumed or promoted after its last wave waits, as no gate opens for it any more.
    """
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    if row is None or plan is None or row.state not in AT_WORK:
        state = row.state.value if row else "unknown"
        return WaveSummary(wave=0, shard=0, sentence=f'the rollout is "{state}"', skipped=True)
    missing = [wave.index for wave in plan.waves if not promoted(site, rollout, wave.index)]
    if missing:
        return WaveSummary(wave=0, shard=0, sentence=f"wave {missing[0]} is not promoted", skipped=True)
    applied = {item.target: item for item in site.ledger.targets(rollout) if item.outcome is Outcome.APPLIED}
    wrong = await _look_again(site, plan, applied)
    if wrong:
        reason = f"{len(wrong)} applied targets do not run what was planned: {'; '.join(wrong[:5])}"
        moved(site, rollout, RolloutState.HELD, reason=reason, only_from=AT_WORK)
        return WaveSummary(wave=0, shard=0, sentence=reason, bad=True)
    reason = f"{len(applied)} targets run what was planned"
    state = moved(site, rollout, RolloutState.COMPLETED, reason=reason, only_from=AT_WORK)
    if state is not RolloutState.COMPLETED:
        return WaveSummary(wave=0, shard=0, sentence=f'the rollout is "{state.value}"', skipped=True)
    return WaveSummary(wave=0, shard=0, counts={"applied": len(applied)}, sentence=reason)


async def _look_again(site: Site, plan: Plan, applied: dict[str, TargetRow]) -> list[str]:
    driver = plan.policy.spec.driver
    driving = site.driver(driver.name, dict(driver.options))
    planned = {item.target.name: item for item in plan.targets if item.target.name in applied}
    now = await probe_fleet(
        site.channel(driver.connection),
        driving,
        [item.target for item in planned.values()],
        {},
        site.clock,
        concurrency=site.concurrency,
    )
    document = site.ledger.store_document(
        "snapshots", {"snapshots": {name: found.model_dump(mode="json") for name, found in now.items()}}
    )
    key, count = "snapshots:verify", len(site.ledger.entries(plan.rollout, kinds=[EntryKind.SNAPSHOTS_TAKEN]))
    body = {"stage": "verify", "snapshots": document}
    taken = NewEntry(chain=plan.rollout, kind=EntryKind.SNAPSHOTS_TAKEN, key=f"{key}:{count}", body=body)
    first_written(site.ledger, taken)
    wrong = []
    for name, item in planned.items():
        if not now[name].online:
            wrong.append(f"{name} does not answer ({now[name].reach_detail})")
            continue
        began = site.ledger.find(plan.rollout, f"target-began:{name}")
        before = Snapshot.model_validate(site.ledger.document(began.body["snapshot"])) if began else now[name]
        result: JobResult = driving.verify(before, now[name], item.patches)
        if result.outcome is not Outcome.APPLIED:
            wrong.append(f"{name}: {result.reason}")
    return wrong


def close_run(site: Site, dag_id: str, run_id: str) -> Closing:
    """End a run: say how it went and who joined meanwhile, write the report, and give the run its colour."""
    entry = site.ledger.find(CONTROL, f"run:{dag_id}:{run_id}")
    if entry is None:
        reason = "discovery failed: nothing was planned and no target was touched; see the log of discover"
        return Closing(rollout=None, good=False, sentence=reason)
    rollout = rollout_of_run(site, dag_id, run_id)
    if rollout is None:
        return Closing(rollout=None, good=True, sentence=str(entry.body.get("sentence", "")))
    row, plan = site.ledger.rollout(rollout), frozen_plan(site, rollout)
    if row is None:
        return Closing(rollout=rollout, good=False, sentence="the ledger lost this rollout")
    good, sentence = colour(site, row, plan, run_id)
    new = look_for_joined(site, plan) if plan is not None else ""
    sentence += f"; {new}" if new else ""
    rows, locked = site.ledger.targets(rollout), lock_of(site.ledger, row.policy)
    report = make_report(site.ledger.entries(rollout), plan, row, rows, site.clock(), locked=locked)
    number = len(site.ledger.entries(rollout, kinds=[EntryKind.REPORT]))
    body = {
        "markdown": site.ledger.store_document("report", report.markdown),
        "json": site.ledger.store_document("report", report.document),
        "sentence": sentence,
        "good": good,
    }
    first_written(site.ledger, NewEntry(chain=rollout, kind=EntryKind.REPORT, key=f"report:{number}", body=body))
    ended = {"run": run_key(dag_id, run_id), "sentence": sentence}
    key = f"run-ended:{run_id}:{number}"
    first_written(site.ledger, NewEntry(chain=rollout, kind=EntryKind.RUN_ENDED, key=key, body=ended))
    return Closing(rollout=rollout, good=good, sentence=sentence, markdown=report.markdown)


def colour(site: Site, row: RolloutRow, plan: Plan | None, run_id: str) -> tuple[bool, str]:
    """Say whether a run ends green, and the sentence that goes with it.

    Green: completed, carried over, planned, nothing to do. Red: held, failed, undone, refused, expired.
    """
    request = request_of_run(site, row.id, run_id)
    mode = request.mode if request else "apply"
    if plan is None:
        return False, "planning failed: no target was touched; see the log of prioritise"
    if row.state in GREEN:
        return True, f"{row.state.value}: {row.reason}"
    if row.state in RED:
        return False, f"{row.state.value}: {row.reason}"
    if mode == "plan":
        return True, f"planned: {len(plan.targets)} to patch in {len(plan.waves)} waves, plan {plan.digest[:12]}"
    rows = site.ledger.targets(row.id)
    applied = sum(item.outcome is Outcome.APPLIED for item in rows)
    if row.state in (RolloutState.PLANNED, RolloutState.AWAITING_APPROVAL):
        asked_ahead = request is not None and request.scheduled
        return asked_ahead, f"not approved: plan {plan.digest[:12]} waits for {plan.approval_required} approvals"
    if row.state is RolloutState.RUNNING:
        return False, f"interrupted: {applied} of {len(rows)} applied; the next run goes on with the rest"
    if carried_over(site, row.id, run_id):
        return True, f"{applied} of {len(rows)} applied; {row.waits_for or row.reason}"
    return (
        False,
        f"interrupted: {applied} of {len(rows)} applied; {row.waits_for or 'the next run goes on with the rest'}",
    )
