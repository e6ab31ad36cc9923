"""The engine put together over the fleet: a real ledger file, real SSH, an upgrade that takes the host's time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from patching.change import Patch, Phase, Reply, Step, StepKind
from patching.channels.ssh import SshChannel
from patching.drivers.simulated import PROBE, SimulatedDriver
from patching.ledger.store import open_ledger
from patching.policy import Policy
from patching.rollout.answers import Request
from patching.rollout.site import Site
from patching.sources.base import Connection
from patching.target import Snapshot, Target

DAG, RUN = "patch__bench", "bench"


class UpgradeDriver(SimulatedDriver):
    """The simulated driver's decisions, carried out by scripts over SSH."""

    def probe(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> list[Step]:
        """Read the host's file."""
        return [] if PROBE in replies else [_step(PROBE, Phase.PROBE, StepKind.READ, "cat /srv/host.json")]

    def steps(
        self, target: Target, phase: Phase, before: Snapshot, now: Snapshot, patches: Sequence[Patch]
    ) -> list[Step]:
        """Upgrade what is not upgraded."""
        if phase is not Phase.APPLY:
            return []
        return [
            _step("upgrade", phase, StepKind.ACT, f"/srv/upgrade {patch.component} {patch.after}")
            for patch in patches
            if now.version(patch.component) != patch.after
        ]


def _step(name: str, phase: Phase, kind: StepKind, script: str) -> Step:
    return Step(name=name, phase=phase, kind=kind, call={"script": script, "sudo": False}, deadline=300.0)


def policy(waves: list[dict[str, Any]]) -> Policy:
    """Give the policy of the bench: no approval, no limit but the window."""
    return Policy.model_validate(
        {
            "apiVersion": "patching/v1alpha1",
            "kind": "PatchPolicy",
            "metadata": {"name": "bench"},
            "spec": {
                "mode": "apply",
                "driver": {"name": "simulated", "connection": "fleet"},
                "targets": {"inventory": "fleet.json", "maxTargets": 10_000},
                "patches": {"securityOrigins": ["Lab-Security:*"]},
                "approval": {"required": 0},
                "rollout": {"maxUnavailable": "100%", "waves": waves, "stopWhen": {"failedTargets": 1}},
            },
        }
    )


def site(place: dict[str, Any], ledger: str, *, concurrency: int) -> Site:
    """Compose the engine as a worker does; the ledger is on and durable."""
    folder = Path(place["folder"])
    connection = Connection(
        id="fleet",
        login=place["user"],
        port=place["port"],
        extra={"key_file": place["client_key"], "known_hosts_file": place["known_hosts"]},
    )
    return Site(
        ledger=open_ledger(ledger),
        clock=lambda: datetime.now(UTC),
        connections=None,  # type: ignore[arg-type]
        channel=lambda _name: SshChannel(connection),
        driver=lambda _name, _options: UpgradeDriver(),
        metrics=lambda _name: None,  # type: ignore[arg-type,return-value]
        policies_dir=folder / "policies",
        owner="bench-worker",
        concurrency=concurrency,
    )


def inventory(place: dict[str, Any]) -> None:
    """Write the inventory as ``ansible-inventory --list`` gives it."""
    folder = Path(place["folder"]) / "policies" / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    hostvars = {item["name"]: {"ansible_host": item["address"]} for item in place["hosts"]}
    document = {"_meta": {"hostvars": hostvars}, "all": {"hosts": list(hostvars)}}
    (folder / "fleet.json").write_text(json.dumps(document))


REQUEST = Request(dag_id=DAG, run_id=RUN)
