"""Undo safety on real hosts with real packages: the drill is the proof, and what is restored has to show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.lab_fleet import LabFleet
from lab import Lab
from patching.errors import TransitionRefused
from patching.report.drill_legs import drill_legs
from patching.rollout import control
from patching.rollout.answers import VerdictName
from patching.rollout.incidents import incidents

pytest_plugins = ["lab.fixtures"]
pytestmark = pytest.mark.lab

V1, V2 = "1.0.0-1", "1.0.0-1+deb12u1"
HOSTS = ("web-01", "web-02")
BACKUP = {"command": {"name": "dump", "enter": "dpkg-query -W libshop >> /root/dumps"}, "backup": True}
MIGRATES = {"match": ["libshop"], "reason": "its data are migrated"}

Make = Callable[..., LabFleet]


@pytest.fixture
def fleet_of(lab: Lab, tmp_path: Path) -> Make:
    """Make a fleet of two hosts that are as new, with the good release published and part of it irreversible."""

    def make(accept: dict[str, str], **spec: Any) -> LabFleet:
        lab.repository.replace({})
        lab.restore(*HOSTS)
        lab.publish("v2")
        patches = {"securityOrigins": ["Lab-Security:*"], "irreversible": [{**MIGRATES, "accept": accept}]}
        return LabFleet(lab, tmp_path / "fleet", HOSTS, patches=patches, **spec)

    return make


async def begin(fleet: LabFleet) -> str:
    await fleet.plan()
    assert await fleet.approve("eva"), "a person must approve, though the policy asks for nobody"
    await fleet.gate(1)
    return fleet.canary()


async def test_the_drill_takes_a_backup_changes_undoes_verifies_and_changes_again(fleet_of: Make) -> None:
    fleet = fleet_of({}, hooks=[BACKUP], rollout={"drill": True})
    canary = await begin(fleet)
    await fleet.apply(1)
    entries = fleet.ledger.entries(fleet.rollout)
    legs = drill_legs(entries)
    assert [leg.split(" at ")[0].removeprefix(f"{canary} ") for leg in legs] == [
        "changed",
        "undone, and verified by what it runs and by the checks,",
        "changed again",
    ]
    dumped = fleet.shell(canary, "cat /root/dumps").split()
    assert dumped == ["libshop", V1, "libshop", V1], "a backup before each change, of the old version"
    assert fleet.versions()[canary] == V2
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE
    assert fleet.twice() == []
    control.abort(fleet.ledger, fleet.rollout, "eva", "the old one was better")
    control.undo(fleet.ledger, fleet.rollout, "eva", "the drill proved that it can be undone")
    await fleet.undo(None)
    assert (fleet.state, set(fleet.versions().values())) == ("undone", {V1})


async def test_irreversible_packages_are_held_and_only_a_host_that_shows_its_restore_is_undone(fleet_of: Make) -> None:
    fleet = fleet_of({"withoutBackup": "a replica", "withoutDrill": "tried in staging"})
    canary = await begin(fleet)
    await fleet.apply(1)
    fleet.shell(canary, "systemctl stop shopfront")
    answer = await fleet.judge(1)
    await fleet.undo(1)
    assert (answer.verdict, fleet.state) == (VerdictName.HOLD, "held"), answer.sentence
    (found,) = incidents(fleet.ledger)
    assert "libshop:all cannot be undone (declared in the policy: its data are migrated)" in found.cause
    with pytest.raises(TransitionRefused, match="its data are migrated"):
        control.undo(fleet.ledger, fleet.rollout, "eva", "back!")
    control.undo(fleet.ledger, fleet.rollout, "eva", "I thought it was restored", restored=[canary])
    await fleet.undo(None)
    assert (fleet.state, fleet.versions()[canary]) == ("held", V2), "it was looked at, and nothing was tried"
    assert not [item for item in fleet.intents(canary) if item.step["phase"] == "undo"]
    old = " ".join(f"/var/lib/patching/store/{name}_{V1}_all.deb" for name in ("libshop", "shopfront"))
    fleet.shell(canary, f"apt-get install -y -q --allow-downgrades {old} && systemctl restart shopfront")
    control.undo(fleet.ledger, fleet.rollout, "eva", "restored by hand", restored=[canary])
    await fleet.undo(None)
    assert (fleet.state, set(fleet.versions().values())) == ("undone", {V1})
    assert fleet.ledger.verify() == []
