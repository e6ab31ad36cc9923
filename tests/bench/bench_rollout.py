"""Rolling update of 10, 100 and 500 hosts over SSH, against a bare loop, Ansible and the least possible time.

Every host is an SSH server of its own that takes its own seconds (log-normal, median 2 s, 2 % stragglers); window 50.
A real patch takes minutes, so the controller's share is smaller in life than here. All sides have the same hosts in the
same order, the plan's, which is drawn by lot; the bound is that of this order. The engine writes its ledger, intent and
outcome on disk before and after each act, in all of it; reading, starting, waiting and reading again goes over one
connection a host, in the bare loop too.

`update s` is the rolling update itself, `process s` the whole process with its imports (in Airflow these are the
worker's, once for many targets). CPU is the controller's and its children's; the hosts' is apart. Hosts and controller
share the machine's cores, so a busy machine makes everything but the bound longer.
Targets, at 500 hosts: the update at most 1.10 × the bare loop and 1.25 × the bound; against Ansible in batches
(`serial`), whole processes, 3 × faster with a fifth of its CPU. With 100 hosts a batch is half the fleet and a
straggler is most of the bound, so nobody can be 3 × faster: printed beside what the bound itself would be. Ansible runs
three times with 100 hosts and once with 500. `BENCH_TURNS=1` measures everything once, and no Ansible with 500 hosts.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import ansible
from bench.fleet.contest import Took, bare, engine, plan
from bench.fleet.durations import bound
from bench.fleet.place import Place

WINDOW, SEED = 50, 7
TURNS = {10: 5, 100: 5, 500: 5}
ANSIBLE = {100: 3, 500: 1}
AT_MOST_TURNS = int(os.environ.get("BENCH_TURNS", "5"))
MOST_OF_BARE, MOST_OF_BOUND, LEAST_FASTER, LEAST_CPU = 1.10, 1.25, 3.0, 5.0

Side = Callable[[Place], Took]


@dataclass(frozen=True)
class Median:
    """Medians of one contender; ``update_s`` is not known of those that we cannot look into."""

    update_s: float | None
    wall_s: float
    cpu_s: float
    runs: int

    @classmethod
    def of(cls, took: list[Took]) -> Median:
        """Take the medians."""
        inside = [run.facts["window_s"] for run in took if "window_s" in run.facts]
        wall, cpu = (
            statistics.median(values) for values in zip(*((run.wall_s, run.cpu_s) for run in took), strict=True)
        )
        return cls(statistics.median(inside) if inside else None, wall, cpu, len(took))


def sides(hosts: int) -> dict[str, tuple[Side, int]]:
    """Name the contenders for a size, and how often each is measured."""
    found: dict[str, tuple[Side, int]] = {
        "engine": (lambda place: engine(place, WINDOW), TURNS[hosts]),
        "bare asyncssh loop": (lambda place: bare(place, WINDOW), TURNS[hosts]),
    }
    if hosts in ANSIBLE and (hosts < max(ANSIBLE) or AT_MOST_TURNS > 1):
        found["Ansible, serial 50"] = (lambda place: ansible.playbook(place, WINDOW, "linear"), ANSIBLE[hosts])
        found["Ansible, free"] = (lambda place: ansible.playbook(place, WINDOW, "free"), ANSIBLE[hosts])
    return found


def measure(hosts: int) -> tuple[float, dict[str, Median]]:
    """Give the bound and each contender's medians; the sides take turns, so a busy hour is busy for all."""
    runs: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory() as folder, Place.of(Path(folder), hosts, SEED) as place:
        plan(place, WINDOW)
        least, contenders = bound(place.seconds, WINDOW), sides(hosts)
        for turn in range(min(AT_MOST_TURNS, max(times for _, times in contenders.values()))):
            for name, (side, times) in contenders.items():
                if turn < times:
                    runs.setdefault(name, []).append(side(place))
                    print(f"{hosts} hosts, {name}: {runs[name][-1].wall_s:.1f} s", file=sys.stderr, flush=True)
    return least, {name: Median.of(took) for name, took in runs.items()}


def line(hosts: int, name: str, found: Median) -> str:
    """Write one row."""
    update = "" if found.update_s is None else f"{found.update_s:.1f}"
    each = found.cpu_s / hosts * 1000
    return f"{hosts:>5}  {name:<20} {update:>9} {found.wall_s:>10.1f} {found.cpu_s:>7.1f} {each:>14.0f} {found.runs:>5}"


def against_ansible(hosts: int, least: float, found: dict[str, Median]) -> tuple[str, float, float]:
    """Give how often the engine is faster than Ansible in batches, with how little CPU, and both in words."""
    ours, serial = found["engine"], found["Ansible, serial 50"]
    faster, less = serial.wall_s / ours.wall_s, serial.cpu_s / ours.cpu_s
    said = f"{hosts} hosts against Ansible serial: {faster:.2f} times faster (the bound: {serial.wall_s / least:.2f}), "
    return f"{said}{less:.2f} times less CPU", faster, less


def checks(results: dict[int, tuple[float, dict[str, Median]]]) -> list[tuple[str, float, float, bool]]:
    """Give each target: what, the ratio, the limit, and whether that is the most."""
    least, most = results[500]
    ours, bare_update = most["engine"].update_s or 0.0, most["bare asyncssh loop"].update_s or 1.0
    found = [
        ("500 hosts, update ÷ bare loop", ours / bare_update, MOST_OF_BARE, True),
        ("500 hosts, update ÷ bound", ours / least, MOST_OF_BOUND, True),
    ]
    if "Ansible, serial 50" in most:
        _, faster, less = against_ansible(500, least, most)
        found.append(("500 hosts, times faster than Ansible serial", faster, LEAST_FASTER, False))
        found.append(("500 hosts, times less CPU than Ansible serial", less, LEAST_CPU, False))
    return found


def main() -> int:
    """Print a table and the ratios; exit code 1 when a target is missed."""
    print(f"{'hosts':>5}  {'':<20} {'update s':>9} {'process s':>10} {'CPU s':>7} {'CPU ms a host':>14} {'runs':>5}")
    results = {}
    for hosts in TURNS:
        least, found = results[hosts] = measure(hosts)
        print(f"{hosts:>5}  {'bound':<20} {least:>9.1f}", flush=True)
        for name, median in found.items():
            print(line(hosts, name, median), flush=True)
    for hosts, (least, found) in results.items():
        if "Ansible, serial 50" in found:
            print(against_ansible(hosts, least, found)[0])
    met = True
    for said, ratio, limit, is_most in checks(results):
        good = ratio <= limit if is_most else ratio >= limit
        met = met and good
        print(f"{said}: {ratio:.2f} ({'at most' if is_most else 'at least'} {limit}){'' if good else ' MISSED'}")
    print(f"{ansible.version()}: raw commands, pipelining, persistent connections")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
