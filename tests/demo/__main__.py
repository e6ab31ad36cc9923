"""``make demo``: from nothing to a patched fleet, once with a good update and once with a bad one."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.progress import Watch, console
from demo.stage import POLICY, USERS, Stage
from lab import Lab, LabError
from lab.preflight import cgroup_problems, privilege_problems, tool_problems
from lab.simulated import SimulatedLab
from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching.drivers.apt_options import AptOptions
from patching_airflow.local import LocalAirflow, LocalAirflowError

ROOT = Path(__file__).parents[2]
GOOD, BAD = "v2", "v3"
DAG = f"patch__{POLICY}"


class Interrupted(BaseException):
    """The person pressed Ctrl-C, or somebody asked the demo to end."""


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Turn a signal into an orderly end."""
    raise Interrupted


def lab_of(out: Console, hosts: int, directory: Path) -> Lab:
    """Bring the lab up: real hosts where the machine allows them, else simulated ones, clearly said.

    Raises LabError with the fix where something else is in the way, a taken address for example.
    """
    missing = [*tool_problems(), *privilege_problems(), *cgroup_problems()]
    if missing:
        out.print(f"[yellow]no real hosts here: {missing[0]}[/]")
        out.print("[yellow bold]SIMULATED HOSTS: a real SSH server in front of simulated package state[/]")
        return SimulatedLab.up(hosts, directory=directory)
    return Lab.up(hosts, directory=directory, say=lambda line: out.print(f"      {line}", highlight=False))


def ready(api: AirflowApi, within: float = 60.0) -> None:
    """Wait until Airflow has parsed the policy; raises LocalAirflowError."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = {item["dag_id"] for item in api.get("/api/v2/dags", limit=100)["dags"]}
        if {DAG, "patch_emergency"} <= found:
            return
        time.sleep(0.5)
    raise LocalAirflowError(f"Airflow did not parse {DAG} within {within:.0f} s: {api.get('/api/v2/importErrors')}")


def rollout(out: Console, stage: Stage, watch: Watch, title: str, release: str, *, age: float = 0.0) -> dict[str, Any]:
    """Publish one release, trigger the policy, and follow the run to its end.

    ``age``: how old (seconds) a host's package index may be before it asks again; a run that begins sooner after the
    last one would not see the release.
    """
    out.rule(f"[bold]{title}")
    published = stage.lab.publish(release)
    stage.sync_advisories()
    out.print(f"      published: {', '.join(f'{name} {version}' for name, version in published.items())}")
    if age:
        out.print(f"      the hosts ask for packages again when their index is {age:.0f} s old: waiting for that")
        time.sleep(age)
    watch.said.clear()
    run = watch.admin.trigger(DAG, {"reason": title})
    out.print(f"      {watch.admin.url}/dags/{DAG}/runs/{run}", highlight=False)
    view = watch.follow(DAG, run)
    out.print(f"[bold]{view.get('headline', '')}[/]")
    return view


def on_hosts(lab: Lab) -> dict[str, tuple[str, str]]:
    """Ask the hosts themselves, past SSH and our records: the shop's version, and how many steps ran twice."""
    found = {}
    for host in lab.hosts:
        version = lab.versions(host.name).get("shopfront", "-")
        marks = lab.run(host.name, ["sh", "-c", "cat /var/lib/patching/markers.log 2>/dev/null || true"]).stdout.split(
            "\n"
        )
        ids = [line.split()[0] for line in marks if line.strip()]
        found[host.name] = (version, str(len(ids) - len(set(ids))))
    return found


def errors_of(lab: Lab) -> int:
    """Count hosts whose front page answers errors now."""
    import httpx

    bad = 0
    for host in lab.about["hosts"]:
        answers = [httpx.get(host["service_url"], trust_env=False, timeout=5).status_code for _ in range(10)]
        bad += any(status >= 500 for status in answers)
    return bad


def summary(out: Console, rows: list[tuple[str, str, str, str, bool]]) -> None:
    """Print the table of what was expected and what the hosts show."""
    table = Table(title="As seen on the hosts", title_justify="left")
    for name in ("rollout", "expected", "as seen on the hosts", "run"):
        table.add_column(name)
    table.add_column("")
    for title, expected, seen, state, good in rows:
        table.add_row(title, expected, seen, state, "[green]✓[/]" if good else "[red]X[/]")
    Console().print(table)


def play(out: Console, stage: Stage, airflow: LocalAirflow, begun: float) -> bool:
    """Run both rollouts and check them on the hosts; gives whether both ended as described."""
    admin = AirflowApi(airflow.url, user="admin", password=airflow.passwords["admin"])
    people = {name: AirflowApi(airflow.url, user=name, password=name) for name in ("alice", "bob")}
    ready(admin)
    watch = Watch(out, admin, people)
    count = len(stage.lab.hosts)
    good = rollout(out, stage, watch, "1. a good security update reaches every host", GOOD)
    after_good = on_hosts(stage.lab)
    new = {version for version, _ in after_good.values()}
    rows = []
    good_ok = (
        good["run_state"] == "success"
        and len(new) == 1
        and stage.lab.repository.published().get("shopfront", "") in new
        and not errors_of(stage.lab)
    )
    seen = f"{count} of {count} at {new.pop()}" if len(new) == 1 else ", ".join(sorted(new))
    rows.append(("good update", f"all {count} hosts at the new version", seen, good["run_state"], good_ok))
    title = "2. a bad update is caught on the canary and undone"
    bad = rollout(out, stage, watch, title, BAD, age=AptOptions().refresh_after)
    after_bad, failing = on_hosts(stage.lab), errors_of(stage.lab)
    same = sum(after_bad[name][0] == after_good[name][0] for name in after_good)
    touched = sorted(item["name"] for item in bad["targets"] if item.get("began_at"))
    canary = sorted(item["name"] for item in bad["targets"] if item.get("wave") == 1)
    undone = bad["rollout"]["state"] == "undone" and bad["counts"].get("undone") == len(canary)
    bad_ok = bad["run_state"] == "failed" and undone and same == count and not failing and touched == canary
    seen = f"{same} of {count} as before; touched: {', '.join(touched)}; {failing} answer errors"
    rows.append(("bad update", "canary undone, no other host touched", seen, bad["run_state"], bad_ok))
    twice = sum(int(number) for _, number in after_bad.values())
    rows.append(("steps on hosts", "none ran twice", f"{twice} ran twice", "-", twice == 0))
    summary(out, rows)
    out.print(f"      {time.monotonic() - begun:.0f} s from the start of the demo")
    return all(row[4] for row in rows)


def main() -> int:
    """Run the demo; exit status 0 only if both rollouts ended as described."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--exit", action="store_true", help="stop by itself at the end")
    parser.add_argument("--hosts", type=int, default=12)
    options = parser.parse_args()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, interrupt)
    out, begun = console(), time.monotonic()
    ends: list[tuple[str, Callable[[], None]]] = []
    good = False
    try:
        good = stage_and_play(out, options, ends, begun)
    except Interrupted:
        out.print("\nstopping")
    except (LabError, LocalAirflowError, AirflowApiError, TimeoutError) as error:
        out.print(f"[red]{error}[/]", highlight=False)
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
        for title, end in reversed(ends):
            out.print(f"      {title}")
            end()
    return 0 if good else 1


def stage_and_play(
    out: Console, options: argparse.Namespace, ends: list[tuple[str, Callable[[], None]]], begun: float
) -> bool:
    """Build lab and Airflow, play, and keep the UI up until somebody ends it."""
    out.rule(f"[bold]the lab: {options.hosts} Debian hosts in 3 zones")
    folder = ROOT / ".demo"
    folder.mkdir(exist_ok=True)
    lab = lab_of(out, options.hosts, folder / "lab")
    ends.append(("taking the lab down", lab.down))
    lab.repository.replace({})
    for old in folder.glob("ledger.sqlite*"):
        old.unlink()
    stage = Stage.make(folder, lab)
    out.rule("[bold]Airflow")
    port = int(os.environ.get("PATCHING_PORT", "8080"))
    airflow = LocalAirflow(folder / "airflow", ROOT / "dags", USERS, stage.settings(), port=port)
    ends.append(("stopping Airflow", airflow.stop))
    airflow.start(say=lambda line: out.print(f"      {line}", highlight=False))
    good = play(out, stage, airflow, begun)
    print(f"Airflow: {airflow.url}   logins: {', '.join(f'{name}/{airflow.passwords[name]}' for name in USERS)}")
    print("look at: the runs of patch shopfront-security, tab Patching")
    if not options.exit:
        print("Ctrl-C stops everything, the lab included.", flush=True)
        try:
            signal.pause()
        except Interrupted:
            out.print("")
    return good


if __name__ == "__main__":
    sys.exit(main())
