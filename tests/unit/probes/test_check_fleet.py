"""Checks of many targets at once: bounded, in order, and who cannot be logged in to is no pass."""

from __future__ import annotations

import asyncio
from typing import Any

from patching.change import Reply, Step
from patching.errors import TargetOffline
from patching.policy import Check
from patching.probes.checks import check_fleet
from patching.target import Member, Target

CHECKS = [Check.model_validate({"name": name, "command": {"run": "true"}}) for name in ("one", "two")]


class Line:
    """A session; its first answer comes when as many are open as may be."""

    def __init__(self, channel: Lines) -> None:
        self.channel = channel

    async def read(self, step: Step) -> Reply:
        await self.channel.full.wait()
        return Reply(step=step.name, exit_code=0)

    async def close(self) -> None:
        self.channel.open_now -= 1


class Lines:
    """A channel that counts its open sessions and refuses one target."""

    def __init__(self, most: int, dark: str) -> None:
        self.most, self.dark = most, dark
        self.open_now = self.peak = 0
        self.full = asyncio.Event()

    async def open(self, target: Target, **_: Any) -> Any:
        if target.name == self.dark:
            raise TargetOffline("no answer; it counts as offline")
        self.open_now += 1
        self.peak = max(self.peak, self.open_now)
        if self.open_now == self.most:
            self.full.set()
        return Line(self)


async def test_targets_are_asked_beside_each_other_bounded_and_answered_in_order() -> None:
    """Asked one after the other, the first would wait for ever."""
    targets = [Target(name=f"web-{number}", members=(Member(address="127.0.0.1"),)) for number in range(9)]
    lines = Lines(3, dark="web-4")
    async with asyncio.timeout(10):
        found = await check_fleet(lines, targets, CHECKS, concurrency=3)  # type: ignore[arg-type]
    assert [(item.target, item.check) for item in found] == [(t.name, c.name) for t in targets for c in CHECKS]
    assert {item.target for item in found if item.ok is None} == {"web-4"}
    assert all(item.ok for item in found if item.target != "web-4")
    assert (lines.peak, lines.open_now) == (3, 0)
