"""What one seed does through a real Airflow: a fleet, a policy, faults at their moments. Pure: same seed, same run."""

from __future__ import annotations

import random
from dataclasses import dataclass

COMPONENTS = ("api-server", "scheduler", "triggerer", "dag-processor")
PROCESSES = ("kill-task", "kill-worker", "kill-worker-and-task", "freeze-task")
HOSTS = ("cut-zone", "silence-zone", "cut-host", "power-off", "reset")
ACTS = (*(f"kill-{name}" for name in COMPONENTS[:2] * 2 + COMPONENTS[2:]), *PROCESSES, *HOSTS)


@dataclass(frozen=True)
class AirflowFault:
    """``delay`` after a step of ``wave`` runs do ``act``, and undo it ``seconds`` later, where that means something."""

    wave: int
    delay: float
    act: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.act}@wave-{self.wave}+{self.delay:.1f}"


@dataclass(frozen=True)
class AirflowSchedule:
    """A whole run of one seed; ``hosts`` are counted from the lab's first."""

    seed: int
    hosts: int
    limit: int
    reboots: bool
    slow: int
    faults: tuple[AirflowFault, ...]


def airflow_schedule(seed: int) -> AirflowSchedule:
    """Draw the run of a seed."""
    # A drawing that nobody has to be unable to guess.
    draw = random.Random(f"airflow:{seed}")  # noqa: S311
    return AirflowSchedule(
        seed=seed,
        hosts=draw.choice((3, 5, 7)),
        limit=draw.choice((1, 1, 2)),
        reboots=draw.random() < 0.3,
        slow=draw.choice((1, 3, 6)),
        faults=tuple(_fault(draw) for _ in range(draw.choice((1, 2, 2, 3)))),
    )


def _fault(draw: random.Random) -> AirflowFault:
    return AirflowFault(draw.choice((1, 2, 2)), draw.uniform(0.0, 6.0), draw.choice(ACTS), draw.uniform(1.0, 20.0))
