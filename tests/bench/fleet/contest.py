"""One run of one contender as a process: wall, CPU of it and of all its children, and what the hosts saw of it."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.fleet.place import Place, environment, python

PLAN = {"read": 2, "start": 1}
"""What the engine and the bare loop send to every host, once each over one connection."""


@dataclass(frozen=True)
class Took:
    """What one run took: whole process, its start and imports included; CPU without the hosts'."""

    wall_s: float
    cpu_s: float
    facts: dict[str, Any] = field(default_factory=dict)


def timed(
    command: list[str], *, where: Path | None = None, more: Mapping[str, str] | None = None, facts: bool = True
) -> Took:
    """Run a process to its end; its last line is JSON with its ``facts``. Raises SystemExit where it fails."""
    before, began = _children(), time.perf_counter()
    done = subprocess.run(
        command, env={**environment(), **(more or {})}, cwd=where, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Took(took, _children() - before, json.loads(done.stdout.splitlines()[-1]) if facts else {})


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plan(place: Place, window: int) -> None:
    """Make the plan of a fleet, once; it draws the order by lot, and whoever comes later has the same order."""
    planned = place.folder / "planned"
    planned.mkdir()
    made = timed(python("bench.fleet.engine", "plan", str(place.folder / "place.json"), _ledger(planned), str(window)))
    place.order(made.facts["order"])
    place.renew()


def engine(place: Place, window: int) -> Took:
    """Measure the wave of the fleet's plan; every target must have been patched once."""
    at = str(place.folder / "place.json")
    with tempfile.TemporaryDirectory(dir=place.folder) as copy:
        shutil.copytree(place.folder / "planned", copy, dirs_exist_ok=True)
        took = timed(python("bench.fleet.engine", "apply", at, _ledger(Path(copy)), str(window)))
    if took.facts["counts"]["applied"] != len(place.names):
        raise SystemExit(f"the engine did not patch every host: {took.facts['sentence']}")
    _check(place)
    return took


def _ledger(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.db"


def bare(place: Place, window: int) -> Took:
    """Measure the bare loop."""
    took = timed(python("bench.fleet.bare", str(place.folder / "place.json"), str(window)))
    _check(place)
    return took


def _check(place: Place) -> None:
    seen, hosts = place.renew(), len(place.names)
    wanted = {name: number * hosts for name, number in PLAN.items()}
    if seen["versions"] != {"1.1": hosts} or seen["twice"] or seen["asked"] != wanted:
        raise SystemExit(f"the hosts saw something else than {wanted}, once each: {seen}")
    if seen["connections"] != hosts:
        raise SystemExit(f"{seen['connections']} connections for {hosts} hosts: one each was expected")
