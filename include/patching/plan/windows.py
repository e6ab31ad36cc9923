"""When work may happen: maintenance windows and freezes of a policy's schedule, as pure functions of a moment.

Windows open at a wall-clock time in the policy's zone; their length is elapsed time, so a window of 4 h lasts 4 h on
the night of a clock change too. Windows that overlap or touch are one. Freezes are whole days in the policy's zone.
Without windows the answer is always *open*. Every ``now`` must have a zone; every answer is in UTC.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from patching.plan.recurrence import HORIZON_YEARS, days, moment
from patching.policy import Freeze, Schedule, Window
from patching.value import Value


class WindowSpan(Value):
    """One opening: work may start from ``opens`` on and until ``closes`` (exclusive; None = never closes)."""

    opens: datetime
    closes: datetime | None = None

    def contains(self, now: datetime) -> bool:
        """Whether the window is open at a moment."""
        return self.opens <= now and (self.closes is None or now < self.closes)


def spans(schedule: Schedule, now: datetime) -> Iterator[WindowSpan]:
    """Give the windows that close after ``now``, in order and merged, up to five years ahead; [] without windows."""
    current: WindowSpan | None = None
    each = [_openings(schedule.timezone, window, now) for window in schedule.windows]
    for opens, closes in heapq.merge(*each):
        if closes <= now:
            continue
        if current is not None and current.closes is not None and opens <= current.closes:
            current = WindowSpan(opens=current.opens, closes=max(current.closes, closes))
            # Windows without any pause (refused in a policy file) would merge for ever.
            if closes - current.opens < timedelta(days=366):
                continue
            break
        if current is not None:
            yield current
        current = WindowSpan(opens=opens, closes=closes)
    if current is not None:
        yield current


def open_window(schedule: Schedule, now: datetime) -> WindowSpan | None:
    """Give the window that is open at ``now`` (freezes apart), None when closed; without windows one without end."""
    if not schedule.windows:
        return WindowSpan(opens=now.astimezone(UTC))
    first = next(spans(schedule, now), None)
    return first if first is not None and first.contains(now) else None


def next_window(schedule: Schedule, now: datetime) -> WindowSpan | None:
    """Give the first window that opens after ``now`` (freezes apart); None without windows or when none comes."""
    return next((span for span in spans(schedule, now) if span.opens > now), None)


def freeze_at(schedule: Schedule, now: datetime) -> Freeze | None:
    """Give the freeze that covers the day of ``now`` in the policy's zone; of several the one that ends last."""
    day = now.astimezone(ZoneInfo(schedule.timezone)).date()
    found = [item for item in schedule.freezes if item.from_ <= day <= item.to]
    return max(found, key=lambda item: item.to, default=None)


def freeze_ends(schedule: Schedule, freeze: Freeze) -> datetime:
    """Give the first moment after a freeze."""
    return moment(freeze.to + timedelta(days=1), "00:00", schedule.timezone)


def next_opening(schedule: Schedule, now: datetime) -> datetime | None:
    """Give the first moment from ``now`` on at which work may start: window open, no freeze; None when none comes."""
    if not schedule.windows:
        return _thawed(schedule, now)
    for span in spans(schedule, now):
        start = _thawed(schedule, max(span.opens, now.astimezone(UTC)))
        if span.contains(start):
            return start
    return None


def close_of_nth_window(schedule: Schedule, after: datetime, n: int) -> datetime | None:
    """Give the close of the n-th window (from 1) that work can use after a moment; one that is open counts as first.

    Windows that are frozen from end to end do not count. None without windows or when so many do not come.
    """
    count = 0
    for span in spans(schedule, after):
        if span.contains(_thawed(schedule, max(span.opens, after.astimezone(UTC)))):
            count += 1
            if count == n:
                return span.closes
    return None


def sentence(schedule: Schedule, now: datetime, rollout: str = "") -> str:
    """Say in one sentence whether work may start at ``now`` and, if not, what it waits for and how long.

    With ``rollout`` the sentence begins with its id.
    """
    text = _frozen(schedule, now) or _window_sentence(schedule, now)
    return f"rollout {rollout} {text}" if rollout else text


def spoken(schedule: Schedule, when: datetime, now: datetime) -> str:
    """Write a moment as people of the policy's zone say it: ``Tue 22:00 Europe/Berlin``, with the date when far."""
    local = when.astimezone(ZoneInfo(schedule.timezone))
    far = abs(when - now) > timedelta(days=6)
    return f"{local:%a %-d %b %Y %H:%M} {schedule.timezone}" if far else f"{local:%a %H:%M} {schedule.timezone}"


def waiting_time(span: timedelta) -> str:
    """Write how long something takes in at most two units, rounded up: ``3 h``, ``3 h 30 min``, ``2 d 4 h``."""
    seconds = max(0, -(-span // timedelta(seconds=1)))
    if seconds < 90:
        return f"{seconds} s"
    minutes = -(-seconds // 60)
    if minutes < 48 * 60:
        large, small, names = minutes // 60, minutes % 60, ("h", "min")
    else:
        hours = -(-minutes // 60)
        large, small, names = hours // 24, hours % 24, ("d", "h")
    parts = [f"{number} {name}" for number, name in zip((large, small), names, strict=True) if number]
    return " ".join(parts)


def _openings(zone: str, window: Window, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    length = timedelta(seconds=window.duration)
    first = (now.astimezone(ZoneInfo(zone)) - length).date() - timedelta(days=1)
    for day in days(window.rrule, first, HORIZON_YEARS):
        opens = moment(day, window.start, zone)
        yield opens, opens + length


def _thawed(schedule: Schedule, when: datetime) -> datetime:
    """Give the first moment from ``when`` on that no freeze covers; each freeze is left at most once."""
    for _ in range(len(schedule.freezes) + 1):
        freeze = freeze_at(schedule, when)
        if freeze is None:
            break
        when = freeze_ends(schedule, freeze)
    return when.astimezone(UTC)


def _frozen(schedule: Schedule, now: datetime) -> str | None:
    freeze = freeze_at(schedule, now)
    if freeze is None:
        return None
    opening = next_opening(schedule, now)
    text = f'waits for the end of the freeze "{freeze.reason}" (last day {freeze.to.isoformat()})'
    if opening is None:
        return f"{text}, but after it no window opens in the next {HORIZON_YEARS} years"
    return f"{text}, may start {spoken(schedule, opening, now)}, in {waiting_time(opening - now)}"


def _window_sentence(schedule: Schedule, now: datetime) -> str:
    current = open_window(schedule, now)
    if current is not None:
        if current.closes is None:
            return "may work at any time: the policy has no windows"
        left = waiting_time(current.closes - now)
        return f"may work: the window is open until {spoken(schedule, current.closes, now)}, {left} left"
    opening = next_opening(schedule, now)
    if opening is None:
        return f"waits for a window, but none opens in the next {HORIZON_YEARS} years"
    following = next_window(schedule, now)
    passed = "" if following is not None and following.opens == opening else " (earlier ones are frozen)"
    when, wait = spoken(schedule, opening, now), waiting_time(opening - now)
    return f"waits for the window {when}, opens in {wait}{passed}"
