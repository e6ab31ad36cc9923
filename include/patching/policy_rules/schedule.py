"""Rules about zones, windows and freezes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

from patching.diagnostics import nearest
from patching.plan.recurrence import ANCHOR, HORIZON_YEARS, RuleError, days, moment, parts
from patching.plan.windows import next_opening
from patching.policy import Schedule, Window
from patching.policy_rules.finding import Wrong
from patching.quantity import format_duration

_SEEN = 60
_HERE = ("spec", "schedule")


def breaches(schedule: Schedule, now: datetime | None) -> Iterator[Wrong]:
    """Check the zone, each window, the freezes, and whether anything is left between them."""
    zone = _is_zone(schedule.timezone)
    if not zone:
        near = nearest(schedule.timezone, _zones())
        hint = f'did you mean "{near}"?' if near else "write an IANA name such as Europe/Berlin or UTC"
        message = f'unknown time zone "{schedule.timezone}"; {hint}'
        yield Wrong((*_HERE, "timezone"), message, "unknown-timezone")
    start = now or datetime(ANCHOR.year, ANCHOR.month, ANCHOR.day, tzinfo=UTC)
    wrong = False
    for index, window in enumerate(schedule.windows):
        for item in _window((*_HERE, "windows", index), window, schedule.timezone if zone else "UTC", start):
            wrong = True
            yield item
    for index, freeze in enumerate(schedule.freezes):
        if freeze.to < freeze.from_:
            message = f'the freeze ends on {freeze.to} before it begins on {freeze.from_}; exchange "from" and "to"'
            yield Wrong((*_HERE, "freezes", index, "to"), message, "freeze-order")
    if zone and not wrong and schedule.windows and schedule.freezes and next_opening(schedule, start) is None:
        message = f"the freezes cover every window of the next {HORIZON_YEARS} years, so work could never start"
        yield Wrong((*_HERE, "freezes"), message, "window-frozen", key=True)


def _window(loc: tuple[str | int, ...], window: Window, zone: str, start: datetime) -> Iterator[Wrong]:
    try:
        until = parts(window.rrule).get("UNTIL")
        first = start.astimezone(ZoneInfo(zone)).date() - timedelta(days=1)
        opening = next((day for day in days(window.rrule, first) if _closes(day, window, zone) > start), None)
    except RuleError as error:
        yield Wrong((*loc, "rrule"), f"invalid rrule: {error}", "window-rule")
        return
    if window.duration <= 0:
        yield Wrong((*loc, "duration"), "the window has no length; write for example 4h", "window-duration")
        return
    if opening is None:
        passed = f"; UNTIL={until} has passed" if until is not None else ""
        message = f"the window never opens in the next {HORIZON_YEARS} years{passed}"
        yield Wrong((*loc, "rrule"), message, "window-never")
        return
    pause = _shortest_pause(window, zone, start)
    if pause is not None and window.duration >= pause:
        message = (
            f"the window of {format_duration(window.duration)} is still open when it opens again after "
            f'{format_duration(pause)}; shorten it, or leave "windows" out to allow any time'
        )
        yield Wrong((*loc, "duration"), message, "window-overlap")


def _closes(day: date, window: Window, zone: str) -> datetime:
    return moment(day, window.start, zone) + timedelta(seconds=window.duration)


def _shortest_pause(window: Window, zone: str, start: datetime) -> float | None:
    """Give the shortest time between two openings among the next ones; short windows need no look at all."""
    if window.duration < 20 * 3600:
        return None
    opens = (moment(day, window.start, zone) for day in islice(days(window.rrule, start.date()), _SEEN))
    return min(((after - before).total_seconds() for before, after in pairwise(opens)), default=None)


@lru_cache(maxsize=1000)
def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, a path out of the database, or a directory in it
        return False
    return name != "localtime"  # would mean something else on each worker


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
