"""What one seed does: a fleet, and the lives of its engines with what happens to each. Pure: same seed, same run."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

POINTS = (
    "lease-taken",
    "steps-resolved",
    "intent-written",
    "started",
    "ended",
    "forbidden",
    "outcome-written",
    "target-outcome-written",
    "retry-written",
    "drill-begun",
    "verdict-written",
)
ONCE = ("forbidden", "retry-written", "drill-begun", "verdict-written")
"""Points that an engine passes once or twice at most."""
USUAL = tuple(point for point in POINTS if point not in ONCE)
DRILLED = 0.15
TOLERANT = 0.7
"""How often a wave goes on beside targets on which the new version fails."""
ONE_IN, ON_A_SERVER = 12, 5
"""One seed in so many keeps its ledger on a server: those whose number leaves this rest."""

ACTS = {
    "simulated": (
        "kill", "kill", "kill", "kill-later", "freeze", "freeze", "cut", "cut-after", "dark", "reboot", "reboot",
        "disk-full", "ledger-gone", "ledger-locked", "clock-forward", "clock-back", "leases-expire",
    ),
    "ssh": (
        "kill", "kill", "kill-later", "freeze", "freeze", "cut", "cut", "sshd-restart", "sshd-restart", "reboot",
        "reboot", "dark", "disk-full", "ledger-gone", "clock-forward", "clock-back", "leases-expire",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """At the ``nth`` passing of a crash point, do ``act``; ``seconds`` is for how long, where that means something."""

    point: str
    nth: int
    act: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.act}@{self.point}:{self.nth}"


@dataclass(frozen=True)
class Life:
    """One engine from its start to its death; ``task`` is a run of the policy or a reconcile."""

    task: str
    run: int
    faults: tuple[Fault, ...]
    rival: bool = False


@dataclass(frozen=True)
class Schedule:
    """A whole run of one seed."""

    seed: int
    channel: str
    hosts: int
    zones: int
    kernel: bool
    hooks: bool
    bad: tuple[int, ...]
    pace: float
    lives: tuple[Life, ...] = field(default=())
    unavailable: str = "1"
    drill: bool = False
    tolerant: bool = False
    postgres: bool = False

    @property
    def faults(self) -> int:
        """How many faults are meant to happen; a deadly one hides those behind it."""
        return sum(len(life.faults) for life in self.lives)

    def policy(self, service: str, smoke: str) -> dict[str, Any]:
        """Give what this seed changes in the policy; ``service`` takes a host out of service and in again."""
        hook = {"command": {"name": "service", "enter": f"{service} out", "leave": f"{service} in", "timeout": "20s"}}
        return {
            "verify": [{"name": "smoke", "command": {"run": smoke}}],
            "hooks": [hook] if self.hooks else [],
            "rollout": {
                "maxUnavailable": int(self.unavailable) if self.unavailable.isdecimal() else self.unavailable,
                "stopWhen": {"failedTargets": 1 if self.bad and not self.tolerant else 99},
                "drill": self.drill,
            },
        }


def schedule(seed: int, channel: str = "simulated") -> Schedule:
    """Draw the run of a seed."""
    # A drawing that nobody has to be unable to guess.
    draw = random.Random(f"{channel}:{seed}")  # noqa: S311
    hosts = draw.choice((3, 3, 3, 4, 4, 6)) if channel == "simulated" else 3
    bad = tuple(sorted(draw.sample(range(hosts), draw.randint(1, hosts)))) if draw.random() < 0.25 else ()
    plan = Schedule(
        seed=seed,
        channel=channel,
        hosts=hosts,
        zones=draw.choice((1, 2, 3)),
        kernel=draw.random() < 0.4,
        hooks=draw.random() < 0.6,
        bad=bad,
        pace=draw.choice((0.0, 0.02, 0.1)) if channel == "simulated" else draw.choice((0.05, 0.4)),
        lives=tuple(_life(draw, channel, number) for number in range(draw.choice((1, 1, 2, 2, 3)))),
        unavailable=draw.choice(("1", "1", "2", "50%")),
        drill=draw.random() < DRILLED,
        tolerant=draw.random() < TOLERANT,
    )
    plan = _in_turn(plan)
    return _on_a_server(draw, plan) if seed % ONE_IN == ON_A_SERVER else plan


def _in_turn(plan: Schedule) -> Schedule:
    """Have the first fault of neighbouring seeds be another each time, so that few seeds have all of them."""
    acts = ACTS[plan.channel]
    first, *others = plan.lives
    fault = replace(first.faults[0], act=acts[plan.seed % len(acts)])
    return replace(plan, lives=(replace(first, faults=(fault, *first.faults[1:])), *others))


def _on_a_server(draw: random.Random, plan: Schedule) -> Schedule:
    """Have the run's ledger in PostgreSQL; its server is killed or stopped in the first life, whatever else happens."""
    first, *others = plan.lives
    gone = Fault(draw.choice(USUAL), draw.choice((1, 1, 2, 3)), "ledger-gone", draw.uniform(0.05, 0.6))
    lives = (replace(first, faults=(gone, *first.faults[1:])), *others)
    return replace(plan, postgres=True, lives=lives)


def _life(draw: random.Random, channel: str, number: int) -> Life:
    task = "reconcile" if number and draw.random() < 0.15 else "run"
    same = number > 0 and draw.random() < 0.5
    faults = tuple(_fault(draw, channel) for _ in range(draw.choice((1, 1, 2, 3))))
    return Life(task, 0 if same else number, faults, rival=draw.random() < 0.3)


def _fault(draw: random.Random, channel: str) -> Fault:
    point = draw.choice(POINTS)
    nth = 1 if point in ONCE else draw.choice((1, 1, 2, 2, 3, 4))
    return Fault(point, nth, draw.choice(ACTS[channel]), draw.uniform(0.05, 0.6))
