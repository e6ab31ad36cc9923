"""A worker that died between entering and changing leaves no host drained for ever (S4, F8)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patching.rollout.reconcile import reconcile
from patching.rollout.states import RolloutState
from unit.rollout.fleet import Fleet
from unit.rollout.test_hooking import WHOLE, begun, dying, hooks_of


async def died(tmp_path: Path, point: str, phase: str, nth: int) -> Fleet:
    fleet = await begun(tmp_path)
    here = replace(fleet.site, run_active=lambda _run: False)
    fleet.site = replace(here, crash=dying(fleet, point, phase, nth), owner="dead")
    with pytest.raises(ExceptionGroup):
        await fleet.apply(1)
    fleet.site = replace(here, owner="reconcile")
    return fleet


@pytest.mark.parametrize("state", [RolloutState.ABORTED, None])
@pytest.mark.parametrize(("point", "nth"), [("started", 1), ("outcome-written", 2)])
async def test_reconcile_leaves_what_was_entered_where_nobody_comes_back(
    tmp_path: Path, state: RolloutState | None, point: str, nth: int
) -> None:
    fleet = await died(tmp_path, point, "enter", nth)
    entered = hooks_of(fleet)
    if state is not None:
        fleet.ledger.transition(fleet.rollout, state, reason="alice: not today")
    await reconcile(fleet.site)
    assert hooks_of(fleet) == entered
    fleet.clock.advance(seconds=60)
    said = (await reconcile(fleet.site)).sentences
    assert any("its hooks were left" in sentence for sentence in said)
    left = [step.replace("enter", "leave") for step in reversed(entered)]
    assert hooks_of(fleet) == entered + left
    assert fleet.ledger.leases() == []
    assert fleet.outcomes() == {"web-01": "skipped" if state else "running"}
    assert not (await reconcile(fleet.site)).sentences


async def test_rollout_that_goes_on_enters_such_a_host_anew(tmp_path: Path) -> None:
    fleet = await died(tmp_path, "outcome-written", "enter", 2)
    fleet.clock.advance(seconds=60)
    await reconcile(fleet.site)
    assert hooks_of(fleet) == WHOLE
    assert fleet.state == "waiting"
    fleet.new_run("run-2")
    await fleet.discover()
    await fleet.gate(1)
    await fleet.apply(1)
    assert fleet.outcomes() == {"web-01": "applied"}
    assert hooks_of(fleet) == WHOLE * 2
    assert not fleet.twice()


async def test_host_in_mid_change_stays_out_of_service_until_it_is_gone_on_with_or_undone(tmp_path: Path) -> None:
    fleet = await died(tmp_path, "started", "apply", 1)
    fleet.ledger.transition(fleet.rollout, RolloutState.ABORTED, reason="alice: not today")
    fleet.clock.advance(seconds=60)
    await reconcile(fleet.site)
    assert hooks_of(fleet) == ["enter hook-drain", "enter hook-quiet"]
    assert len(fleet.ledger.leases()) == 1
    fleet.ledger.transition(fleet.rollout, RolloutState.UNDOING, reason="alice: back")
    await fleet.undo(None)
    assert hooks_of(fleet) == WHOLE
    assert fleet.versions() == {"web-01": "1.0"}


async def test_host_that_does_not_answer_is_tried_again(tmp_path: Path) -> None:
    fleet = await died(tmp_path, "outcome-written", "enter", 2)
    fleet.clock.advance(seconds=60)
    fleet.hosts.change("web-01", offline=True)
    said = (await reconcile(fleet.site)).sentences
    assert any("does not answer, so its hooks stand" in sentence for sentence in said)
    fleet.hosts.change("web-01", offline=False)
    fleet.clock.advance(seconds=60)
    await reconcile(fleet.site)
    assert hooks_of(fleet) == WHOLE
