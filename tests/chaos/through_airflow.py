"""Seeds through a real Airflow on the lab's hosts: faults at their moments, mended, and what the hosts show judged."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from chaos.airflow_schedule import AirflowFault, AirflowSchedule, airflow_schedule
from chaos.checks import Found, most_at_once
from chaos.run import Result
from e2e.conftest import Run, World
from e2e.evidence import Running, airflow_worker, changes, holds, reported, rollout_of, running
from lab import Lab, LabError
from lab.beside import free_octet
from patching.change import Outcome
from patching.cli.airflow_api import AirflowApiError
from patching.errors import PatchingError
from patching.ledger.base import RolloutRow, TargetRow
from patching.rollout import control, quarantine
from patching.rollout.incidents import incidents, release
from patching.rollout.states import FINAL, RolloutState
from patching_airflow.local import LocalAirflow

LAB_HOSTS = 7
OLD, GOOD, REBOOTS = "1.0.0-1", "1.0.0-1+deb12u1", "1.0.0-1+deb12u3"
LONGEST_RUN = 420.0
RUNS = 5
MENDED = "the fault is mended"


def run_seeds(seeds: list[int], folder: Path) -> list[dict[str, Any]]:
    """Run seeds one after the other on one lab and one Airflow; raises SystemExit where this machine cannot."""
    try:
        lab = Lab.up(LAB_HOSTS, directory=folder / "lab", octet=free_octet(), within=120)
    except LabError as error:
        raise SystemExit(f"no lab of real hosts: {error}") from error
    try:
        world = World(lab, folder / "world")
        try:
            world.start()
            return [_one(world, airflow_schedule(seed)) for seed in seeds]
        finally:
            world.airflow.stop()
    finally:
        lab.down()


def _one(world: World, plan: AirflowSchedule) -> dict[str, Any]:
    began = time.monotonic()
    seed = AirflowSeed(world, plan)
    found = seed.whole()
    steps = sum(len(world.markers(host)) for host in seed.hosts)
    happened, seconds = [str(fault) for fault in seed.happened], time.monotonic() - began
    print(f"seed {plan.seed}: {', '.join(happened) or 'no fault'}; {seconds:.0f} s", file=sys.stderr, flush=True)
    result = Result(plan.seed, "airflow", len(happened), steps, found, seconds, happened)
    return {**result.__dict__, "found": found.__dict__}


class AirflowSeed:
    """One seed: its rollout from the first run to the last."""

    def __init__(self, world: World, plan: AirflowSchedule) -> None:
        self.world = world
        self.plan = plan
        self.policy = f"chaos-{plan.seed}"
        self.hosts = [host.name for host in world.lab.hosts[: plan.hosts]]
        self.pending = list(plan.faults)
        self.due: dict[AirflowFault, float] = {}
        self.repairs: list[tuple[float, Callable[[], None]]] = []
        self.happened: list[AirflowFault] = []
        self.problems: list[str] = []

    def whole(self) -> Found:
        """Do everything; gives what the hosts show afterwards."""
        self._prepare()
        for number in range(RUNS):
            self._run(number)
            if self._over():
                break
            self._person()
        else:
            self.problems.append(f"stuck: the rollout is not over after {RUNS} runs")
        return self._check()

    def _prepare(self) -> None:
        lab, ledger = self.world.lab, self.world.ledger
        for kept in ledger.quarantines(now=ledger.now()):
            quarantine.release(ledger, kept.target, "chaos", MENDED, ledger.now())
        lab.repository.replace({})
        lab.restore()
        lab.publish("v4" if self.plan.reboots else "v2")
        self.world.stage.sync_advisories()
        hook = f'  hooks: [{{command: {{name: slow, enter: "sleep {self.plan.slow}"}}}}]\n  reboot:'
        limit = f"maxUnavailable: {self.plan.limit}"
        self.world.policy(self.policy, self.hosts, ("maxUnavailable: 100%", limit), ("  reboot:", hook))

    def _run(self, number: int) -> None:
        """Let one DAG run go to its end; what is due meanwhile happens, and what is broken afterwards is mended."""
        run = self.world.trigger(f"patch__{self.policy}", {"reason": f"chaos {self.plan.seed}, run {number}"})
        deadline = time.monotonic() + LONGEST_RUN
        while not self._ended(run):
            self._faults()
            self._mend(time.monotonic())
            if time.monotonic() > deadline:
                self.problems.append(f"stuck: run {number} was still at work after {LONGEST_RUN:g} s: {run.tasks()}")
                break
            time.sleep(0.3)
        self._mend()

    def _ended(self, run: Run) -> bool:
        with suppress(AirflowApiError):
            return run.state() in ("success", "failed")
        return False

    def _faults(self) -> None:
        for fault in list(self.pending):
            if fault not in self.due and running(self.world, self.policy, fault.wave):
                self.due[fault] = time.monotonic() + fault.delay
            if self.due.get(fault, float("inf")) <= time.monotonic():
                step = running(self.world, self.policy, fault.wave)
                self.pending.remove(fault)
                if step is not None:
                    self.happened.append(fault)
                    with suppress(psutil.NoSuchProcess):
                        self._do(fault, step)

    def _do(self, fault: AirflowFault, step: Running) -> None:
        """Do a fault, and put down how it is undone."""
        airflow, lab, (verb, _, what) = self.world.airflow, self.world.lab, fault.act.partition("-")
        zone = lab.host(step.host).zone
        if fault.act in ("kill-task", "kill-worker", "kill-worker-and-task"):
            worker = airflow_worker(step.task.parent())
            for process in ([worker] if "worker" in what else []) + ([step.task] if "task" in what else []):
                process.kill()
        elif verb == "kill":
            airflow.kill(what)
            self._later(fault, lambda: _restarted(airflow, what))
        elif verb == "freeze":
            step.task.suspend()
            self._later(fault, lambda: _wake(step.task))
        elif verb in ("cut", "silence"):
            who = zone if what == "zone" else step.host
            lab.cut(who, refuse=verb == "cut")
            self._later(fault, lambda: lab.heal(who))
        elif verb == "power":
            lab.off(step.host)
            self._later(fault, lambda: lab.on(step.host))
        else:
            lab.reset(step.host)

    def _later(self, fault: AirflowFault, repair: Callable[[], None]) -> None:
        self.repairs.append((time.monotonic() + fault.seconds, repair))

    def _mend(self, until: float = float("inf")) -> None:
        """Undo what is due; without ``until`` everything, and wait until every host answers."""
        for due, repair in list(self.repairs):
            if due <= until:
                self.repairs.remove((due, repair))
                repair()
        if until == float("inf"):
            self.world.lab.ready()
            self.world.airflow.ready()

    def _row(self) -> RolloutRow | None:
        return self.world.ledger.rollout(rollout_of(self.world, self.policy))

    def _over(self) -> bool:
        row = self._row()
        if row is None or row.state not in FINAL:
            return False
        if any(lease.rollout == row.id for lease in self.world.ledger.leases()):
            self.world.trigger("patch_reconcile", {}).ends()
        return not any(lease.rollout == row.id for lease in self.world.ledger.leases())

    def _person(self) -> None:
        """Do what only a person may: release an incident; let what is held go on, or have it put back."""
        ledger, row = self.world.ledger, self._row()
        for item in incidents(ledger, policy=self.policy):
            if item.locks:
                release(ledger, item.id, "chaos", MENDED)
        if row is not None and row.state is RolloutState.HELD:
            try:
                control.resume(ledger, row.id, "chaos", MENDED)
            except PatchingError:
                control.undo(ledger, row.id, "chaos", MENDED)

    def _check(self) -> Found:
        found, ledger = Found(wrong=list(self.problems)), self.world.ledger
        rollouts = [row.id for row in ledger.rollouts(limit=1000) if row.policy == self.policy]
        spoken = {host for rollout in rollouts for host in reported(self.world, rollout)}
        found.lost += [f"{host} is not in the report" for host in self.hosts if host not in spoken]
        ids = {item.step_id for rollout in rollouts for item in ledger.intents(rollout=rollout, open_only=False)}
        for host in self.hosts:
            marks = Counter(self.world.markers(host))
            found.twice += [f"{host}: step {step} began {count} times" for step, count in marks.items() if count > 1]
            found.wrong += [f"{host}: step {step} began without an intent" for step in marks if step not in ids]
            self._state(found, host, [row for rollout in rollouts if (row := ledger.target(rollout, host))])
        for zone in {self.world.lab.host(host).zone for host in self.hosts}:
            mine = [host for host in self.hosts if self.world.lab.host(host).zone == zone]
            spans = [span for host in mine for rollout in rollouts for span in changes(self.world, rollout, host)]
            if (most := most_at_once(spans)) > self.plan.limit:
                found.exceeded.append(f"{zone}: {most} hosts were in change at once, the limit is {self.plan.limit}")
        found.wrong += [f"ledger: {problem.chain} {problem.seq}: {problem.message}" for problem in ledger.verify()]
        return found

    def _state(self, found: Found, host: str, rows: list[TargetRow]) -> None:
        """Compare what a host runs with what the ledger says became of it, the newest rollout first."""
        new = REBOOTS if self.plan.reboots else GOOD
        applied = any(row.outcome is Outcome.APPLIED and row.undo_outcome is not Outcome.UNDONE for row in rows)
        told = f"{host} ({'; '.join(f'{row.outcome}, undo {row.undo_outcome}: {row.detail}' for row in rows)})"
        if any(_open(row) for row in rows):
            found.lost.append(f"{told}: nobody knows what became of it")
        version = self.world.versions([host])[host]
        if version != (new if applied else OLD):
            found.wrong.append(f"{told} should be at {new if applied else OLD} and is at {version}")
        if not holds(self.world, host, "systemctl is-active shopfront"):
            found.wrong.append(f"{told}: its service does not run")


def _open(row: TargetRow) -> bool:
    """Whether a target was begun and nobody knows its end; of one that was never begun the host itself tells."""
    begun = row.outcome is Outcome.UNKNOWN or (row.outcome is None and row.began_at is not None)
    return begun and row.undo_outcome is None


def _restarted(airflow: LocalAirflow, name: str) -> None:
    if airflow.processes[name].poll() is not None:
        airflow.restart(name)


def _wake(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()
