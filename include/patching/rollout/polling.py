"""Polling: sources without a past are asked while a wave is applied and soaks, and every answer is written down.

A round belongs to a slot of time, as long as the check's ``every``, and is kept under it: shards and looks that come to
the same slot ask once, and a worker that starts again goes on with what the dead one has written. What was not asked
is no data, and no data is never a pass.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from patching.change import Refusal
from patching.errors import ConnectionMissing, LedgerUnavailable, MetricSourceUnavailable
from patching.ledger.base import Ledger
from patching.ledger.entry import EntryKind, NewEntry
from patching.plan.document import Plan
from patching.policy import Check
from patching.policy_metrics import HttpJsonCheck
from patching.rollout.beside import beside
from patching.rollout.record import first_written
from patching.rollout.site import Site
from patching.sources.base import Polled
from patching.sources.points import in_looks
from patching.target import Target

MOST_REASONS = 20


def polled_checks(plan: Plan) -> list[tuple[Check, HttpJsonCheck]]:
    """Give the checks whose source has no past."""
    return [(check, check.http_json) for check in plan.policy.spec.verify if check.http_json is not None]


def next_round(plan: Plan, now: datetime) -> datetime | None:
    """Say when the next slot of any polled check begins; None where there is none."""
    starts = [(_slot(rules, now) + 1) * rules.every for _, rules in polled_checks(plan)]
    return datetime.fromtimestamp(min(starts), UTC) if starts else None


async def poll(site: Site, plan: Plan, wave: int) -> None:
    """Ask every polled check that was not asked in this slot yet; raises LedgerUnavailable.

    All targets of this and the later waves are asked: the later ones are the control now, and need a time before.
    """
    targets = [item.target for item in plan.targets if item.wave >= wave]
    await asyncio.gather(*(_round(site, plan, wave, check, rules, targets) for check, rules in polled_checks(plan)))


async def _round(
    site: Site, plan: Plan, wave: int, check: Check, rules: HttpJsonCheck, targets: Sequence[Target]
) -> None:
    now = site.clock()
    key = f"polled:{check.name}:{_slot(rules, now)}"
    if await asyncio.to_thread(site.ledger.find, plan.rollout, key) is not None:
        return
    try:
        found = await site.polled(rules).now(targets)
    except (MetricSourceUnavailable, ConnectionMissing) as error:
        found = Polled(values={}, failed={target.name: str(error) for target in targets})
    for name, why in list(found.failed.items())[:1]:
        site.log(f"{check.name}: {len(found.failed)} of {len(targets)} targets gave no value, first {name}: {why}")
    body = {
        "wave": wave,
        "check": check.name,
        "at": now.isoformat(),
        "values": found.values,
        "failed": dict(list(found.failed.items())[:MOST_REASONS]),
    }
    entry = NewEntry(chain=plan.rollout, kind=EntryKind.POLLED, key=key, body=body)
    await asyncio.to_thread(first_written, site.ledger, entry)


def _slot(rules: HttpJsonCheck, now: datetime) -> int:
    return int(now.timestamp() // rules.every)


@asynccontextmanager
async def polling(site: Site, plan: Plan, wave: int) -> AsyncIterator[None]:
    """Ask once before the body, which applies a wave, and again and again beside it."""
    if not polled_checks(plan):
        yield
        return
    await _poll_if_possible(site, plan, wave)
    async with beside(_keep_polling(site, plan, wave)):
        yield


async def _keep_polling(site: Site, plan: Plan, wave: int) -> None:
    while (following := next_round(plan, now := site.clock())) is not None:
        await asyncio.sleep(min(max((following - now).total_seconds(), 0.0), site.look_every))
        await _poll_if_possible(site, plan, wave)


async def _poll_if_possible(site: Site, plan: Plan, wave: int) -> None:
    try:
        await poll(site, plan, wave)
    except LedgerUnavailable as error:
        site.log(f"nothing was polled for wave {wave}: {error}")


class PolledValues:
    """A GaugeSource over what was written down of the rounds of one check."""

    def __init__(self, ledger: Ledger, rollout: str, check: str) -> None:
        self._ledger = ledger
        self._rollout = rollout
        self._check = check

    async def values(
        self, matchers: dict[str, dict[str, str]], query: str, start: datetime, end: datetime, number: int
    ) -> dict[str, list[float | None]]:
        """Give the mean of each target's answers in each of ``number`` equal parts of a span; None without one.

        Raises MetricSourceUnavailable where the newest rounds, all that there are in the span, gave no value at all.
        """
        entries = await asyncio.to_thread(self._ledger.entries, self._rollout, kinds=[EntryKind.POLLED])
        mine = [(datetime.fromisoformat(entry.body["at"]), entry.body) for entry in entries]
        mine = sorted(((at, body) for at, body in mine if body["check"] == self._check), key=lambda one: one[0])
        inside = [(at, body) for at, body in mine if start < at <= end]
        if inside and inside[-1] == mine[-1] and not any(body["values"] for _, body in inside):
            why = next(iter(inside[-1][1]["failed"].values()), "nobody was asked")
            raise MetricSourceUnavailable(
                f"{why}. No data is never a pass: the check is inconclusive ({len(inside)} rounds without a value)"
            )
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for at, body in inside:
            for name, value in body["values"].items():
                points[name].append((at.timestamp(), float(value)))
        return in_looks(points, matchers, start, end, number)

    async def validate_gauge(self, matchers: dict[str, dict[str, str]], query: str, at: datetime) -> list[Refusal]:
        """Find nothing: the service itself is asked when planning."""
        return []
