"""A host whose entering hook has run is begun: it is never left behind as merely offline (F8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from patching.change import Patch, Phase, Step, StepKind
from patching.drivers.simulated import SimulatedDriver
from patching.ledger.entry import EntryKind
from patching.rollout.answers import VerdictName
from patching.rollout.approval import decide
from patching.target import Snapshot, Target
from unit.rollout.fleet import Fleet

DRAIN = {"command": {"name": "drain", "enter": "drain it", "leave": "take it back"}}


class Downloading(SimulatedDriver):
    """A driver that downloads first, as real ones do."""

    def steps(
        self, target: Target, phase: Phase, before: Snapshot, now: Snapshot, patches: Sequence[Patch]
    ) -> list[Step]:
        if phase is Phase.PREPARE:
            return [Step(name="download", phase=phase, kind=StepKind.ACT, call={"op": "download"})]
        return super().steps(target, phase, before, now, patches)


async def test_host_lost_after_its_entering_hook_is_unknown_and_its_leaving_hook_runs_when_it_is_back(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, hosts=1, hooks=[DRAIN], rollout={"waves": [{"canary": {"count": 1}}]})
    fleet.site = replace(fleet.site, driver=lambda _name, _options: Downloading())
    await fleet.plan()
    decide(fleet.site, fleet.rollout, "run-1", [])
    await fleet.gate(1)
    here = fleet.site

    def lose_the_host(point: str) -> None:
        """Nothing was downloaded ahead, so the download follows the hook: the host goes when both have ended."""
        ended = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.STEP_OUTCOME])
        if point == "outcome-written" and len(ended) == 2:
            fleet.hosts.change("web-01", offline=True)

    fleet.site = replace(here, crash=lose_the_host)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "unknown"}
    assert fleet.versions() == {"web-01": "1.0"}
    fleet.site = here
    fleet.hosts.change("web-01", offline=False)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    intents = fleet.ledger.intents(rollout=fleet.rollout, target="web-01", open_only=False)
    assert "leave" in [item.step["phase"] for item in intents]
    assert not fleet.twice()
    assert (await fleet.judge(1)).verdict is VerdictName.PROMOTE


async def test_host_lost_while_it_downloads_only_is_offline(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=1)
    await fleet.begin()
    await fleet.gate(1)
    fleet.hosts.change("web-01", offline=True)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "offline"}


async def test_host_whose_entering_hook_was_cut_off_keeps_its_place_while_it_waits_for_its_next_try(
    tmp_path: Path,
) -> None:
    """The hook may have taken it out of service: another host in its place would be one too many."""
    fleet = Fleet(tmp_path, hosts=1, hooks=[DRAIN], rollout={"waves": [{"canary": {"count": 1}}]})
    await fleet.begin()
    await fleet.gate(1)
    fleet.going_dark("web-01", phase="enter")
    held: list[list[str]] = []
    inner = fleet.site.pause

    async def pause(length: float) -> None:
        held.append([lease.target for lease in fleet.ledger.leases()])
        fleet.as_before()
        fleet.hosts.change("web-01", offline=False)
        await inner(length)

    fleet.site = replace(fleet.site, pause=pause)
    await fleet.apply(1)
    assert held[0] == ["web-01"]
    assert fleet.outcomes() == {"web-01": "applied"}
    assert fleet.ledger.leases() == []
    assert not fleet.twice()
