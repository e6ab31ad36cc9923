"""One engine in a process of its own: it forks from a harness that has everything loaded, and dies as it is told."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from chaos.parent import die_with_parent
from chaos.schedule import Fault, Life
from chaos.world import World, carry_out
from patching.rollout.reconcile import reconcile

JUMP = 3600.0
Answer = TypeVar("Answer")


@dataclass
class Clocks:
    """By how many seconds the clocks of this engine are wrong."""

    engine: float = 0.0
    ledger: float = 0.0


def start(world: World, life: Life, number: int, tell: int) -> int:
    """Fork an engine; gives its process id. ``tell`` is a pipe on which it says which fault it lets happen."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    die_with_parent()
    status = 1
    try:
        with stacks_of(world, number).open("w") as stacks:
            faulthandler.register(signal.SIGUSR1, stacks, chain=True)
            status = _live(world, life, number, tell, stacks)
    except BaseException:  # noqa: BLE001 - written down for the checks, and the process ends
        path = world.folder / f"engine-{number}.error"
        path.write_text(traceback.format_exc())
    finally:
        os._exit(status)


def stacks_of(world: World, number: int) -> Path:
    """Give the file in which an engine that gets SIGUSR1 writes what each of its threads and tasks is doing."""
    return world.folder / f"engine-{number}.stacks"


def _live(world: World, life: Life, number: int, tell: int, stacks: TextIO) -> int:
    clocks = Clocks()
    ledger = world.ledger(lambda: clocks.ledger)
    site = world.site(f"engine-{number}-{os.getpid()}", ledger, lambda: clocks.engine)
    lines = world.folder / "engines.log"
    said = _writer(lines, number)
    site = replace(site, crash=_Crash(world, life, tell, clocks), log=said)
    if life.task == "reconcile":
        answer = asyncio.run(_told(reconcile(site), stacks))
        said("; ".join(answer.sentences) or "nothing to reconcile")
        return 0
    said(asyncio.run(_told(carry_out(world, site, f"run-{life.run}"), stacks)))
    return 0


async def _told(work: Coroutine[None, None, Answer], stacks: TextIO) -> Answer:
    """Do the work; on SIGUSR1 write where each task waits, which the stacks of threads do not show."""

    def tell() -> None:
        for task in asyncio.all_tasks():
            print(task.get_name(), *_awaiting(task.get_coro()), sep="\n  ", file=stacks)
        stacks.flush()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    return await work


def _awaiting(work: Any) -> Iterator[str]:
    """Follow a coroutine to what it waits for in the end; a task's own stack has the first of them only."""
    while work is not None:
        frame = getattr(work, "cr_frame", None) or getattr(work, "gi_frame", None)
        yield repr(work) if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        work = getattr(work, "cr_await", None) or getattr(work, "gi_yieldfrom", None)


def _writer(path: Path, number: int) -> Callable[[str], None]:
    def write(line: str) -> None:
        with path.open("a") as file:
            file.write(f"engine {number}: {line}\n")

    return write


class _Crash:
    """What is called at every crash point."""

    def __init__(self, world: World, life: Life, tell: int, clocks: Clocks) -> None:
        self.world = world
        self.faults = life.faults
        self.tell = tell
        self.clocks = clocks
        self.passed: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        self.passed[point] += 1
        for fault in self.faults:
            if fault.point == point and fault.nth == self.passed[point]:
                os.write(self.tell, f"{os.getpid()} {fault.act} {fault.point} {fault.seconds:.3f}\n".encode())
                self._happen(fault)

    def _happen(self, fault: Fault) -> None:
        match fault.act:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "clock-forward":
                self.clocks.engine += JUMP
            case "clock-back":
                self.clocks.engine -= JUMP
            case "leases-expire":
                self.clocks.ledger += 2.0
            case "kill-later" | "ledger-gone" | "ledger-locked":
                pass
            case _:
                self.world.fleet.trouble(self._somebody(fault), fault.act, fault.seconds)

    def _somebody(self, fault: Fault) -> str:
        """Choose the host: most often the one that is being worked on, if one can be told."""
        names = self.world.names
        busy = [name for name in names if self.world.fleet.markers(name)]
        chosen = busy or names
        return chosen[int(fault.seconds * 1000) % len(chosen)]
