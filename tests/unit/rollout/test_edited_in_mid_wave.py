"""A policy edited in mid-wave (T4): the rollout that runs goes on as approved; the next plan is the edited one's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from patching.diagnostics import PolicyError
from patching.ledger.entry import EntryKind
from patching.policy_files import load_policy
from patching.rollout.answers import GateState, VerdictName
from unit.rollout.fleet import POLICY, Fleet, merged

PROMETHEUS = {"connection": "prom", "errors": "other{$series}", "requests": "all{$series}"}
LONG_AGO = {"rrule": "FREQ=YEARLY;BYMONTH=1;BYMONTHDAY=1", "start": "02:00", "duration": "1h"}


def waves(*sizes: str, soak: str = "30s") -> dict[str, Any]:
    return {"rollout": {"waves": [{"canary": {"count": 1}, "soak": soak}, *({"size": size} for size in sizes)]}}


EDITS: dict[str, dict[str, Any]] = {
    "fewer waves": waves("100%"),
    "more waves": waves("30%", "50%", "70%", "100%"),
    "longer soak": waves("50%", "100%", soak="9h"),
    "other check": {"verify": [{"name": "other", "prometheus": PROMETHEUS}]},
    "no check": {"verify": []},
    "mode": {"mode": "plan"},
    "approval": {"approval": {"required": 3}},
    "budget": {"rollout": {"stopWhen": {"failedTargets": 1}}},
    "patches": {"patches": {"exclude": ["shop"]}},
    "targets": {"targets": {"selector": {"matchLabels": {"az": "az-a"}}}},
    "window": {"schedule": {"windows": [LONG_AGO]}},
}
QUICK = ("fewer waves", "other check", "mode")


class Edited(Fleet):
    """A fleet whose policy is a file, read anew for every task, as Airflow does at each task's start."""

    @property
    def file(self) -> Path:
        return self.folder / "policies" / "web.yaml"

    def write(self, **spec: Any) -> None:
        whole = merged(POLICY, {"spec": merged(waves("50%", "100%"), spec)})
        self.file.write_text(yaml.safe_dump(whole))
        self.read()

    def read(self) -> None:
        self.policy = load_policy(self.file)

    async def judge(self, wave: int):  # type: ignore[no-untyped-def]
        """Judge after the soak that was approved."""
        self.clock.advance(seconds=31)
        return await super().judge(wave)


def fleet_of(folder: Path) -> Edited:
    fleet = Edited(folder)
    fleet.write()
    return fleet


def checks(fleet: Fleet) -> set[str]:
    """The checks that verdicts of this rollout rest on."""
    measured = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.MEASURED])
    return {str(entry.body["check"]) for entry in measured}


@pytest.mark.parametrize(
    "edit", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EDITS]
)
async def test_edited_policy_changes_nothing_in_the_rollout_that_runs(tmp_path: Path, edit: str) -> None:
    fleet = fleet_of(tmp_path)
    await fleet.begin()
    approved, frozen = fleet.frozen.digest, [wave.targets for wave in fleet.frozen.waves]
    assert await fleet.wave(1) is VerdictName.PROMOTE
    await fleet.gate(2)
    fleet.write(**EDITS[edit])
    await fleet.apply(2)
    assert (await fleet.judge(2)).verdict is VerdictName.PROMOTE
    await fleet.undo(2)
    # A task cleared by a person reads the edited file too.
    await fleet.plan()
    assert fleet.frozen.digest == approved
    assert [wave.targets for wave in fleet.frozen.waves] == frozen
    assert await fleet.wave(3) is VerdictName.PROMOTE
    assert (await fleet.finish()).good
    assert fleet.state == "completed"
    assert set(fleet.outcomes().values()) == {"applied"}
    assert set(fleet.versions().values()) == {"1.1"}
    assert fleet.twice() == []
    assert checks(fleet) == {"errors"}


async def test_broken_policy_in_mid_wave_changes_nothing_either(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    fleet.file.write_text("spec: [\n")
    with pytest.raises(PolicyError):
        fleet.read()
    assert await fleet.wave(2) is VerdictName.PROMOTE
    assert await fleet.wave(3) is VerdictName.PROMOTE
    assert (await fleet.finish()).good


async def test_next_run_adopts_what_has_begun_and_only_the_plan_after_it_is_the_edited_one(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path)
    await fleet.begin()
    first = fleet.rollout
    await fleet.wave(1)
    await fleet.finish()
    fleet.write(**EDITS["other check"])
    fleet.new_run("run-2")
    await fleet.begin()
    assert fleet.rollout == first
    for number in (1, 2, 3):
        await fleet.wave(number)
    assert (await fleet.finish()).good
    assert checks(fleet) == {"errors"}
    for name in fleet.names:
        fleet.hosts.change(name, offers={"shop": "1.2"})
    fleet.new_run("run-3")
    assert (await fleet.whole()).good
    assert fleet.rollout != first
    assert checks(fleet) == {"other"}


async def test_policy_edited_before_anything_began_is_planned_and_approved_anew(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path)
    await fleet.begin()
    first = fleet.rollout
    await fleet.finish()
    fleet.write(**EDITS["approval"])
    fleet.new_run("run-2")
    await fleet.begin()
    assert fleet.rollout != first
    row = fleet.ledger.rollout(first)
    assert row is not None
    assert row.state.value == "superseded"
    assert (await fleet.gate(1)).state is GateState.REFUSED


async def test_two_runs_that_both_believe_to_own_the_rollout_change_every_target_once(tmp_path: Path) -> None:
    """Airflow calls a task failed while its process works on (T12): a second run then does the same tasks beside it."""
    fleet = fleet_of(tmp_path)
    await fleet.begin()
    other = fleet.as_worker("worker-2")
    other.new_run("run-2")
    await other.begin()
    assert other.rollout == fleet.rollout
    for number in (1, 2, 3):
        await asyncio.gather(fleet.gate(number), other.gate(number))
        await asyncio.gather(fleet.apply(number), other.apply(number))
        await asyncio.gather(fleet.judge(number), other.judge(number))
        await asyncio.gather(fleet.undo(number), other.undo(number))
    await fleet.finish()
    assert set(fleet.outcomes().values()) == {"applied"}
    assert fleet.twice() == []
    assert fleet.ledger.leases() == []
    assert fleet.ledger.verify() == []
    plans = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.PLAN_FROZEN])
    verdicts = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.VERDICT])
    assert (len(plans), len(verdicts)) == (1, 3)
