"""A backup older than reality is put back (S4, F10): what was lost is not run again, and what stands is seen."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from patching.rollout import control
from patching.rollout.answers import VerdictName
from unit.rollout.fleet import Fleet

HOW_TO = Path(__file__).parents[3] / "docs/how-to/back-up-the-ledger.md"


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


async def test_stop_of_the_restored_ledger_lets_nothing_begin_until_the_lost_steps_have_ended(tmp_path: Path) -> None:
    """The host in mid-change holds no place in the backup; without the stop a second one of its zone would begin."""
    fleet = Fleet(tmp_path, rollout={"failureDomain": "role", "maxUnavailable": 1})
    await fleet.begin()
    await fleet.wave(1)
    copy = back_up(tmp_path)
    await fleet.gate(2)
    late = fleet.frozen.waves[1].targets[0]
    fleet.going_dark(late)
    await fleet.apply(2)
    assert [lease.target for lease in fleet.ledger.leases()] == [late], "its place was taken"
    fleet.ledger.close()
    restore(tmp_path, copy)

    again = Fleet.reopen(tmp_path)
    control.stop_all(again.ledger, "anna", "restored from the backup of 02:00")
    assert again.ledger.leases() == [], "the backup does not know that it was taken"
    before = again.versions()
    await again.gate(2)
    await again.apply(2)
    assert again.versions() == before, "nothing began while the switch was on"
    assert again.ledger.leases() == []

    again.hosts.change(late, offline=False)  # nothing runs there any more
    control.stop_all(again.ledger, "anna", "every host was looked at", on=False)
    for wave in (2, 3):
        assert await again.wave(wave) is VerdictName.PROMOTE
    assert set(again.versions().values()) == {"1.1"}
    assert again.twice() == []
    assert again.ledger.verify() == []


def test_documented_loop_tells_steps_that_run_from_those_to_look_at(tmp_path: Path) -> None:
    loop = next(text for text in re.findall(r"```sh\n(.*?)```", HOW_TO.read_text(), flags=re.DOTALL) if "flock" in text)
    for step, traces in {"ended": ["started", "exit"], "lost": ["started"], "given-up": ["forbidden"]}.items():
        (tmp_path / step).mkdir()
        for trace in (*traces, "lock"):
            (tmp_path / step / trace).touch()
    running = tmp_path / "running"
    running.mkdir()
    text = loop.replace("/var/lib/patching/steps", str(tmp_path))
    held = f"exec 7>>{running}/lock; flock 7; {text}"
    said = subprocess.run(["sh", "-c", held], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"LOOK {tmp_path}/lost/", f"RUNS {running}/"]
