"""A rollout of three waves through Airflow against the same rollout by the engine alone: what Airflow adds.

Hosts are simulated (channel `simulated`, 0.2 s a step), so that nothing but the engine and Airflow takes time. The
engine alone does the tasks of a run one after the other in this process, soaks included. Overhead is the DAG run's
time from its first task to its end, less the engine's own time and the soaks. CPU is that of all of Airflow's
components and tasks (LocalExecutor), less what the idle Airflow burnt in as many seconds.
Sizes take turns, and medians of five count (`BENCH_TURNS=1`: one turn).
Targets: at most 60 s more than the engine and the soaks; overhead and CPU a wave not more for 200 hosts than for 6 by
over a quarter, though the engine's own CPU, which grows with them, is among it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from patching.channels.simulated import SimulatedChannel, SimulatedFleet
from patching.cli.airflow_api import AirflowApi, AirflowApiError
from patching.drivers.simulated import SimulatedDriver
from patching.ledger.store import open_ledger
from patching.policy_files import load_policy
from patching.rollout.answers import Request
from patching.rollout.approval import approval_request, decide, prepare
from patching.rollout.closing import close_run, verify
from patching.rollout.discovery import discover
from patching.rollout.gates import gate
from patching.rollout.judging import judge
from patching.rollout.planning import make_plan
from patching.rollout.site import Site
from patching.rollout.undoing import undo_wave
from patching.rollout.wave import apply_wave
from patching_airflow.local import LocalAirflow
from patching_airflow.processes import family

ROOT = Path(__file__).parents[2]
SIZES, WAVES, SOAK = (6, 200), 3, 5.0
TURNS = int(os.environ.get("BENCH_TURNS", "5"))
MOST_SECONDS, MOST_GROWTH, IDLE_SECONDS, PATIENCE = 60.0, 1.25, 20.0, 900.0
TICKS = os.sysconf("SC_CLK_TCK")

POLICY = f"""\
apiVersion: patching/v1alpha1
kind: PatchPolicy
metadata: {{name: NAME}}
spec:
  mode: apply
  driver: {{name: simulated, connection: fleet}}
  targets: {{inventory: NAME.json, maxTargets: MOST}}
  patches: {{securityOrigins: ["Lab-Security:*"]}}
  approval: {{required: 0}}
  rollout:
    maxUnavailable: 100%
    waves:
      - {{canary: {{count: 1}}, soak: {SOAK:g}s}}
      - {{size: 50%, soak: {SOAK:g}s}}
      - {{size: 100%, soak: {SOAK:g}s}}
"""


def lay_out(folder: Path, name: str, hosts: int, most: int = 500) -> None:
    """Write the policy (for at most ``most`` hosts) and the inventory, and make the hosts as before any patch."""
    names = [f"{name}-{number:03d}" for number in range(hosts)]
    fleet = SimulatedFleet(folder / "hosts")
    for host in names:
        fleet.add(host, installed={"shop": "1.0"}, offers={"shop": "1.1"}, slow=0.2)
    inventories = folder / "policies" / "inventories"
    inventories.mkdir(parents=True, exist_ok=True)
    variables = {host: {"ansible_host": "127.0.0.1"} for host in names}
    document = {"_meta": {"hostvars": variables}, "all": {"hosts": names}}
    (inventories / f"{name}.json").write_text(json.dumps(document))
    (folder / "policies" / f"{name}.yaml").write_text(POLICY.replace("NAME", name).replace("MOST", str(most)))


async def alone(folder: Path, name: str) -> float:
    """Carry the rollout out without Airflow; gives its seconds without the soaks. Raises SystemExit if it fails."""
    site = Site(
        ledger=open_ledger(f"sqlite:///{folder}/{name}-alone.sqlite"),
        clock=lambda: datetime.now(UTC),
        connections=None,  # type: ignore[arg-type]
        channel=lambda _name: SimulatedChannel(SimulatedFleet(folder / "hosts")),
        driver=lambda _name, _options: SimulatedDriver(),
        metrics=lambda _name: None,  # type: ignore[arg-type,return-value]
        policies_dir=folder / "policies",
        owner="bench",
    )
    request = Request(dag_id="patch__bench", run_id="alone")
    began, soaked = time.perf_counter(), 0.0
    found = await discover(site, load_policy(folder / "policies" / f"{name}.yaml"), request)
    rollout, run = found.rollout, request.run_id
    await make_plan(site, rollout)
    approval_request(site, rollout, run)
    decide(site, rollout, run, [])
    await prepare(site, rollout, run)
    for wave in range(1, WAVES + 1):
        gate(site, rollout, wave, run)
        await apply_wave(site, rollout, wave, 0, 1, run, lambda: None)
        while (answer := await judge(site, rollout, wave, run)).verdict is None and answer.again_at is not None:
            left = max((answer.again_at - site.clock()).total_seconds(), 0.0)
            soaked += left
            await asyncio.sleep(left)
        await undo_wave(site, rollout, wave, run)
    await verify(site, rollout, run)
    closing = close_run(site, request.dag_id, run)
    if not closing.good:
        raise SystemExit(f"the engine alone did not complete: {closing.sentence}")
    return time.perf_counter() - began - soaked


def cpu(airflow: LocalAirflow) -> float:
    """Give the CPU seconds of everything that this Airflow runs and ran."""
    total = 0
    for pid in family(airflow.known):
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(word) for word in words[11:15])
    return total / TICKS


def through(airflow: LocalAirflow, api: AirflowApi, name: str) -> tuple[float, float]:
    """Carry the rollout out in Airflow; gives the run's seconds and the CPU seconds meanwhile."""
    before, deadline = cpu(airflow), time.monotonic() + PATIENCE
    run_id = _triggered(api, f"patch__{name}", deadline)
    while (run := api.run(f"patch__{name}", run_id))["state"] not in ("success", "failed"):
        if time.monotonic() > deadline:
            raise SystemExit(f"the run of {name} has not ended after {PATIENCE:.0f} s")
        time.sleep(1.0)
    if run["state"] != "success":
        raise SystemExit(f"the run of {name} failed: {run.get('note')}")
    began, ended = (datetime.fromisoformat(run[end]) for end in ("start_date", "end_date"))
    return (ended - began).total_seconds(), cpu(airflow) - before


def _triggered(api: AirflowApi, dag_id: str, deadline: float) -> str:
    """Trigger a DAG as soon as Airflow has parsed it."""
    while True:
        try:
            return api.trigger(dag_id, {}, "bench")
        except AirflowApiError as error:
            if error.status == 409:
                return "bench"
            if not (error.status == 404 or error.retryable) or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


@contextmanager
def running(folder: Path) -> Iterator[LocalAirflow]:
    """Start a real Airflow of one machine on loopback, and stop it without a trace."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = {
        "AIRFLOW__PATCHING__LEDGER_URL": f"sqlite:///{folder}/ledger.sqlite",
        "AIRFLOW__PATCHING__POLICIES_DIR": str(folder / "policies"),
        "AIRFLOW__PATCHING__GATE_POLL": "2",
        "AIRFLOW_CONN_FLEET": json.dumps({"conn_type": "ssh", "extra": {"simulated_fleet": str(folder / "hosts")}}),
    }
    airflow = LocalAirflow(folder / "airflow", ROOT / "dags", {"admin": "admin"}, settings, port)
    airflow.start()
    try:
        yield airflow
    finally:
        airflow.stop()


def idle_rate(airflow: LocalAirflow) -> float:
    """Give the CPU seconds a second of an Airflow that has nothing to do, and whose start is long over."""
    before = cpu(airflow)
    time.sleep(IDLE_SECONDS)
    return (cpu(airflow) - before) / IDLE_SECONDS


@dataclass(frozen=True)
class Took:
    """One rollout: the engine's own seconds and CPU seconds, those of the run in Airflow and of all meanwhile."""

    own: float
    own_cpu: float
    through: float
    cpu: float

    @property
    def overhead(self) -> float:
        """Seconds that are neither the engine's nor a soak."""
        return self.through - self.own - WAVES * SOAK


def measure(folder: Path) -> tuple[dict[int, list[Took]], float]:
    """Give what the rollouts of each size took, and the idle Airflow's CPU seconds a second."""
    own: dict[str, tuple[float, float]] = {}
    names = {(hosts, turn): f"bench-{hosts}-{turn}" for turn in range(TURNS) for hosts in SIZES}
    for (hosts, _), name in names.items():
        lay_out(folder, name, hosts)
        before = time.process_time()
        own[name] = asyncio.run(alone(folder, name)), time.process_time() - before
        lay_out(folder, name, hosts)
    taken: dict[int, list[Took]] = {hosts: [] for hosts in SIZES}
    with running(folder) as airflow:
        api = AirflowApi(airflow.url, user="admin", password=airflow.passwords["admin"])
        for (hosts, _), name in names.items():
            taken[hosts].append(Took(*own[name], *through(airflow, api, name)))
            print(f"{hosts} hosts: overhead {taken[hosts][-1].overhead:.0f} s", file=sys.stderr, flush=True)
        idle = idle_rate(airflow)
    return taken, idle


def main() -> int:
    """Print overhead and CPU for each size; exit code 1 when a target is missed."""
    with tempfile.TemporaryDirectory() as place:
        taken, idle = measure(Path(place))
    overhead, burnt = {}, {}
    for hosts, runs in taken.items():
        own, own_cpu, whole = (
            statistics.median(values) for values in zip(*((r.own, r.own_cpu, r.through) for r in runs), strict=True)
        )
        overhead[hosts] = statistics.median(r.overhead for r in runs)
        burnt[hosts] = statistics.median(r.cpu - idle * r.through for r in runs) / WAVES
        print(
            f"{hosts:>4} hosts: {whole:.0f} s through Airflow, {own:.1f} s by the engine alone, "
            f"{WAVES * SOAK:.0f} s of soaks; overhead {overhead[hosts]:.0f} s (at most {MOST_SECONDS:.0f}; "
            f"{min(r.overhead for r in runs):.0f} to {max(r.overhead for r in runs):.0f} in {len(runs)} runs), "
            f"{burnt[hosts]:.1f} CPU-s a wave, the engine's own {own_cpu / WAVES:.1f} among them"
        )
    few, many = SIZES
    print(f"an idle Airflow burns {idle:.2f} of a core, which is not counted")
    growths = overhead[many] / overhead[few], burnt[many] / burnt[few]
    print(
        f"with {many} hosts ÷ with {few}: overhead {growths[0]:.2f}, CPU {growths[1]:.2f} (each at most {MOST_GROWTH})"
    )
    return 0 if max(overhead.values()) <= MOST_SECONDS and max(growths) <= MOST_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
