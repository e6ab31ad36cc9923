"""5,000 hosts in one rollout by one worker: its memory, and what each change job that runs at once adds to it.

The hosts are SSH servers as in the rolling update; a patch takes each a tenth of its seconds, 250 at once. Memory a
concurrent target is the slope between the peaks of the same wave with 25 and with 250 at once.
Targets: every target applied, at most 1.5 GB in the worker.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.fleet.contest import engine
from bench.fleet.durations import durations
from bench.fleet.place import Place

HOSTS, FEW_HOSTS, SEED = 5000, 500, 11
WINDOW, FEW = 250, 25
MOST_MB = 1536.0


def peak(hosts: int, window: int) -> tuple[float, float, float]:
    """Give the worker's peak memory in MB, and the seconds and CPU seconds of its wave."""
    seconds = [round(item / 10, 3) for item in durations(hosts, SEED)]
    with tempfile.TemporaryDirectory() as folder, Place(Path(folder), seconds) as place:
        took = engine(place, window)
    return took.facts["peak_mb"], took.facts["window_s"], took.cpu_s


def main() -> int:
    """Print memory; exit code 1 when a target is missed (a host that is not patched ends the bench at once)."""
    few, many = peak(FEW_HOSTS, FEW)[0], peak(FEW_HOSTS, WINDOW)[0]
    memory, took, cpu = peak(HOSTS, WINDOW)
    each, slope = cpu / HOSTS * 1000, (many - few) / (WINDOW - FEW) * 1024
    print(f"{HOSTS} hosts, {WINDOW} at once, one worker: all applied in {took:.0f} s, {each:.0f} ms CPU each")
    print(f"memory of the worker: {memory:.0f} MB (at most {MOST_MB:.0f})")
    print(f"a concurrent target: {slope:.0f} KB ({FEW_HOSTS} hosts, {FEW} against {WINDOW} at once)")
    return 0 if memory <= MOST_MB else 1


if __name__ == "__main__":
    sys.exit(main())
