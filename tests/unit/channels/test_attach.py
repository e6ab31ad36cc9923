"""The attach table: every combination of traces has one answer, and the page for people shows the same table (F8)."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from patching.channels.attach import ATTACH_TABLE, Evidence, Row, attach, table_as_markdown
from patching.channels.base import Attach

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "attach-table.md"
EVERYTHING = [Evidence(*flags) for flags in product((False, True), repeat=7)]


def seen(**traces: bool) -> Evidence:
    """A step on the same boot with nothing else to see."""
    plain = {"directory": True, "lock_held": False, "started": False, "exit_written": False, "same_boot": True}
    return Evidence(**{**plain, "group_alive": False, "forbidden": False, **traces})


@pytest.mark.parametrize("evidence", EVERYTHING, ids=str)
def test_every_combination_matches_exactly_one_row(evidence: Evidence) -> None:
    rows = [row for row in ATTACH_TABLE if row.matches(evidence)]
    assert len(rows) == 1
    assert rows[0].attach is attach(evidence)


ROWS = {
    "no directory": (seen(directory=False), Attach.ABSENT),
    "exit written": (seen(started=True, exit_written=True), Attach.ENDED),
    "given up": (seen(forbidden=True), Attach.FORBIDDEN),
    "prepared, then the machine went down": (seen(same_boot=False), Attach.ABSENT),
    "prepared, then its runner died": (seen(), Attach.ABSENT),
    "waits for its turn": (seen(lock_held=True), Attach.RUNNING),
    "rebooted in mid-step": (seen(started=True, same_boot=False), Attach.REBOOTED),
    "runs": (seen(started=True, lock_held=True, group_alive=True), Attach.RUNNING),
    "outlives its runner": (seen(started=True, group_alive=True), Attach.RUNNING),
    "runner and payload gone": (seen(started=True), Attach.LOST),
}


@pytest.mark.parametrize(("row", "name"), list(zip(ATTACH_TABLE, ROWS, strict=True)), ids=list(ROWS))
def test_a_row_answers_its_case(row: Row, name: str) -> None:
    evidence, expected = ROWS[name]
    assert row.matches(evidence)
    assert attach(evidence) is expected


@pytest.mark.parametrize("evidence", EVERYTHING, ids=str)
def test_a_step_has_ended_only_where_an_exit_code_was_written(evidence: Evidence) -> None:
    """A lost exit status is never success."""
    assert (attach(evidence) is Attach.ENDED) == (evidence.directory and evidence.exit_written)


@pytest.mark.parametrize("evidence", EVERYTHING, ids=str)
def test_a_tombstone_is_never_absent_and_hides_no_step_that_began(evidence: Evidence) -> None:
    """F8: a forbidden step may not be started, and what a step did counts whatever was left beside it."""
    if evidence.directory and evidence.forbidden:
        assert attach(evidence) is not Attach.ABSENT
    if evidence.directory and (evidence.started or evidence.exit_written):
        assert attach(evidence) is not Attach.FORBIDDEN


@pytest.mark.parametrize("evidence", EVERYTHING, ids=str)
def test_a_step_that_started_is_never_absent(evidence: Evidence) -> None:
    """ABSENT allows a start, and nothing may start twice."""
    if evidence.directory and evidence.started:
        assert attach(evidence) is not Attach.ABSENT


def test_the_page_shows_this_table() -> None:
    assert table_as_markdown() in PAGE.read_text()
