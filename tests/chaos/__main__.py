"""``python -m chaos``: many seeds, one line of figures, and for each seed that fails how to run it alone."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.fleets import fleet_of, shared_servers
from chaos.ledgers import LedgerDatabase, LedgerFile, LedgerServer, ledger_server
from chaos.parent import die_with_parent
from chaos.run import Run, as_line
from chaos.schedule import Schedule, schedule
from chaos.through_airflow import run_seeds
from chaos.world import World, carry_out
from patching.ledger.store import open_ledger


def scratch() -> Path:
    """Give a folder in memory where there is one: a schedule tests order, not disks."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
    return Path(tempfile.mkdtemp(prefix="chaos-", dir=memory if memory.is_dir() else None))


def warm_up(folder: Path, template: Path) -> None:
    """Do one run without faults in this process, so that everything is loaded and compiled before it forks."""
    folder.mkdir()
    plan = replace(schedule(1), lives=(), bad=())
    world = World(folder, plan, fleet_of(plan, folder, None), LedgerFile(folder, template))
    world.build()
    ledger = world.ledger()
    asyncio.run(carry_out(world, world.site("warm-up", ledger), "run-0"))
    ledger.close()
    gc.collect()
    gc.freeze()


def one(plan: Schedule, here: Path, template: Path, servers: Any, database: tuple[LedgerServer, str] | None) -> str:
    """Run one seed in a folder of its own; the folder of a failed one is kept."""
    here.mkdir()
    place = LedgerDatabase(here, *database) if plan.postgres and database else LedgerFile(here, template)
    world = World(here, plan, fleet_of(plan, here, servers), place)
    world.build()
    result = Run(world).whole()
    place.over(keep=bool(result.found.all))
    if not result.found.all:
        shutil.rmtree(here)
    return as_line(result)


def lots(seeds: list[int], channel: str, jobs: int) -> list[list[Schedule]]:
    """Deal seeds to processes; those whose ledger is on a server to one, for a server takes its time to be made."""
    plans = [schedule(seed, channel) for seed in seeds]
    dealt: list[list[Schedule]] = [[] for _ in range(jobs)]
    for plan in plans:
        if plan.postgres:
            dealt[0].append(plan)
    on_a_server = len(dealt[0])
    for plan in plans:
        if not plan.postgres:
            lengths = [len(lot) + (on_a_server if not number else 0) for number, lot in enumerate(dealt)]
            dealt[lengths.index(min(lengths))].append(plan)
    return dealt


def work(plans: list[Schedule], channel: str, folder: Path, template: Path, to: Path) -> None:
    """Run some seeds in this process, one line of result each."""
    with ExitStack() as stack:
        servers = stack.enter_context(shared_servers(channel, folder / f"servers-{os.getpid()}"))
        database = stack.enter_context(ledger_server()) if any(plan.postgres for plan in plans) else None
        file = stack.enter_context(to.open("w"))
        for plan in plans:
            file.write(one(plan, folder / f"{channel}-{plan.seed}", template, servers, database) + "\n")
            file.flush()


def spread(seeds: list[int], channel: str, jobs: int, folder: Path) -> list[dict[str, Any]]:
    """Spread seeds over processes that have everything loaded already."""
    template = folder / "empty.sqlite"
    if not template.exists():
        open_ledger(f"sqlite:///{template}").close()
        warm_up(folder / "warm-up", template)
    files, children = [], []
    for job, plans in enumerate(lots(seeds, channel, jobs)):
        files.append(folder / f"results-{channel}-{job}")
        sys.stdout.flush()
        child = os.fork()
        if not child:
            status = 1
            try:
                die_with_parent()
                work(plans, channel, folder, template, files[-1])
                status = 0
            except BaseException:  # noqa: BLE001 - shown, and the process ends with an error
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    results = [json.loads(line) for path in files if path.exists() for line in path.read_text().splitlines()]
    if any(statuses) or len(results) != len(seeds):
        raise SystemExit(f"the harness itself failed: {len(results)} of {len(seeds)} seeds of {channel} were run")
    return results


def summary(results: list[dict[str, Any]]) -> str:
    """Put the figures into one line."""
    figures: Counter[str] = Counter()
    for result in results:
        figures.update({"runs": 1, "faults": result["faults"], "steps": result["steps"]})
        figures.update({name: len(result["found"][name]) for name in ("twice", "exceeded", "lost", "wrong")})
    names = ("runs", "faults", "steps", "twice", "exceeded", "lost", "wrong")
    return "chaos: " + ", ".join(f"{name} {figures[name]}" for name in names)


def kinds(results: list[dict[str, Any]]) -> str:
    """Say how often each kind of fault happened."""
    happened = Counter(item.partition("@")[0] for result in results for item in result["happened"])
    return "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(happened.items()))


def failures(results: list[dict[str, Any]], folder: Path) -> list[str]:
    """Say what failed, and how to run it alone."""
    said = []
    for result in results:
        found = [line for lines in result["found"].values() for line in lines]
        if not found:
            continue
        alone = f"python -m chaos --channel {result['channel']} --seed {result['seed']}"
        said.append(f"seed {result['seed']} ({result['channel']}; {', '.join(result['happened']) or 'no fault'}):")
        said += [f"  {line}" for line in found]
        said.append(f"  alone: PYTHONPATH=tests {alone}; traces: {folder}/{result['channel']}-{result['seed']}")
    return said


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 0 when every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--channel", choices=("simulated", "ssh", "airflow"), default="simulated")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    given = parser.parse_args(arguments)
    seeds = [given.seed] if given.seed is not None else list(range(given.first, given.first + given.seeds))
    folder = scratch()
    if given.channel == "airflow":
        results = run_seeds(seeds, folder)
    else:
        results = spread(seeds, given.channel, min(given.jobs, len(seeds)), folder)
    bad = failures(results, folder)
    print("\n".join([*bad, kinds(results), summary(results)]))
    if not bad:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
