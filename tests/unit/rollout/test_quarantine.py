"""Quarantine: with evidence, for a while, left out by every plan, ended by a person or by time (F1, S6)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.change import Outcome
from patching.errors import LedgerError
from patching.ledger.base import TargetRow
from patching.ledger.entry import EntryKind, NewEntry
from patching.policy import OnFailure
from patching.rollout.quarantine import end_expired, is_due, quarantined, release
from patching.rollout.reconcile import reconcile
from unit.rollout.fleet import Fleet


async def failed_canary(tmp_path: Path, **on_failure: Any) -> tuple[Fleet, str]:
    """Let the canary fail, be undone if the policy wants it, and be put into quarantine."""
    fleet = Fleet(tmp_path, hosts=3, verify=[], onFailure=on_failure, rollout={"stopWhen": {"failedTargets": 1}})
    await fleet.begin()
    canary = fleet.frozen.waves[0].targets[0]
    fleet.hosts.change(canary, fail=100)
    await fleet.wave(1)
    return fleet, canary


ROWS = [
    ("failed and undone", Outcome.FAILED, Outcome.UNDONE, True, "auto", True),
    ("failed, its undo is still to come", Outcome.FAILED, None, True, "auto", False),
    ("failed and nobody undoes it", Outcome.FAILED, None, True, "never", True),
    ("failed before it began", Outcome.FAILED, None, False, "never", False),
    ("could not be undone", Outcome.APPLIED, Outcome.FAILED, True, "auto", True),
    ("nobody knows how its undo ended", Outcome.UNKNOWN, Outcome.UNKNOWN, True, "auto", True),
    ("undone without having failed", Outcome.APPLIED, Outcome.UNDONE, True, "auto", False),
    ("applied", Outcome.APPLIED, None, True, "auto", False),
    ("unknown keeps its place instead", Outcome.UNKNOWN, None, True, "never", False),
    ("offline may be back tomorrow", Outcome.OFFLINE, None, False, "never", False),
]


@pytest.mark.parametrize(("says", "outcome", "undone", "began", "undo", "due"), ROWS, ids=[row[0] for row in ROWS])
def test_who_belongs_into_quarantine(
    says: str, outcome: Outcome, undone: Outcome | None, began: bool, undo: Any, due: bool
) -> None:
    began_at = "2026-11-24T12:00:00Z" if began else None
    row = TargetRow.model_validate(
        {"rollout": "r", "target": "t", "wave": 1, "state": "ended", "outcome": outcome, "undo_outcome": undone,
         "began_at": began_at}
    )  # fmt: skip
    assert is_due(OnFailure(undo=undo), row) is due
    assert is_due(OnFailure(undo=undo, quarantine=False), row) is False


async def test_evidence_says_what_failed_with_the_end_of_its_output(tmp_path: Path) -> None:
    fleet, canary = await failed_canary(tmp_path)
    (kept,) = quarantined(fleet.ledger, fleet.clock())
    assert kept.target == canary
    assert kept.reason.endswith("and was undone")
    assert kept.evidence is not None
    assert (kept.evidence.cause, kept.evidence.tries, kept.evidence.step) == ("package", 1, "install-shop")
    assert (kept.evidence.exit_code, kept.evidence.output) == (100, "simulated failure of install-shop")
    closing = await fleet.finish()
    assert "(step install-shop, exit code 100, cause package; it printed: simulated failure of" in closing.markdown
    assert f"Release {canary} from quarantine once repaired" in closing.markdown
    assert "patching release TARGET" in closing.markdown


async def test_quarantine_lasts_as_long_as_the_policy_says_and_is_left_out_with_its_reason_until_then(
    tmp_path: Path,
) -> None:
    fleet, canary = await failed_canary(tmp_path, quarantineFor="7d")
    await fleet.finish()
    fleet.hosts.change(canary, fail=0)
    fleet.new_run("run-2", replan=True)
    await fleet.plan()
    (left,) = [item for item in fleet.frozen.exclusions if item.target == canary]
    assert left.code == "quarantined"
    assert f"until 2026-12-01 12:00 UTC, or `patching release {canary}`" in left.reason
    fleet.clock.advance(days=7)
    fleet.new_run("run-3", replan=True)
    await fleet.plan()
    assert canary in [item.target.name for item in fleet.frozen.targets]


async def test_expired_quarantine_is_ended_by_reconcile_once(tmp_path: Path) -> None:
    fleet, canary = await failed_canary(tmp_path, quarantineFor="1h")
    rollout = fleet.rollout
    await fleet.finish()
    assert end_expired(fleet.ledger, fleet.clock()) == []
    fleet.clock.advance(hours=2)
    said = (await reconcile(fleet.site)).sentences
    assert any(f"the quarantine of {canary} is over" in sentence for sentence in said)
    (entry,) = fleet.ledger.entries(rollout, kinds=[EntryKind.RELEASED])
    assert (entry.target, entry.actor) == (canary, "patch_reconcile")
    assert end_expired(fleet.ledger, fleet.clock()) == []


async def test_person_releases_with_name_and_reason(tmp_path: Path) -> None:
    fleet, canary = await failed_canary(tmp_path)
    now = fleet.clock()
    with pytest.raises(LedgerError, match="needs a name and a reason"):
        release(fleet.ledger, canary, "alice", "  ", now)
    with pytest.raises(LedgerError, match="web-99 is not in quarantine"):
        release(fleet.ledger, "web-99", "alice", "repaired", now)
    release(fleet.ledger, canary, "alice", "dpkg was repaired", now)
    assert quarantined(fleet.ledger, now) == []
    (entry,) = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.RELEASED])
    assert (entry.actor, entry.body["reason"]) == ("alice", "alice: dpkg was repaired")
    with pytest.raises(LedgerError, match="nobody is"):
        release(fleet.ledger, canary, "alice", "again", now)


async def test_target_that_another_rollout_quarantined_after_planning_is_not_touched(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3, verify=[])
    await fleet.begin()
    last = fleet.frozen.waves[-1].targets[-1]
    fleet.ledger.append(
        NewEntry(chain="db-1", kind=EntryKind.ROLLOUT_OPENED, key="opened", body={"policy": "db", "emergency": False})
    )
    body = {"reason": "could not be undone: dpkg", "until": (fleet.clock() + timedelta(days=1)).isoformat()}
    fleet.ledger.append(
        NewEntry(chain="db-1", kind=EntryKind.QUARANTINED, key=f"quarantined:{last}:0", target=last, body=body)
    )
    for wave in (1, 2, 3):
        await fleet.wave(wave)
    assert fleet.outcomes()[last] == "quarantined"
    assert fleet.hosts.markers(last) == []


async def test_failed_target_is_kept_apart_although_the_policy_undoes_nothing(tmp_path: Path) -> None:
    fleet, canary = await failed_canary(tmp_path, undo="never")
    (kept,) = quarantined(fleet.ledger, fleet.clock())
    assert (kept.target, kept.reason.endswith("and was left as it is")) == (canary, True)


async def test_worker_that_died_between_undo_and_quarantine_leaves_no_gap(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, hosts=3, verify=[], rollout={"stopWhen": {"failedTargets": 1}})
    await fleet.begin()
    canary = fleet.frozen.waves[0].targets[0]
    fleet.hosts.change(canary, fail=100)
    await fleet.gate(1)
    await fleet.apply(1)
    await fleet.judge(1)
    body = {"outcome": "undone", "reason": "old version is back", "signature": None, "active": True, "undo": True}
    key = f"target-outcome:{canary}:0:undo"
    fleet.ledger.append(NewEntry(chain=fleet.rollout, kind=EntryKind.TARGET_OUTCOME, key=key, target=canary, body=body))
    await fleet.undo(None)
    assert [item.target for item in quarantined(fleet.ledger, fleet.clock())] == [canary]
    await fleet.undo(None)
    assert len(fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.QUARANTINED])) == 1
