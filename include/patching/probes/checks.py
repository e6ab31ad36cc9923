"""Run a policy's per-target checks: on one target over its session, and on many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from patching.canary.verdicts import ProbeResult
from patching.change import Reply, Step
from patching.channels.base import Channel, Session
from patching.errors import ChannelError
from patching.policy import Check
from patching.probes.command import command_step
from patching.probes.unit import unit_step
from patching.target import Target

MOST_DETAIL = 300

__all__ = ["ProbeResult", "check_fleet", "run_probes"]


async def run_probes(session: Session, target: Target, checks: Sequence[Check]) -> list[ProbeResult]:
    """Ask every per-target check in the policy's order; metric checks are passed over. Raises nothing of its own.

    A target that cannot be spoken to gives ok None: nobody knows, and that is not a pass.
    """
    results = []
    for check in checks:
        if check.http is not None:
            # The HTTP client takes a worker longer to load than all other checks together.
            from patching.probes.http import http_probe

            results.append(await http_probe(check.name, check.http, target))
        elif check.command is not None:
            results.append(await _ask(session, target, check.name, command_step(check.name, check.command, target)))
        elif check.unit is not None:
            results.append(await _ask(session, target, check.name, unit_step(check.name, check.unit)))
    return results


async def check_fleet(
    channel: Channel, targets: Sequence[Target], checks: Sequence[Check], *, concurrency: int
) -> list[ProbeResult]:
    """Ask every per-target check of many targets, ``concurrency`` at once; the answers come in the targets' order.

    One that cannot be logged in to gives ok None for each check: nobody knows, and that is not a pass.
    """
    room = asyncio.Semaphore(concurrency)

    async def one(target: Target) -> list[ProbeResult]:
        async with room:
            try:
                session = await channel.open(target)
            except ChannelError as error:
                return [
                    ProbeResult(check=check.name, target=target.name, ok=None, detail=str(error)) for check in checks
                ]
            try:
                return await run_probes(session, target, checks)
            finally:
                await session.close()

    answers = await asyncio.gather(*(one(target) for target in targets))
    return [answer for found in answers for answer in found]


async def _ask(session: Session, target: Target, check: str, step: Step) -> ProbeResult:
    try:
        reply = await session.read(step)
    except ChannelError as error:
        return ProbeResult(check=check, target=target.name, ok=None, detail=f"{target.name} was not asked: {error}")
    return ProbeResult(check=check, target=target.name, ok=_answer(reply), detail=_detail(reply))


def _answer(reply: Reply) -> bool | None:
    return None if reply.exit_code is None else reply.ok


def _detail(reply: Reply) -> str:
    if reply.exit_code is None:
        return "its end was not seen in time"
    said = " / ".join(line.strip() for line in (reply.stdout + "\n" + reply.stderr).splitlines() if line.strip())
    text = f"exit {reply.exit_code}" + (f": {said}" if said else "")
    return text if len(text) <= MOST_DETAIL else text[: MOST_DETAIL - 1] + "…"
