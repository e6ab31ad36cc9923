"""Telling: sends what ``report.notice`` says is due, with an intent before and an end after each message.

The report of a run tells at its end, patch_reconcile every few minutes: whoever writes a notice's intent first sends
it, and what one of them left undone the other one sees.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from patching.errors import LedgerConflict, PatchingError
from patching.ledger.base import RolloutRow
from patching.ledger.entry import CONTROL, EntryKind, LedgerEntry, NewEntry
from patching.plan.windows import freeze_at, spans
from patching.policy import Policy
from patching.report.notice import FRESH, READ, Notice, due
from patching.rollout.apart import apart
from patching.rollout.record import first_written, frozen_plan
from patching.rollout.site import Site
from patching.rollout.states import FINAL, RolloutState

MOST = 1000
RECONCILER = "patch_reconcile"
CANNOT = "nobody can be told of it"
SILENT_AFTER = timedelta(minutes=15)
MAY_MISS = (RolloutState.PLANNED, RolloutState.AWAITING_APPROVAL, RolloutState.WAITING, RolloutState.HELD)

Deliver = Callable[[Notice], None]


class DeliveryFailed(PatchingError):
    """A notice could not be delivered; it is tried again."""

    retryable = True


def tell_all(site: Site, deliver: Deliver) -> list[str]:
    """Send whatever is due of every rollout that changed within a day, and of the control chain; says what was sent.

    ``deliver`` raises DeliveryFailed. A rollout whose plan cannot be read keeps nobody from being told of others.
    Raises LedgerUnavailable.
    """
    said: list[str] = []
    since = site.ledger.now() - FRESH
    rows = [row for row in site.ledger.rollouts(limit=MOST) if row.state not in FINAL or row.updated_at >= since]
    for row in rows:
        with apart(row.id, said, CANNOT):
            note_missed_window(site, row)
            said += tell_rollout(site, row.id, deliver)
    return said + _tell_control(site, deliver)


def tell_rollout(site: Site, rollout: str, deliver: Deliver) -> list[str]:
    """Send whatever is due of one rollout; says what was sent, or could not be."""
    plan = frozen_plan(site, rollout)
    if plan is None or not plan.policy.spec.notify:
        return []
    entries = site.ledger.entries(rollout, kinds=READ)
    return [
        _send(site, rollout, notice, deliver)
        for connection, events in _asked(plan.policy).items()
        for notice in due(entries, connection, events, plan.policy.name, site.ledger.now())
    ]


def was_silent(site: Site) -> str | None:
    """Where patch_reconcile did not get to the end of its work for too long before, write that down, and say it."""
    before = next((beat for beat in site.ledger.beats() if beat.name == RECONCILER), None)
    now = site.ledger.now()
    if before is None or now - before.at <= SILENT_AFTER:
        return None
    reason = (
        f"nothing was heard from the scheduler between {before.at:%Y-%m-%d %H:%M} and {now:%Y-%m-%d %H:%M} UTC: "
        "Airflow was down, or patch_reconcile was paused or failed each time, and not all was looked after meanwhile"
    )
    body = {"from": before.at.isoformat(), "reason": reason}
    key = f"scheduler-silent:{before.beats}:{before.at.isoformat()}"
    first_written(site.ledger, NewEntry(chain=CONTROL, kind=EntryKind.SCHEDULER_SILENT, key=key, body=body))
    return reason


def note_missed_window(site: Site, row: RolloutRow) -> None:
    """Write down that a window passed in which an open rollout could have worked and did not, once for each window.

    A window in a freeze is not missed, nor any window of a policy that only plans.
    """
    plan = frozen_plan(site, row.id) if row.state in MAY_MISS else None
    if plan is None or plan.policy.spec.mode == "plan" or not plan.policy.spec.schedule.windows:
        return
    now = site.clock()
    began = [entry.at for entry in site.ledger.entries(row.id, kinds=[EntryKind.TARGET_BEGAN])]
    for span in spans(plan.policy.spec.schedule, max(plan.created_at, now - FRESH)):
        if span.closes is None or span.closes > now:
            return
        frozen = freeze_at(plan.policy.spec.schedule, span.opens) is not None
        if frozen or span.opens < plan.created_at or any(span.opens <= at < span.closes for at in began):
            continue
        waits = row.waits_for or row.reason or f'the rollout was "{row.state.value}"'
        reason = f"the window of {span.opens:%Y-%m-%d %H:%M} UTC passed and nothing was begun in it: {waits}"
        key = f"window-missed:{span.opens.isoformat()}"
        if site.ledger.find(row.id, key) is None:
            body = {"opens": span.opens.isoformat(), "closes": span.closes.isoformat(), "reason": reason}
            site.ledger.append(NewEntry(chain=row.id, kind=EntryKind.WINDOW_MISSED, key=key, body=body))


def _tell_control(site: Site, deliver: Deliver) -> list[str]:
    """Send what the control chain says: about one policy to whom that policy names, about all to everybody."""
    now = site.ledger.now()
    said: list[str] = []
    # Read anew for each policy: what was told for one counts for the next one with the same connection.
    for policy in _newest_policies(site, said):
        entries = [entry for entry in site.ledger.entries(CONTROL, kinds=READ) if _about(entry, policy.name)]
        for connection, events in _asked(policy).items():
            said += [
                _send(site, CONTROL, notice, deliver) for notice in due(entries, connection, events, policy.name, now)
            ]
    return said


def _newest_policies(site: Site, said: list[str]) -> list[Policy]:
    """Give each policy that wants to be told something, as its newest planned rollout that can be read froze it."""
    if not any(site.ledger.now() - entry.at <= FRESH for entry in site.ledger.entries(CONTROL, kinds=READ)):
        return []
    newest: dict[str, Policy] = {}
    for row in site.ledger.rollouts(limit=MOST):
        with apart(row.id, said, CANNOT):
            if row.policy not in newest and (plan := frozen_plan(site, row.id)) is not None:
                newest[row.policy] = plan.policy
    return [policy for policy in newest.values() if policy.spec.notify]


def _about(entry: LedgerEntry, policy: str) -> bool:
    """Whether an entry is about a policy or about all; what was told counts for everybody with that connection."""
    return entry.kind in (EntryKind.NOTICE, EntryKind.NOTICE_ENDED) or entry.body.get("policy") in (None, policy)


def _asked(policy: Policy) -> dict[str, set[str]]:
    asked: dict[str, set[str]] = {}
    for item in policy.spec.notify:
        asked.setdefault(item.connection, set()).update(item.events)
    return asked


def _send(site: Site, chain: str, notice: Notice, deliver: Deliver) -> str:
    body = {"notice": notice.model_dump(mode="json"), "owner": site.owner}
    try:
        site.ledger.append(NewEntry(chain=chain, kind=EntryKind.NOTICE, key=notice.key, body=body))
    except LedgerConflict:
        return f"{notice.event}: somebody else tells {notice.connection} already"
    site.crash("notice-claimed")
    try:
        deliver(notice)
        ok, detail = True, ""
    except PatchingError as error:
        ok, detail = False, str(error)
    site.crash("notice-sent")
    ended = {"key": notice.key, "id": f"{notice.connection}:{notice.id}", "ok": ok, "detail": detail}
    site.ledger.append(NewEntry(chain=chain, kind=EntryKind.NOTICE_ENDED, key=f"ended:{notice.key}", body=ended))
    if ok:
        return f"told {notice.connection}: {notice.text}"
    return f"{notice.connection} was NOT told of {notice.event} (it is tried again): {detail}"
