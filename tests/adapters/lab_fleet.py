"""A whole rollout without Airflow on the lab's real hosts: real apt, SSH, Prometheus and SQLite."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab import Lab
from ledger_suite.empty import place_empty_ledger
from patching.channels.ssh import SshChannel
from patching.drivers.apt import AptDriver
from patching.drivers.apt_options import AptOptions
from patching.errors import ConnectionMissing
from patching.ledger.store import open_ledger
from patching.policy import Policy
from patching.rollout.answers import JudgeAnswer, Request
from patching.rollout.reconcile import reconcile
from patching.rollout.site import Site
from patching.sources.base import Connection
from patching.sources.prometheus import PrometheusSource
from unit.rollout.fleet import Fleet, merged

MARKERS = "/var/lib/patching/markers.log"
CHECKS: list[dict[str, Any]] = [
    {"name": "front-page", "http": {"url": "http://{address}:8000/healthz"}},
    {"name": "unit", "unit": {"active": ["shopfront"]}},
]
MEASURED: list[dict[str, Any]] = [
    *CHECKS,
    {
        "name": "errors",
        "prometheus": {
            "connection": "prom_lab",
            "series": {"instance": "{name}"},
            "errors": 'http_requests_total{code=~"5..",$series}',
            "requests": "http_requests_total{$series}",
            "before": "10s",
        },
        "compare": {"against": ["control", "before", "threshold"], "threshold": "2%"},
    },
]
POLICY: dict[str, Any] = {
    "apiVersion": "patching/v1alpha1",
    "kind": "PatchPolicy",
    "metadata": {"name": "web"},
    "spec": {
        "mode": "apply",
        "driver": {"name": "apt", "connection": "ssh_lab", "options": {"lockTimeout": "5s"}},
        "targets": {"inventory": "web.json"},
        "patches": {"securityOrigins": ["Lab-Security:*"]},
        "approval": {"required": 0},
        "rollout": {
            "maxUnavailable": "100%",
            "waves": [{"canary": {"count": 1}, "soak": "1s"}, {"size": "100%"}],
            "stopWhen": {"failedTargets": 1},
        },
        "verify": CHECKS,
    },
}
SLOW_HOOK = {"command": {"name": "slow", "enter": "sleep 3"}}


class PresentMoment:
    """The real clock, with the attribute that a kept fleet writes down."""

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class LabConnections:
    """Connections to the lab; ``known_hosts`` is a copy that a test may edit."""

    def __init__(self, lab: Lab, known_hosts: Path) -> None:
        prometheus = urlsplit(lab.about["prometheus_url"])
        extra = {"key_file": lab.about["ssh_key"], "known_hosts_file": str(known_hosts)}
        self.known = {
            "ssh_lab": Connection(id="ssh_lab", login=lab.about["ssh_user"], extra=extra),
            "prom_lab": Connection(id="prom_lab", host=prometheus.hostname, port=prometheus.port, schema_="http"),
        }

    def get(self, connection_id: str) -> Connection:
        if connection_id not in self.known:
            raise ConnectionMissing(connection_id)
        return self.known[connection_id]


class LabFleet(Fleet):
    """Some hosts of the lab with a policy and a ledger of their own."""

    def __init__(self, lab: Lab, folder: Path, hosts: Sequence[str], **spec: Any) -> None:
        self.lab = lab
        self.names = list(hosts)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(lab.about["known_hosts"], folder / "known_hosts")
        self.compose(folder, PresentMoment(), Policy.model_validate(merged(POLICY, {"spec": spec})))  # type: ignore[arg-type]
        self.inventory()
        self.request = Request(dag_id="patch__web", run_id="run-1")
        self.rollout = ""
        if any(check.metric is not None for check in self.policy.spec.verify):
            lab.eventually("Prometheus has seen every host's requests", 60, self._measured)

    def _measured(self) -> bool:
        """Whether Prometheus knows every host: a lab that is just up has not been scraped yet."""
        series = self.lab.prometheus(f'http_requests_total{{instance=~"{"|".join(self.names)}"}}')
        return {one["metric"]["instance"] for one in series} == set(self.names)

    def compose(self, folder: Path, clock: Any, policy: Policy) -> None:
        self.folder, self.clock, self.policy = folder, clock, policy
        self.known_hosts = folder / "known_hosts"
        self.ledger = open_ledger(place_empty_ledger(folder / "ledger.sqlite"))
        self.said: list[str] = []
        connections = LabConnections(self.lab, self.known_hosts)
        self.site = Site(
            ledger=self.ledger,
            clock=clock,
            connections=connections,
            channel=partial(SshChannel.named, source=connections),
            driver=lambda _name, options: AptDriver(AptOptions.model_validate(options)),
            metrics=lambda name: PrometheusSource(connections.get(name)),
            policies_dir=folder / "policies",
            owner="worker-1",
            log=self.said.append,
            lease_ttl=2.0,
            patience=60.0,
            poll=0.2,
        )

    @classmethod
    def reopen(cls, folder: Path) -> LabFleet:
        """Open the fleet of a folder in another process."""
        kept = json.loads((folder / "fleet.json").read_text())
        fleet = cls.__new__(cls)
        fleet.lab = Lab.attach((folder / "lab").read_text())
        fleet.compose(folder, PresentMoment(), Policy.model_validate(kept["policy"]))
        fleet.names, fleet.rollout = kept["names"], kept["rollout"]
        fleet.request = Request.model_validate(kept["request"])
        return fleet

    def keep(self) -> None:
        super().keep()
        (self.folder / "lab").write_text(self.lab.about["directory"])

    def inventory(self) -> None:
        folder = self.folder / "policies" / "inventories"
        folder.mkdir(parents=True, exist_ok=True)
        whole = json.loads(Path(self.lab.about["inventory"]).read_text())["_meta"]["hostvars"]
        document = {"_meta": {"hostvars": {name: whole[name] for name in self.names}}, "web": {"hosts": self.names}}
        (folder / "web.json").write_text(json.dumps(document))

    async def judge(self, wave: int) -> JudgeAnswer:
        """Judge as Airflow's deferring task does: come back when the soak is over."""
        while True:
            answer: JudgeAnswer = await super().judge(wave)
            if answer.verdict is not None or answer.again_at is None:
                return answer
            await asyncio.sleep(max(0.0, (answer.again_at - self.clock()).total_seconds()))

    def canary(self) -> str:
        return next(item.target.name for item in self.frozen.targets if item.wave == 1)

    def excluded(self) -> dict[str, str]:
        return {item.target: item.code for item in self.frozen.exclusions}

    def why(self, name: str) -> str:
        return next(item.reason for item in self.frozen.exclusions if item.target == name)

    def versions(self) -> dict[str, str]:
        return {name: self.lab.versions(name)["shopfront"] for name in self.names}

    def shell(self, host: str, script: str) -> str:
        return self.lab.run(host, ["sh", "-c", script], check=True).stdout

    def markers(self, host: str) -> list[str]:
        """Give the ids of the steps whose payload really began on a host, in order."""
        return [line.split()[0] for line in self.shell(host, f"cat {MARKERS} 2>/dev/null || true").splitlines()]

    def twice(self) -> list[str]:
        return [found for name in self.names for found in self.begun_twice_or_never(name)]

    def begun_twice_or_never(self, host: str) -> list[str]:
        """Give steps of the ledger that did not begin exactly once on a host, and those it shows that no intent has."""
        found, ids = self.markers(host), [item.step_id for item in self.intents(host)]
        return [name for name in {*found, *ids} if found.count(name) != 1 or name not in ids]

    def intents(self, host: str) -> list[Any]:
        return list(self.ledger.intents(rollout=self.rollout, target=host, open_only=False))

    async def until_free(self) -> None:
        """Reconcile, as Airflow does every two minutes, until no lease is left: a dead worker's has to expire first."""
        async with asyncio.timeout(30):
            while self.ledger.leases():
                await reconcile(self.site)
                await asyncio.sleep(self.site.poll)

    async def eventually(self, what: str, true: Callable[[], Any], within: float = 30) -> Any:
        """Wait off the event loop, so that the rollout under test goes on."""
        return await asyncio.to_thread(self.lab.eventually, what, within, true)

    async def on_host(self, host: str, test: str, within: float = 30) -> None:
        """Wait until a shell test holds on a host."""
        await self.eventually(f"{host}: {test}", lambda: self.lab.run(host, ["sh", "-c", test]).code == 0, within)
