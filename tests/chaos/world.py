"""The world of one run: hosts, policy and ledger that outlive every engine, and the tasks of a DAG run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from chaos.hosts import HostChannel, Hosts
from chaos.ledgers import LedgerPlace
from chaos.schedule import Schedule
from patching.channels.base import Channel
from patching.drivers.base import PatchDriver
from patching.drivers.simulated import SimulatedDriver
from patching.ledger.base import Ledger
from patching.ledger.store import SqlLedger, open_ledger
from patching.policy import Policy
from patching.rollout.answers import Request
from patching.rollout.approval import approval_request, decide, prepare
from patching.rollout.closing import close_run, verify
from patching.rollout.discovery import discover
from patching.rollout.gates import approved, gate
from patching.rollout.judging import judge
from patching.rollout.planning import make_plan
from patching.rollout.record import frozen_plan, rollout_of_run
from patching.rollout.site import Site
from patching.rollout.undoing import undo_wave
from patching.rollout.wave import apply_wave

DAG = "patch__chaos"
LEASE_TTL = 0.6
LONGEST_SOAK = 3.0
ZONES = ("az-a", "az-b", "az-c")
POLICY: dict[str, Any] = {
    "apiVersion": "patching/v1alpha1",
    "kind": "PatchPolicy",
    "metadata": {"name": "chaos"},
    "spec": {
        "mode": "apply",
        "driver": {"name": "simulated", "connection": "fleet"},
        "targets": {"inventory": "fleet.json"},
        "patches": {"securityOrigins": ["Lab-Security:*"]},
        "approval": {"required": 0},
        "reboot": {"timeout": "20s"},
        "onFailure": {"retry": {"times": 2, "wait": "100ms", "longest": "1s"}},
    },
}
WAVES = [{"canary": {"count": 1}, "soak": "0s"}, {"size": "100%", "soak": "0s"}]


class Fleet(Protocol):
    """The hosts of a run, as the harness sees and misleads them."""

    folder: Path

    def channel(self) -> Channel: ...
    def driver(self) -> PatchDriver: ...
    def installed(self, name: str) -> Mapping[str, str]: ...
    def out(self, name: str) -> bool: ...
    def markers(self, name: str) -> list[str]: ...
    def trouble(self, name: str, act: str, seconds: float) -> None: ...
    def healed(self, name: str) -> None: ...
    def address(self, name: str) -> dict[str, Any]: ...
    def policy(self) -> dict[str, str]: ...


class SimulatedHosts(Hosts):
    """The hosts in files, with the troubles that can befall them."""

    def channel(self) -> Channel:
        return HostChannel(self)

    def driver(self) -> PatchDriver:
        return SimulatedDriver()

    def installed(self, name: str) -> Mapping[str, str]:
        with self.locked(name):
            found: dict[str, str] = self.passed(name)["installed"]
        return found

    def out(self, name: str) -> bool:
        return bool(self.state(name).get("out"))

    def address(self, name: str) -> dict[str, Any]:
        return {"ansible_host": "127.0.0.1"}

    def policy(self) -> dict[str, str]:
        return {"service": "service", "smoke": "true"}

    def trouble(self, name: str, act: str, seconds: float) -> None:
        """Let one fault happen to one host; it ends by itself."""
        until = datetime.now(UTC).timestamp() + seconds
        changes = {
            "cut": {"cuts": 1 + round(seconds * 4)},
            "cut-after": {"cuts_after": 1},
            "dark": {"dark_until": until},
            "disk-full": {"full_until": until},
        }
        if act == "reboot":
            self.reboot(name)
        else:
            self.change(name, **changes[act])


class World:
    """Everything of one run that lies outside of the engines."""

    def __init__(self, folder: Path, plan: Schedule, fleet: Fleet, place: LedgerPlace) -> None:
        self.folder = folder
        self.place = place
        self.plan = plan
        self.fleet = fleet
        self.names = [f"web-{number:02d}" for number in range(1, plan.hosts + 1)]
        document = {**POLICY, "spec": {**POLICY["spec"], **plan.policy(**fleet.policy())}}
        document["spec"]["rollout"] = {"failureDomain": "az", "waves": WAVES, **document["spec"]["rollout"]}
        self.policy = Policy.model_validate(document)

    def zone(self, name: str) -> str:
        """Give the failure domain of a host."""
        return ZONES[self.names.index(name) % self.plan.zones]

    def build(self) -> None:
        """Write the inventory and make the empty ledger."""
        inventories = self.folder / "policies" / "inventories"
        inventories.mkdir(parents=True)
        hostvars = {
            name: {**self.fleet.address(name), "labels": {"az": self.zone(name), "role": "web"}} for name in self.names
        }
        document = {"_meta": {"hostvars": hostvars}, "web": {"hosts": self.names}}
        (inventories / "fleet.json").write_text(json.dumps(document))
        self.place.make()

    def ledger(self, offset: Callable[[], float] = lambda: 0.0) -> SqlLedger:
        """Open the ledger; ``offset`` shifts its clock by seconds."""
        return open_ledger(self.place.url, clock=_shifted(offset))

    @contextmanager
    def looked_up(self) -> Iterator[Ledger]:
        """Open the ledger for a look; no connection stays open for an engine to inherit."""
        ledger = self.ledger()
        try:
            yield ledger
        finally:
            ledger.close()

    def site(self, owner: str, ledger: Ledger, offset: Callable[[], float] = lambda: 0.0) -> Site:
        """Compose what an engine needs; ``offset`` shifts the engine's own clock by seconds."""
        return Site(
            ledger=ledger,
            clock=_shifted(offset),
            connections=None,  # type: ignore[arg-type]
            channel=lambda _name: self.fleet.channel(),
            driver=lambda _name, _options: self.fleet.driver(),
            metrics=_no_metrics,
            policies_dir=self.folder / "policies",
            owner=owner,
            lease_ttl=LEASE_TTL,
            patience=20.0,
            poll=0.02,
        )


def _no_metrics(name: str) -> Any:
    raise AssertionError(f"this policy asks for no metrics, but {name} was asked for")


def _shifted(offset: Callable[[], float]) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(seconds=offset())


async def carry_out(world: World, site: Site, run: str) -> str:
    """Do the tasks of a DAG run in their order, each whatever the one before said; gives how the run ended.

    A run that was interrupted after its plan was approved begins with its waves, as a retried task does.
    """
    rollout = rollout_of_run(site, DAG, run)
    plan = frozen_plan(site, rollout) if rollout is not None else None
    if rollout is None or plan is None or not approved(site, rollout, plan):
        found = await discover(site, world.policy, Request(dag_id=DAG, run_id=run))
        rollout = found.rollout
        if rollout is None:
            return found.sentence
        plan = await make_plan(site, rollout)
        approval_request(site, rollout, run)
        decide(site, rollout, run, [])
        await prepare(site, rollout, run)
    for wave in plan.waves:
        gate(site, rollout, wave.index, run)
        await apply_wave(site, rollout, wave.index, 0, 1, run, lambda: None)
        await _judged(site, rollout, wave.index, run)
        await undo_wave(site, rollout, wave.index, run)
    await verify(site, rollout, run)
    await undo_wave(site, rollout, None, run)
    return close_run(site, DAG, run).sentence


async def _judged(site: Site, rollout: str, wave: int, run: str) -> None:
    """Come back until there is an answer; an engine's clock that jumped back makes a wave soak longer than it lives."""
    for _ in range(round(LONGEST_SOAK / 0.1)):
        answer = await judge(site, rollout, wave, run)
        if answer.verdict is not None or answer.again_at is None:
            return
        await asyncio.sleep(0.1)
