"""Reading a target: the driver's rounds of reading steps over one session, parsed into a Snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from patching.change import Patch, Reply
from patching.channels.base import Channel, Session
from patching.drivers.base import PatchDriver
from patching.errors import ChannelError, HostKeyChanged, HostKeyUnknown, LoginRefused, TargetOffline
from patching.sources.base import Clock
from patching.target import Reach, Snapshot, Target

ROUNDS = 8

REACH: dict[type[ChannelError], Reach] = {
    TargetOffline: Reach.OFFLINE,
    LoginRefused: Reach.LOGIN_REFUSED,
    HostKeyUnknown: Reach.HOST_KEY_UNKNOWN,
    HostKeyChanged: Reach.HOST_KEY_CHANGED,
}


async def probe(
    session: Session, driver: PatchDriver, target: Target, wanted: Sequence[Patch], clock: Clock
) -> Snapshot:
    """Read one target over an open session; raises ChannelError where the connection breaks."""
    replies: dict[str, Reply] = {}
    for _ in range(ROUNDS):
        steps = driver.probe(target, wanted, replies)
        if not steps:
            break
        for step in steps:
            replies[step.name] = await session.read(step)
    snapshot = driver.parse(target, wanted, replies)
    return snapshot.model_copy(update={"taken_at": clock()})


def unreached(target: Target, error: ChannelError, clock: Clock) -> Snapshot:
    """Make the Snapshot of a target that did not let us in: a state of its own, with the reason."""
    reach = REACH.get(type(error), Reach.OFFLINE)
    return Snapshot(target=target.name, taken_at=clock(), reach=reach, reach_detail=str(error))


async def probe_fleet(
    channel: Channel,
    driver: PatchDriver,
    targets: Sequence[Target],
    wanted: Mapping[str, Sequence[Patch]],
    clock: Clock,
    *,
    concurrency: int,
) -> dict[str, Snapshot]:
    """Read many targets at once; every target gets a Snapshot, whatever happened."""
    room = asyncio.Semaphore(concurrency)

    async def one(target: Target) -> Snapshot:
        async with room:
            try:
                session = await channel.open(target)
            except ChannelError as error:
                return unreached(target, error, clock)
            try:
                return await probe(session, driver, target, wanted.get(target.name, ()), clock)
            except ChannelError as error:
                return unreached(target, error, clock)
            finally:
                await session.close()

    taken = await asyncio.gather(*(one(target) for target in targets))
    return {snapshot.target: snapshot for snapshot in taken}
