"""Moments: when the runs of a policy begin, as pure functions: ``planAhead`` before a window, and when it opens.

Freezes move no moment: a run in a freeze plans and asks, and its gates say that they wait for the end of the freeze.
Every moment must have a zone; every answer is in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from patching.plan.windows import next_window, open_window, spans
from patching.policy import Schedule

TICK = timedelta(microseconds=1)
LONGEST_WINDOW = timedelta(days=366)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def next_moment(schedule: Schedule, after: datetime) -> datetime | None:
    """Give the first planning or opening moment strictly after another moment; None when no window comes."""
    opening = next_window(schedule, after)
    found = [] if opening is None else [opening.opens]
    ahead = timedelta(seconds=schedule.plan_ahead)
    planned = next_window(schedule, after + ahead) if ahead else None
    if planned is not None:
        found.append(planned.opens - ahead)
    return min(found, default=None)


def moment_under_way(schedule: Schedule, now: datetime) -> datetime | None:
    """Give the latest moment up to ``now`` that still has a purpose; None when there is none.

    A window that is open can be worked in, and a window that has not opened yet can be planned for. Whatever lies
    before that is missed.
    """
    found = []
    opened = _opened(schedule, now) if schedule.windows else None
    if opened is not None:
        found.append(opened)
    ahead = timedelta(seconds=schedule.plan_ahead)
    for span in spans(schedule, now) if ahead else ():
        if span.opens > now + ahead:
            break
        if span.opens > now:
            found.append(span.opens - ahead)
    return max(found, default=None)


def next_run(
    schedule: Schedule,
    now: datetime,
    *,
    last: datetime | None = None,
    earliest: datetime | None = None,
    latest: datetime | None = None,
    catchup: bool = False,
) -> datetime | None:
    """Give the moment of the next scheduled run, which may lie before ``now``: then it is due at once.

    ``last`` is the moment of the last scheduled run; ``earliest`` and ``latest`` are inclusive. Without ``catchup``
    at most the moment under way is made up for, whether a scheduler was down or a policy is new, never a missed one.
    Until its run exists the answer stays the same, however often it is asked for.
    """
    bounds = [] if last is None else [last]
    if earliest is not None:
        bounds.append(earliest - TICK)
    after = max(bounds, default=BEGINNING)
    if not catchup or not bounds:
        due = moment_under_way(schedule, now)
        found = due if due is not None and due > after else next_moment(schedule, max(after, now))
    else:
        found = next_moment(schedule, after)
    return None if found is None or (latest is not None and found > latest) else found


def _opened(schedule: Schedule, now: datetime) -> datetime | None:
    """Give when the window that is open at ``now`` opened; windows that overlap are one, however far back they go."""
    window = open_window(schedule, now)
    if window is None:
        return None
    opens = window.opens
    # A window is only merged with those that are not closed yet, so its beginning is looked for from before.
    while (before := open_window(schedule, opens - TICK)) is not None and now - before.opens < LONGEST_WINDOW:
        opens = before.opens
    return opens
