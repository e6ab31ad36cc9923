"""One run: engines live and die by the schedule, what was broken is mended, and what is left is judged."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos import engine
from chaos.checks import Found, check
from chaos.schedule import Life, Schedule
from chaos.world import LEASE_TTL, World
from patching.rollout import control
from patching.rollout.incidents import incidents, release
from patching.rollout.states import FINAL, RolloutState

LONGEST_LIFE = 60.0
LAST_WORDS = 2.0
HEALING_LIVES = 6
AFTER_EXPIRY = LEASE_TTL + 0.05


@dataclass
class Result:
    """What a run showed."""

    seed: int
    channel: str
    faults: int
    steps: int
    found: Found
    seconds: float
    happened: list[str] = field(default_factory=list)


@dataclass
class _Alive:
    """An engine that was started; ``frozen_until`` while it is stopped."""

    pid: int
    life: Life
    started: float
    doomed_at: float | None = None
    wakes_at: float | None = None


class Run:
    """The supervisor of one seed; the only one who starts, kills and wakes engines."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plan: Schedule = world.plan
        self.ear, self.tell = os.pipe()
        os.set_blocking(self.ear, False)
        self.alive: list[_Alive] = []
        self.number = 0
        self.repairs: list[tuple[float, Callable[[], None]]] = []
        self.happened: list[str] = []
        self.problems: list[str] = []

    def whole(self) -> Result:
        """Do everything; gives what the targets show afterwards."""
        began = time.monotonic()
        try:
            for life in self.plan.lives:
                self._live(life)
                if self._final():
                    break
            self._mend()
            self._heal()
        finally:
            self._end_all()
            os.close(self.ear)
            os.close(self.tell)
        found = check(self.world, self.problems)
        steps = sum(len(self.world.fleet.markers(name)) for name in self.world.names)
        seconds = time.monotonic() - began
        return Result(self.plan.seed, self.plan.channel, len(self.happened), steps, found, seconds, self.happened)

    def _live(self, life: Life) -> None:
        """Let an engine live to its end; a rival comes beside it, and beside one that is frozen there is always one."""
        self._start(life)
        if life.rival:
            self._start(Life(life.task, life.run, ()))
        while self.alive or self.repairs:
            self._look()
        with self.world.looked_up() as ledger:
            left = ledger.leases()
        if left:
            time.sleep(AFTER_EXPIRY)

    def _start(self, life: Life) -> None:
        self.number += 1
        pid = engine.start(self.world, life, self.number, self.tell)
        self.alive.append(_Alive(pid, life, time.monotonic()))

    def _look(self) -> None:
        """Hear what happens, mend what is due, and see who has died or stopped."""
        select.select([self.ear], [], [], 0.02)
        self._hear()
        now = time.monotonic()
        for due, repair in list(self.repairs):
            if due <= now:
                self.repairs.remove((due, repair))
                repair()
        for item in list(self.alive):
            self._tend(item, now)

    def _hear(self) -> None:
        try:
            text = os.read(self.ear, 65536).decode()
        except BlockingIOError:
            return
        for line in text.splitlines():
            pid, act, point, seconds = line.split()
            self.happened.append(f"{act}@{point}")
            self._second(int(pid), act, float(seconds))

    def _second(self, pid: int, act: str, seconds: float) -> None:
        """Do the part of a fault that its own engine cannot do."""
        now = time.monotonic()
        if act == "kill-later":
            for item in self.alive:
                if item.pid == pid:
                    item.doomed_at = now + seconds
        if act == "ledger-gone" and not self.repairs:
            self.repairs.append((now + seconds, self.world.place.gone(at_once=round(seconds * 1000) % 2 == 0)))
        if act == "ledger-locked" and not self.repairs:
            self.repairs.append((now + seconds, self.world.place.locked()))

    def _tend(self, item: _Alive, now: float) -> None:
        pid, status = os.waitpid(item.pid, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(status):
            # Its lease runs out; its successor has it for a while; then the zombie wakes among the living.
            item.wakes_at = now + AFTER_EXPIRY + 0.3
            self._start(Life(item.life.task, item.life.run, ()))
            return
        if pid:
            self.alive.remove(item)
            return
        if item.wakes_at is not None and item.wakes_at <= now:
            item.wakes_at = None
            os.kill(item.pid, signal.SIGCONT)
        doomed = item.doomed_at is not None and item.doomed_at <= now
        stuck = now - item.started > LONGEST_LIFE
        if stuck:
            os.kill(item.pid, signal.SIGUSR1)
            time.sleep(LAST_WORDS)
            self.problems.append(f"stuck: an engine was still at work after {LONGEST_LIFE:g} s (engine-*.stacks)")
        if doomed or stuck:
            os.kill(item.pid, signal.SIGKILL)
            os.waitpid(item.pid, 0)
            self.alive.remove(item)

    def _mend(self) -> None:
        for _, repair in self.repairs:
            repair()
        self.repairs.clear()
        for name in self.world.names:
            self.world.fleet.healed(name)

    def _heal(self) -> None:
        """Let engines without faults finish, as the next runs of the schedule would."""
        for number in range(HEALING_LIVES):
            if self._final():
                return
            self._person()
            self._live(Life("run", 100 + number, ()))
            if not self._final():
                self._live(Life("reconcile", 0, ()))
        if self._final():
            return
        self.problems.append(f"stuck: the rollout is not over after {HEALING_LIVES} undisturbed runs")

    def _final(self) -> bool:
        with self.world.looked_up() as ledger:
            rows = ledger.rollouts(limit=1000)
            return bool(rows) and all(row.state in FINAL for row in rows) and not ledger.leases()

    def _person(self) -> None:
        """Do what only a person may: release the incident of a failed undo, and have what is held put back."""
        with self.world.looked_up() as ledger:
            for item in incidents(ledger):
                if item.locks:
                    release(ledger, item.id, "chaos", "the fault is mended")
            for row in ledger.rollouts(limit=1000):
                if row.state is RolloutState.HELD:
                    control.undo(ledger, row.id, "chaos", "the fault is mended")

    def _end_all(self) -> None:
        for item in self.alive:
            os.kill(item.pid, signal.SIGKILL)
            os.waitpid(item.pid, 0)
        self.alive.clear()


def as_line(result: Result) -> str:
    """Write a result for another process to read."""
    return json.dumps({**result.__dict__, "found": result.found.__dict__})
