"""Days of a recurrence rule (RFC 5545), and the moment at which a wall-clock time of a day begins in a zone.

A window's rule names days; the time of day is the window's own. A rule that counts (``INTERVAL=2``) needs a day to
count from: for every policy that is Monday, 1 January 2024 (``ANCHOR``), so that two policies with the same rule
always mean the same days. Rules are evaluated a year at a time and cached: nothing is walked from the anchor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr

ANCHOR = date(2024, 1, 1)
HORIZON_YEARS = 5
FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")
PARTS = ("FREQ", "INTERVAL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYSETPOS", "BYYEARDAY", "BYWEEKNO", "WKST", "UNTIL")
_NUMBERS = {"BYMONTHDAY": 31, "BYMONTH": 12, "BYSETPOS": 366, "BYYEARDAY": 366, "BYWEEKNO": 53}
_DAY = re.compile(r"^(?:[+-]?\d{1,2})?(?:MO|TU|WE|TH|FR|SA|SU)$")
_UNTIL = re.compile(r"^\d{8}$")


class RuleError(ValueError):
    """A recurrence rule is not usable; the message says which part and what to write."""


def parts(rule: str) -> dict[str, str]:
    """Split a rule such as ``FREQ=WEEKLY;BYDAY=TU`` and check each part; raises RuleError."""
    found: dict[str, str] = {}
    for part in rule.split(";"):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise RuleError(f'"{part}" is not NAME=VALUE; write for example FREQ=WEEKLY;BYDAY=TU,WE')
        if name in found:
            raise RuleError(f"{name} appears twice")
        if name not in PARTS:
            raise RuleError(_refused(name))
        found[name] = value
        _check(name, value)
    if "FREQ" not in found:
        raise RuleError("FREQ is missing; write for example FREQ=WEEKLY;BYDAY=TU,WE")
    if any(value[0] in "+-0123456789" for value in found.get("BYDAY", "MO").split(",")) and found["FREQ"] not in (
        "MONTHLY",
        "YEARLY",
    ):
        raise RuleError("a numbered weekday such as 2TU needs FREQ=MONTHLY or FREQ=YEARLY")
    return found


def days(rule: str, first: date, years: int = HORIZON_YEARS) -> Iterator[date]:
    """Give the rule's days from ``first`` on, in order, up to the end of the year ``years`` ahead."""
    for year in range(first.year, min(first.year + years, 9998) + 1):
        yield from (day for day in _days_of_year(rule, year) if day >= first)


@lru_cache(maxsize=100_000)
def moment(day: date, clock: str, zone: str) -> datetime:
    """Give the UTC moment at which the wall clock of a zone shows ``HH:MM`` on a day.

    A time that a change to summer time skips becomes the first moment after the gap; one that occurs twice is the
    first of the two (RFC 5545, 3.3.5, except that a gap never moves work later than needed).
    """
    tz = ZoneInfo(zone)
    wall = datetime.combine(day, time.fromisoformat(clock))
    found = wall.replace(tzinfo=tz).astimezone(UTC)
    if found.astimezone(tz).replace(tzinfo=None) == wall:
        return found
    before, after = wall.replace(tzinfo=tz, fold=1).astimezone(UTC), found
    old = before.astimezone(tz).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(tz).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after


@lru_cache(maxsize=20_000)
def _days_of_year(rule: str, year: int) -> tuple[date, ...]:
    checked = parts(rule)
    until = date(year, 12, 31)
    if "UNTIL" in checked:
        until = min(until, _until(checked["UNTIL"]))
    if until.year < year:
        return ()
    text = ";".join(f"{name}={value}" for name, value in checked.items() if name != "UNTIL")
    start = _aligned(checked["FREQ"], int(checked.get("INTERVAL", "1")), year)
    text += f";UNTIL={until:%Y%m%d}"
    try:
        found = rrulestr(text, dtstart=datetime.combine(start, time()))
        return tuple(item.date() for item in found if item.year == year)
    except (ValueError, TypeError, IndexError) as error:
        raise RuleError(f"the rule is not usable: {error}") from error


def _aligned(freq: str, interval: int, year: int) -> date:
    """Give the last day before ``year`` on which a period begins, counted from the anchor.

    One period is added in front, because a week may belong to two years and WKST may move its first day.
    """
    january = date(year, 1, 1)
    if freq == "YEARLY":
        back = (year - ANCHOR.year) % interval
        return date(max(1, year - back), 1, 1)
    if freq == "MONTHLY":
        month = (year - ANCHOR.year) * 12
        month -= month % interval
        return date(max(1, ANCHOR.year + month // 12), month % 12 + 1, 1)
    step = interval * (7 if freq == "WEEKLY" else 1)
    passed = (january - ANCHOR).days
    return ANCHOR + timedelta(days=passed - passed % step - step)


def _check(name: str, value: str) -> None:
    if name == "FREQ" and value not in FREQUENCIES:
        raise RuleError(f"FREQ={value} is not a day's rule; use one of {', '.join(FREQUENCIES)}")
    if name == "INTERVAL" and not re.fullmatch(r"[1-9]\d{0,2}", value):
        raise RuleError(f"INTERVAL={value} is not a whole number from 1 to 999")
    if name == "BYDAY" and not all(_DAY.match(item) for item in value.split(",")):
        raise RuleError(f"BYDAY={value}: write days as MO, TU, WE, TH, FR, SA, SU, or numbered as 2TU or -1SU")
    if name == "WKST" and value not in ("MO", "TU", "WE", "TH", "FR", "SA", "SU"):
        raise RuleError(f"WKST={value} is not a day; use MO or SU")
    if name == "UNTIL":
        _until(value)
    if name in _NUMBERS:
        _check_numbers(name, value)


def _check_numbers(name: str, value: str) -> None:
    limit = _NUMBERS[name]
    for item in value.split(","):
        negative = name != "BYMONTH"
        if not re.fullmatch(r"[+-]?\d{1,3}" if negative else r"\d{1,2}", item) or not 1 <= abs(int(item)) <= limit:
            signs = f"1 to {limit} or -1 to -{limit}" if negative else f"1 to {limit}"
            raise RuleError(f"{name}={value}: {item} is not a number from {signs}")


def _until(value: str) -> date:
    if not _UNTIL.match(value):
        raise RuleError(f"UNTIL={value}: write the last day as YYYYMMDD, for example UNTIL=20271231")
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError as error:
        raise RuleError(f"UNTIL={value} is not a day: {error}") from error


def _refused(name: str) -> str:
    if name == "COUNT":
        return "COUNT is not allowed, since a policy has no first day to count from; use UNTIL=YYYYMMDD"
    if name in ("BYHOUR", "BYMINUTE", "BYSECOND"):
        return f'{name} is not allowed; the time of day is the window\'s "start"'
    if name.startswith("DTSTART"):
        return "DTSTART is not allowed; rules count from Monday, 1 January 2024"
    return f'"{name}" is not a part of a rule; known: {", ".join(PARTS)}'
