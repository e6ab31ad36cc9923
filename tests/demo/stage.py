"""The stage of the demo and of the end-to-end tests: a lab, its policies and connections, an Airflow on loopback."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lab import Lab

POLICY = "shopfront-security"
USERS = {"admin": "admin", "alice": "op", "bob": "op", "carol": "viewer"}


@dataclass(frozen=True)
class Stage:
    """Where everything of one stage is kept, and how its Airflow is set up."""

    folder: Path
    lab: Lab
    ledger_url: str

    @classmethod
    def make(cls, folder: Path, lab: Lab, ledger_url: str | None = None) -> Stage:
        """Lay out policies and inventories for a lab in a folder that may exist from an earlier time."""
        stage = cls(folder, lab, ledger_url or f"sqlite:///{folder}/ledger.sqlite")
        policies = stage.policies
        shutil.rmtree(policies, ignore_errors=True)
        (policies / "inventories").mkdir(parents=True)
        for source in Path(__file__).with_name("policies").glob("*.yaml"):
            shutil.copy(source, policies / source.name)
        shutil.copy(lab.about["inventory"], policies / "inventories" / "lab.json")
        stage.sync_advisories()
        return stage

    @property
    def policies(self) -> Path:
        """Folder of the policies."""
        return self.folder / "policies"

    def sync_advisories(self) -> None:
        """Copy what the lab has published as advisories, as a feed would bring it."""
        target = self.policies / "advisories"
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("*.json"):
            old.unlink()
        for source in self.lab.advisories.glob("*.json"):
            shutil.copy(source, target / source.name)

    def edit(self, change: tuple[str, str], policy: str = POLICY) -> None:
        """Edit a policy file as a person would: replace one text by another."""
        path = self.policies / f"{policy}.yaml"
        text = path.read_text()
        if change[0] not in text:
            raise ValueError(f"{path} does not have {change[0]!r}")
        path.write_text(text.replace(*change))

    def settings(self) -> dict[str, str]:
        """Give the environment that points Airflow at this stage: ledger, policies, connections."""
        about = self.lab.about
        prometheus = urlsplit(about["prometheus_url"])
        ssh = {
            "conn_type": "ssh",
            "login": about["ssh_user"],
            "extra": {"key_file": about["ssh_key"], "known_hosts_file": about["known_hosts"]},
        }
        prom = {"conn_type": "http", "host": prometheus.hostname, "port": prometheus.port, "schema": "http"}
        return {
            "AIRFLOW__PATCHING__LEDGER_URL": self.ledger_url,
            "AIRFLOW__PATCHING__POLICIES_DIR": str(self.policies),
            "AIRFLOW__PATCHING__GATE_POLL": "2",
            "AIRFLOW_CONN_SSH_LAB": json.dumps(ssh),
            "AIRFLOW_CONN_PROM_LAB": json.dumps(prom),
        }
