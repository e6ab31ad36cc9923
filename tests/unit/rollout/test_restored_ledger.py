"""A backup older than reality is put back (S4, F10): what was lost is not run again, and what stands is seen."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from patching.rollout.answers import VerdictName
from unit.rollout.fleet import Fleet


def back_up(folder: Path) -> Path:
    """Copy the ledger while it is in use, as the how-to says: ``.backup``, never ``cp``."""
    copy = folder / "copy.sqlite"
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def restore(folder: Path, copy: Path) -> None:
    for suffix in ("-wal", "-shm"):
        (folder / f"ledger.sqlite{suffix}").unlink(missing_ok=True)
    copy.replace(folder / "ledger.sqlite")


async def test_changes_that_the_backup_has_lost_are_found_on_the_targets_and_not_made_again(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    await fleet.wave(1)
    copy = back_up(tmp_path)
    await fleet.wave(2)
    lost = {item.target.name for item in fleet.frozen.targets if item.wave == 2}
    ran = {name: len(fleet.hosts.markers(name)) for name in fleet.names}
    fleet.ledger.close()
    restore(tmp_path, copy)

    again = Fleet.reopen(tmp_path)
    assert again.ledger.verify() == []
    assert {again.outcomes()[name] for name in lost} == {"pending"}, "the backup knows nothing of wave 2"
    assert await again.wave(2) is VerdictName.PROMOTE
    assert {name: len(again.hosts.markers(name)) for name in lost} == {name: ran[name] for name in lost}
    assert {again.outcomes()[name] for name in lost} == {"nothing_to_do"}
    assert await again.wave(3) is VerdictName.PROMOTE
    assert set(again.versions().values()) == {"1.1"}
    assert again.twice() == []


async def test_new_plan_after_a_restore_plans_nothing_that_stands_already(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    await fleet.begin()
    copy = back_up(tmp_path)
    await fleet.wave(1)
    fleet.ledger.close()
    restore(tmp_path, copy)

    again = Fleet.reopen(tmp_path)
    again.new_run("run-2", replan=True)
    await again.plan()
    standing = {name for name, version in again.versions().items() if version == "1.1"}
    assert standing
    assert standing.isdisjoint(item.target.name for item in again.frozen.targets)
    assert {item.code for item in again.frozen.exclusions if item.target in standing} == {"up_to_date"}
