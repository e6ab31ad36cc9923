"""A host that does not come back from its reboot is lost: none of its hardware class begins after it (F2, F6)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from patching.change import Step
from patching.channels.base import Handle, Progress, Session
from patching.channels.simulated import SimulatedChannel, SimulatedSession
from patching.errors import TargetOffline
from patching.ledger.entry import EntryKind
from patching.rollout.answers import VerdictName
from patching.rollout.causes import LOST_IN_REBOOT
from patching.rollout.control import resume
from patching.rollout.losses import loss_in_the_way
from patching.target import Target
from unit.rollout.fleet import Fleet


def kernel_fleet(tmp_path: Path, hardware: dict[str, str], **reboot: object) -> Fleet:
    """Make a fleet that has to reboot one by one, with its hardware labels."""
    fleet = Fleet(tmp_path, hosts=6, verify=[], reboot={"timeout": "5s", "maxConcurrent": 3, **reboot},
                  rollout={"waves": [{"canary": {"count": 1}}, {"size": "100%"}]})  # fmt: skip
    for name in fleet.names:
        fleet.hosts.add(name, installed={"kernel": "6.1", "shop": "1.0"}, offers={"kernel": "6.2"})
    path = fleet.folder / "policies" / "inventories" / "web.json"
    document = json.loads(path.read_text())
    for name, kind in hardware.items():
        document["_meta"]["hostvars"][name]["labels"]["hardware"] = kind
    path.write_text(json.dumps(document))
    fleet.site = replace(fleet.site, concurrency=1)
    return fleet


async def first_is_lost(fleet: Fleet) -> list[str]:
    """Plan, patch the canary, and lose the first host of wave 2; gives wave 2 in its order."""
    await fleet.begin()
    await fleet.wave(1)
    await fleet.gate(2)
    order = list(fleet.frozen.waves[1].targets)
    fleet.hosts.change(order[0], stays_dark=True)
    await fleet.apply(2)
    return order


async def relabelled(tmp_path: Path, kinds: list[str | None], **reboot: object) -> tuple[Fleet, list[str]]:
    """Give the hosts of wave 2 these hardware labels, in the order in which they will be changed."""
    known = kernel_fleet(tmp_path / "order", {})
    await known.begin()
    order = known.frozen.waves[1].targets
    labels = {name: kind for name, kind in zip(order, kinds, strict=True) if kind is not None}
    fleet = kernel_fleet(tmp_path / "fleet", labels, **reboot)
    return fleet, await first_is_lost(fleet)


def kernels(fleet: Fleet, names: list[str]) -> list[str]:
    return [fleet.hosts.state(name)["installed"]["kernel"] for name in names]


class GoneWithTheReboot(SimulatedSession):
    """A connection that breaks as its host reboots, so that nobody sees the end of that step."""

    async def wait(self, handle: Handle, step: Step) -> Progress:
        if step.expects_reboot:
            raise TargetOffline(f"{self.name} reboots (simulated)")
        return await super().wait(handle, step)


class BreakingChannel(SimulatedChannel):
    async def open(self, target: Target, *, deadline: float = 30.0) -> Session:
        return GoneWithTheReboot(self.fleet, target.name)


async def test_reboot_whose_connection_broke_has_its_outcome_once_the_host_is_back(tmp_path: Path) -> None:
    """An intent alone means unknown: no target may end as applied with one."""
    fleet = kernel_fleet(tmp_path, {})
    await fleet.begin()
    await fleet.gate(1)
    fleet.site = replace(fleet.site, channel=lambda _name: BreakingChannel(fleet.hosts))
    await fleet.apply(1)
    (canary,) = fleet.frozen.waves[0].targets
    assert fleet.outcomes()[canary] == "applied"
    assert fleet.ledger.intents(rollout=fleet.rollout, target=canary, open_only=True) == []
    ends = [entry.body for entry in fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.STEP_OUTCOME], target=canary)]
    assert [(end["phase"], end["attach"], end["ok"]) for end in ends][-1] == ("activate", "rebooted", True)


async def test_none_of_the_same_hardware_begins_and_the_others_go_on(tmp_path: Path) -> None:
    fleet, order = await relabelled(tmp_path, ["r640", "r640", "r750", "r640", "r750"])
    row = fleet.ledger.target(fleet.rollout, order[0])
    assert row is not None
    assert (row.outcome, row.signature) == ("unknown", LOST_IN_REBOOT)
    assert kernels(fleet, order[1:]) == ["6.1", "6.2", "6.1", "6.2"]
    answer = await fleet.judge(2)
    assert answer.verdict is VerdictName.HOLD
    lost = f"{order[0]} has not come back from a reboot: no other of hardware r640 begins"
    assert answer.sentence == f"budget reboot.lossClass is spent: {lost}"
    await fleet.undo(2)
    assert fleet.state == "held"
    assert "6.1" not in kernels(fleet, [order[2], order[4]])


@pytest.mark.parametrize("kinds", [[None] * 5, [None, "r640", "r640", "r750", "r750"]])
async def test_lost_host_without_the_label_stands_for_the_whole_wave(tmp_path: Path, kinds: list[str | None]) -> None:
    fleet, order = await relabelled(tmp_path, kinds)
    assert kernels(fleet, order[1:]) == ["6.1"] * 4
    assert "no other of this wave begins" in (await fleet.judge(2)).sentence


async def test_host_of_unknown_hardware_may_be_of_the_lost_class(tmp_path: Path) -> None:
    fleet, order = await relabelled(tmp_path, ["r640", None, "r750", None, None])
    assert kernels(fleet, order[1:]) == ["6.1", "6.2", "6.1", "6.1"]


async def test_none_that_must_reboot_begins_while_a_lost_host_has_the_last_place(tmp_path: Path) -> None:
    fleet, order = await relabelled(tmp_path, ["r640", "r750", "r750", "r750", "r750"], maxConcurrent=1)
    assert kernels(fleet, order[1:]) == ["6.1"] * 4
    assert (await fleet.judge(2)).verdict is VerdictName.HOLD


async def test_lost_host_keeps_its_places_and_is_settled_first_when_it_is_back(tmp_path: Path) -> None:
    fleet, order = await relabelled(tmp_path, [None] * 5)
    (lease,) = fleet.ledger.leases()
    assert lease.target == order[0]
    assert {claim.kind for claim in lease.claims} == {"target", "domain", "reboot"}
    await fleet.judge(2)
    fleet.hosts.change(order[0], offline=False, stays_dark=False)
    resume(fleet.ledger, fleet.rollout, "alice", "somebody pressed the power button")
    fleet.new_run("run-2")
    await fleet.discover()
    assert await fleet.wave(2) is VerdictName.PROMOTE
    assert set(kernels(fleet, fleet.names)) == {"6.2"}
    assert not fleet.twice()
    assert fleet.ledger.leases() == []
    assert (await fleet.finish()).good


async def test_host_that_answers_but_did_not_reboot_has_failed_and_is_not_lost(tmp_path: Path) -> None:
    fleet = kernel_fleet(tmp_path, {})
    await fleet.begin()
    await fleet.gate(1)
    canary = fleet.frozen.waves[0].targets[0]

    def same_boot_again(point: str) -> None:
        if point == "outcome-written":
            fleet.hosts.change(canary, boot_id="boot-1")

    fleet.site = replace(fleet.site, crash=same_boot_again)
    await fleet.apply(1)
    row = fleet.ledger.target(fleet.rollout, canary)
    assert row is not None
    assert (row.outcome, row.signature) == ("failed", "reboot:none")


async def test_label_is_the_policys(tmp_path: Path) -> None:
    fleet = kernel_fleet(tmp_path, dict.fromkeys(["web-01", "web-02"], "r640"), lossClass="az")
    await fleet.plan()
    by_zone: dict[str, list[str]] = {}
    for item in fleet.frozen.targets:
        by_zone.setdefault(item.target.labels["az"], []).append(item.target.name)
    one, other = by_zone["az-a"][0], by_zone["az-b"][0]
    target = fleet.frozen.planned(other)
    assert target is not None
    assert loss_in_the_way(fleet.frozen, target.target, [one]) is None
    stop = loss_in_the_way(fleet.frozen, target.target, [by_zone["az-b"][1]])
    assert stop is not None
    assert "no other of az az-b begins" in stop.sentence
