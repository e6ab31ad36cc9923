"""5,000 hosts in one rollout: the worker's memory, alone and through Airflow, and what each job at once adds to it.

Alone, one worker patches SSH servers as in the rolling update; a patch takes each a tenth of its seconds, 250 at once.
Memory a concurrent target is the slope between the peaks of the same wave with 25 and with 250 at once, medians of
five; the 5,000 are patched once each way: they finish, or they do not. Through Airflow the hosts are simulated, in
three waves; the memory is the most that any process of this Airflow ever had.
Targets: every target applied, at most 1.5 GB in a worker, no failed task.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.bench_airflow import lay_out, running, through
from bench.fleet.contest import engine, plan
from bench.fleet.durations import durations
from bench.fleet.place import Place
from patching.cli.airflow_api import AirflowApi
from patching_airflow.local import LocalAirflow
from patching_airflow.processes import family

HOSTS, FEW_HOSTS, SEED, TURNS = 5000, 500, 11, 5
WINDOW, FEW = 250, 25
MOST_MB = 1536.0


def peak(hosts: int, window: int) -> tuple[float, float, float]:
    """Give the worker's peak memory in MB, and the seconds and CPU seconds of its wave."""
    seconds = [round(item / 10, 3) for item in durations(hosts, SEED)]
    with tempfile.TemporaryDirectory() as folder, Place(Path(folder), seconds) as place:
        plan(place, window)
        took = engine(place, window)
    return took.facts["peak_mb"], took.facts["window_s"], took.cpu_s


@contextmanager
def watched(airflow: LocalAirflow) -> Iterator[dict[int, float]]:
    """Look twice a second at the peak memory in MB of each process of an Airflow; the kernel keeps the peak."""
    peaks: dict[int, float] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            for pid in family(airflow.known):
                with suppress(OSError, IndexError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    peaks[pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peaks
    finally:
        over.set()
        looking.join()


def through_airflow() -> tuple[float, float, Counter[str]]:
    """Give the seconds of the run, the peak memory in MB of its largest process, and its tasks by state."""
    with tempfile.TemporaryDirectory() as place:
        lay_out(Path(place), "scale", HOSTS, HOSTS)
        with running(Path(place)) as airflow, watched(airflow) as peaks:
            api = AirflowApi(airflow.url, user="admin", password=airflow.passwords["admin"])
            took, _ = through(airflow, api, "scale")
            tasks = Counter(str(item["state"]) for item in api.task_instances("patch__scale", "bench"))
            return took, max(peaks.values()), tasks


def main() -> int:
    """Print memory; exit code 1 when a target is missed (a host that is not patched ends the bench at once)."""
    few, many = (statistics.median(peak(FEW_HOSTS, window)[0] for _ in range(TURNS)) for window in (FEW, WINDOW))
    memory, took, cpu = peak(HOSTS, WINDOW)
    each, slope = cpu / HOSTS * 1000, (many - few) / (WINDOW - FEW) * 1024
    print(f"{HOSTS} hosts, {WINDOW} at once, one worker: all applied in {took:.0f} s, {each:.0f} ms CPU each")
    print(f"memory of the worker: {memory:.0f} MB (at most {MOST_MB:.0f})")
    print(
        f"a concurrent target: {slope:.0f} KB ({FEW_HOSTS} hosts, {FEW} against {WINDOW} at once, medians of {TURNS})",
        flush=True,
    )
    run_s, largest, tasks = through_airflow()
    states = ", ".join(f"{number} {state}" for state, number in sorted(tasks.items()))
    print(f"through Airflow: the run succeeded in {run_s:.0f} s; tasks: {states}")
    print(f"memory of its largest process: {largest:.0f} MB (at most {MOST_MB:.0f})")
    return 0 if max(memory, largest) <= MOST_MB and set(tasks) <= {"success", "skipped"} else 1


if __name__ == "__main__":
    sys.exit(main())
