"""A whole rollout without Airflow: a simulated fleet, a real SQLite ledger, and the tasks of a run in their order."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from ledger_suite.empty import place_empty_ledger
from patching.change import Refusal
from patching.channels.simulated import SimulatedChannel, SimulatedFleet
from patching.drivers.simulated import SimulatedDriver
from patching.errors import ConnectionMissing, MetricSourceUnavailable
from patching.ledger.store import open_ledger
from patching.policy import Policy
from patching.rollout.answers import Answer, Closing, Discovered, Request, VerdictName
from patching.rollout.approval import approval_request, decide, prepare
from patching.rollout.closing import close_run, verify
from patching.rollout.discovery import discover
from patching.rollout.error_budget import record_budgets
from patching.rollout.gates import gate
from patching.rollout.judging import judge
from patching.rollout.planning import make_plan
from patching.rollout.site import Site
from patching.rollout.undoing import undo_wave
from patching.rollout.wave import apply_wave
from patching.sources.base import Connection, Sample

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Moment:
    """A clock that a test moves."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=10)
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)

    async def pause(self, seconds: float) -> None:
        """Let time pass at once, and other tasks have their turn."""
        self.advance(seconds=seconds)
        await asyncio.sleep(0)


class NoConnections:
    """Nobody has defined a connection."""

    def get(self, connection_id: str) -> Connection:
        raise ConnectionMissing(f'connection "{connection_id}" does not exist')


@dataclass
class Metrics:
    """A metric source whose error share, from the test's start on, a test sets per target."""

    errors: dict[str, float] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    down: bool = False
    share: float = 0.0
    burning: set[float] = field(default_factory=set)
    """Error share of the whole service, in every window or (``burning``) in some (seconds)."""
    refusals: list[Refusal] = field(default_factory=list)
    renamed: set[str] = field(default_factory=set)
    """Selectors whose name the source does not know."""

    scraped: float | None = None
    """Seconds between the scrapes, where the source can tell."""

    async def interval(self, matchers, selector, at):  # type: ignore[no-untyped-def]
        if self.down:
            raise MetricSourceUnavailable("the metric source does not answer (simulated)")
        return self.scraped

    async def unknown(self, selector, at):  # type: ignore[no-untyped-def]
        return selector if selector in self.renamed else None

    async def validate(self, matchers, errors, requests, at):  # type: ignore[no-untyped-def]
        if self.down:
            raise MetricSourceUnavailable("the metric source does not answer (simulated)")
        return list(self.refusals)

    async def total(self, selector, seconds, at):  # type: ignore[no-untyped-def]
        if self.down:
            raise MetricSourceUnavailable("the metric source does not answer (simulated)")
        share = self.share if not self.burning or seconds in self.burning else 0.0
        return seconds * (share if selector.startswith("e") else 1.0)

    async def increases(self, matchers, errors, requests, start, end):  # type: ignore[no-untyped-def]
        if self.down:
            raise MetricSourceUnavailable("the metric source does not answer (simulated)")
        return [self._sample(name, start, end) for name in matchers]

    async def points(self, matchers, errors, requests, start, end, count):  # type: ignore[no-untyped-def]
        return await self.increases(matchers, errors, requests, start, end)

    def _sample(self, name: str, start: datetime, end: datetime) -> Sample:
        if name in self.silent:
            return Sample(target=name, start=start, end=end, errors=None, requests=None)
        share = self.errors.get(name, 0.0) if start >= START else 0.0
        return Sample(target=name, start=start, end=end, errors=1000 * share, requests=1000.0)


POLICY: dict[str, Any] = {
    "apiVersion": "patching/v1alpha1",
    "kind": "PatchPolicy",
    "metadata": {"name": "web"},
    "spec": {
        "mode": "apply",
        "driver": {"name": "simulated", "connection": "fleet"},
        "targets": {"inventory": "web.json"},
        "patches": {"securityOrigins": ["Lab-Security:*"]},
        "approval": {"required": 0},
        "rollout": {
            "failureDomain": "az",
            "maxUnavailable": "100%",
            "waves": [{"canary": {"count": 1}}, {"size": "50%"}, {"size": "100%"}],
            "stopWhen": {"failedTargets": 2},
        },
        "verify": [
            {
                "name": "errors",
                "prometheus": {"connection": "prom", "errors": "e{$series}", "requests": "r{$series}"},
            }
        ],
    },
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries; lists are replaced."""
    out = dict(base)
    for key, value in changes.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


class Fleet:
    """Hosts, policy, ledger and the tasks of runs."""

    def __init__(self, folder: Path, hosts: int = 6, **spec: Any) -> None:
        self.names = [f"web-{number:02d}" for number in range(1, hosts + 1)]
        self.compose(folder, Moment(), Policy.model_validate(merged(POLICY, {"spec": spec})))
        for name in self.names:
            self.hosts.add(name, installed={"shop": "1.0"}, offers={"shop": "1.1"})
        self.inventory()
        self.request = Request(dag_id="patch__web", run_id="run-1")
        self.rollout = ""

    def compose(self, folder: Path, clock: Moment, policy: Policy) -> None:
        """Put the site together on a folder."""
        self.folder = folder
        self.hosts = SimulatedFleet(folder / "hosts")
        self.clock = clock
        self.metrics = Metrics()
        self.policy = policy
        self.ledger = open_ledger(place_empty_ledger(folder / "ledger.sqlite"), clock=self.clock)
        self.site = Site(
            ledger=self.ledger,
            clock=self.clock,
            connections=NoConnections(),
            channel=lambda _name: SimulatedChannel(self.hosts),
            driver=lambda _name, _options: SimulatedDriver(),
            metrics=lambda _name: self.metrics,
            policies_dir=folder / "policies",
            owner="worker-1",
            lease_ttl=5.0,
            patience=5.0,
            poll=0.02,
            pause=self.clock.pause,
        )

    @classmethod
    def reopen(cls, folder: Path) -> Fleet:
        """Open the fleet of a folder in another process, with the clock where its ledger stands."""
        kept = json.loads((folder / "fleet.json").read_text())
        fleet = cls.__new__(cls)
        fleet.compose(folder, Moment(datetime.fromisoformat(kept["now"])), Policy.model_validate(kept["policy"]))
        fleet.names, fleet.rollout = kept["names"], kept["rollout"]
        fleet.request = Request.model_validate(kept["request"])
        return fleet

    def keep(self) -> None:
        """Write down what another process needs to go on."""
        kept = {
            "now": self.clock.now.isoformat(),
            "policy": self.policy.model_dump(mode="json"),
            "names": self.names,
            "rollout": self.rollout,
            "request": self.request.model_dump(mode="json"),
        }
        (self.folder / "fleet.json").write_text(json.dumps(kept))

    def inventory(self) -> None:
        """Write the inventory as ``ansible-inventory --list`` gives it."""
        folder = self.folder / "policies" / "inventories"
        folder.mkdir(parents=True, exist_ok=True)
        zones = ["az-a", "az-b", "az-c"]
        hostvars = {
            name: {"ansible_host": "127.0.0.1", "labels": {"az": zones[index % 3], "role": "web"}}
            for index, name in enumerate(self.names)
        }
        document = {"_meta": {"hostvars": hostvars}, "web": {"hosts": self.names}}
        (folder / "web.json").write_text(json.dumps(document))

    def new_run(self, run_id: str, **asked: Any) -> None:
        """Begin another DAG run of the policy."""
        self.request = Request(dag_id="patch__web", run_id=run_id, **asked)

    def going_dark(self, name: str, phase: str = "apply") -> None:
        """Let a host stop answering as soon as a step of a phase has begun on it; ``as_before`` ends that."""
        self._calm = self.site

        def crash(point: str) -> None:
            intents = self.ledger.intents(rollout=self.rollout, target=name)
            if point == "started" and any(item.step["phase"] == phase for item in intents):
                self.hosts.change(name, offline=True)

        self.site = replace(self.site, crash=crash)

    def as_before(self) -> None:
        """End ``going_dark``."""
        self.site = self._calm

    def as_worker(self, owner: str) -> Self:
        """Give the same fleet as another worker sees it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.site = replace(self.site, owner=owner)
        return other

    async def discover(self) -> Discovered:
        found = await discover(self.site, self.policy, self.request)
        self.rollout = found.rollout
        return found

    async def plan(self) -> None:
        await self.discover()
        self.frozen = await make_plan(self.site, self.rollout)
        self.keep()

    async def approve(self, *people: str) -> bool:
        approval_request(self.site, self.rollout, self.request.run_id)
        answers = [Answer(person=name, approved=True, at=self.clock()) for name in people]
        decision = decide(self.site, self.rollout, self.request.run_id, answers)
        await prepare(self.site, self.rollout, self.request.run_id)
        return decision.approved

    async def begin(self) -> None:
        """Discover, plan and approve."""
        await self.plan()
        await self.approve()

    async def gate(self, wave: int):  # type: ignore[no-untyped-def]
        await record_budgets(self.site, self.rollout, wave)
        return gate(self.site, self.rollout, wave, self.request.run_id)

    async def apply(self, wave: int, stop=lambda: None):  # type: ignore[no-untyped-def]
        return await apply_wave(self.site, self.rollout, wave, 0, 1, self.request.run_id, stop)

    async def judge(self, wave: int):  # type: ignore[no-untyped-def]
        return await judge(self.site, self.rollout, wave, self.request.run_id)

    async def undo(self, wave: int | None):  # type: ignore[no-untyped-def]
        return await undo_wave(self.site, self.rollout, wave, self.request.run_id)

    async def wave(self, wave: int) -> VerdictName | None:
        """Do the four tasks of one wave, as Airflow does them whatever the one before said."""
        await self.gate(wave)
        await self.apply(wave)
        answer = await self.judge(wave)
        await self.undo(wave)
        return answer.verdict

    async def finish(self) -> Closing:
        """Do the tasks after the waves."""
        await verify(self.site, self.rollout, self.request.run_id)
        await self.undo(None)
        return close_run(self.site, self.request.dag_id, self.request.run_id)

    async def whole(self, waves: int = 3) -> Closing:
        """Do a whole run."""
        await self.begin()
        for number in range(1, waves + 1):
            await self.wave(number)
        return await self.finish()

    @property
    def state(self) -> str:
        row = self.ledger.rollout(self.rollout)
        return row.state.value if row else "-"

    def outcomes(self) -> dict[str, str]:
        """Give every target's outcome as the ledger has it."""
        return {row.target: (row.outcome or row.state).value for row in self.ledger.targets(self.rollout)}

    def versions(self) -> dict[str, str]:
        """Give what is installed, as the hosts have it."""
        return {name: self.hosts.state(name)["installed"]["shop"] for name in self.names}

    def twice(self) -> list[str]:
        """Give steps that ran more than once on any host."""
        marks = [mark for name in self.names for mark in self.hosts.markers(name)]
        return [mark for mark in set(marks) if marks.count(mark) > 1]
