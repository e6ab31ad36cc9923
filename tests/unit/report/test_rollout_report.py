"""The report of a rollout (S7): true to the ledger, readable at hundreds of targets, safe whatever hosts are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from patching.change import Outcome, Patch, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import EntryKind, LedgerEntry, NewEntry
from patching.plan.document import Plan
from patching.report.markdown import report_markdown
from patching.report.rollout_report import Report, change_text, make_report
from patching.report.sentences import WAITS_BY_STATE, headline, next_steps, standing, target_waits, waiting_for
from patching.rollout.states import RolloutState
from rollout_page.stories import Story, at_work, held, open_story_ledger, undone

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Teller = Callable[..., Story]


class Told(NamedTuple):
    """What a story left in its ledger: all that a report is made from, read once because writing it takes long."""

    entries: list[LedgerEntry]
    plan: Plan
    row: RolloutRow
    rows: list[TargetRow]
    now: datetime


@cache
def told(tell: Teller, size: int) -> Told:
    with TemporaryDirectory() as folder:
        ledger, clock = open_story_ledger(Path(folder))
        story = tell(ledger, clock, size)
        row = ledger.rollout(story.rollout)
        assert row is not None
        return Told(ledger.entries(story.rollout), story.plan, row, ledger.targets(story.rollout), ledger.now())


def reported(tell: Teller, size: int = 12, *more: NewEntry) -> Report:
    entries, plan, row, rows, now = told(tell, size)
    added = [
        LedgerEntry(seq=len(entries) + number, at=now, previous="", hash="f" * 64, **entry.model_dump())
        for number, entry in enumerate(more, start=1)
    ]
    return make_report([*entries, *added], plan, row, rows, now)


def test_headline_comes_first_and_then_what_a_person_must_do() -> None:
    text = reported(held).markdown
    assert text.startswith("# HELD: 7 of 12 applied, 1 offline, 4 to go; waits for a person")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[:4] == ["## What a person must do next", "## Waves", "## What was measured", "## Targets"]


def test_report_says_who_approved_what_was_measured_and_what_was_left_out() -> None:
    report = reported(held)
    assert [(one.person, one.decision) for one in report.approvers] == [("alice", "approve"), ("bob", "approve")]
    assert [wave.verdict for wave in report.waves] == ["promote", "hold", None]
    assert [item.target for item in report.exclusions] == ["web-old"]
    assert report.carried_over == ("web-09", "web-10", "web-11", "web-12")
    assert "1.33 % of 900" in report.markdown
    assert "waiver W-12" in report.markdown


def test_row_of_a_gauge_says_levels_ranks_and_what_would_have_been_seen() -> None:
    """An alarm by ranks has evidence below what is needed: its own p-value and level are shown."""
    document = reported(held).model_dump(mode="json")
    numbers = {"treated_level": 12.5, "reference_level": 10.0, "ratio": 1.25, "ratio_low": 0.9, "p_value": 0.2}
    numbers |= {"alpha": 0.0133, "rank_p": 0.001, "rank_alpha": 0.0033, "seen_ratio": 1.4, "alarm_at": None}
    check = {"name": "queue", "verdict": "undo", "comparison": "control", "numbers": numbers}
    document["waves"] = [{**document["waves"][0], "checks": [check]}]
    assert (
        "| 1 | queue | undo | control | 12.5 | 10 | 1.25 (0.90 to ∞) | 1.4 × "
        "| 0.2 (alarm at 0.013); ranks 0.001 (alarm at 0.0033) | - |"
    ) in report_markdown(document)


def test_undone_targets_have_both_reasons_and_are_not_called_applied() -> None:
    """S6: what was done and what was taken back are both said."""
    report = reported(undone)
    back = [target for target in report.targets if target.undo_outcome == "undone"]
    assert [target.target for target in back] == ["web-01", "web-02", "web-03"]
    assert all(target.reason and target.undo_reason for target in back)
    assert report.headline.startswith("UNDONE: 0 of 12 applied, 3 undone")
    assert "applied, then undone" in report.markdown


def test_answer_to_an_earlier_plan_is_no_approval_of_this_one() -> None:
    """S7: approval is of a digest."""
    body = {"person": "mallory", "decision": "approve", "plan": "0" * 64}
    stray = NewEntry(chain="-", kind=EntryKind.APPROVAL, key="approval:stray", actor="mallory", body=body)
    report = reported(held, 12, stray)
    assert "mallory" not in [one.person for one in report.approvers]


def test_quarantine_is_said_until_it_is_released() -> None:
    body = {"reason": "could not be undone: disk full", "until": "2026-12-08T00:00:00+00:00"}
    entries = [
        NewEntry(chain="-", kind=EntryKind.QUARANTINED, key=f"quarantined:{name}", target=name, body=body)
        for name in ("web-01", "web-02")
    ]
    entries.append(
        NewEntry(
            chain="-", kind=EntryKind.RELEASED, key="released:web-02", target="web-02", body={"reason": "repaired"}
        )
    )
    report = reported(held, 12, *entries)
    assert [item.target for item in report.quarantined] == ["web-01"]
    assert "- **web-01** until 2026-12-08 00:00:00Z: could not be undone: disk full" in report.markdown
    assert any(step.startswith("Release web-01 from quarantine") for step in report.next_steps)


def test_hundreds_of_targets_are_grouped_and_only_troubles_have_rows() -> None:
    report = reported(at_work, 200)
    lines = report.markdown.splitlines()
    assert len(report.targets) == 200
    assert len(lines) < 120
    troubles = [target for target in report.targets if target.outcome not in (None, "applied", "nothing_to_do")]
    assert troubles
    for target in troubles:
        assert any(line.startswith(f"| {target.target} |") for line in lines)


def test_json_form_is_versioned_round_trips_and_gives_the_same_markdown() -> None:
    report = reported(held)
    document = json.loads(json.dumps(report.document))
    assert document["schema_version"] == 1
    assert Report.model_validate(document) == report
    assert report_markdown(document) == report.markdown


def test_report_names_the_entry_up_to_which_it_was_made() -> None:
    report = reported(held)
    assert f"entry {report.last_entry}, hash {report.last_hash[:16]}" in report.markdown


def test_rollout_without_a_plan_is_still_reported() -> None:
    row = RolloutRow(
        id="r", policy="p", state=RolloutState.PLANNED, plan_digest=None, emergency=False, opened_at=NOW, updated_at=NOW
    )
    report = make_report([], None, row, [], NOW)
    assert report.markdown.startswith("# Planned: no target is planned; waits for a run that may carry it out\n")


def test_text_from_hosts_cannot_break_out_of_a_table_nor_become_html() -> None:
    report = reported(held)
    evil = "a | b\n# <script>`[x](javascript:1)"
    targets = (report.targets[0].model_copy(update={"target": evil, "reason": evil}), *report.targets[1:])
    text = report.model_copy(update={"targets": targets}).markdown
    line = next(line for line in text.splitlines() if "script>" in line)
    assert line.startswith(r"| a \| b # \<script>\`\[x](javascript:1) |")
    assert line.replace(r"\|", "").count("|") == 7


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        (Patch(component="nginx", before="1", after="2"), "nginx 1 -> 2"),
        (Patch(component="libnew", before=None, after="2"), "+ libnew 2"),
        (Patch(component="libold", before="1", after=None), "- libold 1"),
    ],
)
def test_change_in_words(patch: Patch, text: str) -> None:
    assert change_text(patch) == text


def row(state: RolloutState, **more: object) -> RolloutRow:
    fields = {"id": "r", "policy": "p", "plan_digest": "d", "emergency": False, "opened_at": NOW, "updated_at": NOW}
    return RolloutRow.model_validate(fields | {"state": state} | more)


def target(name: str, **more: object) -> TargetRow:
    fields = {"rollout": "r", "target": name, "wave": 1, "state": TargetState.ENDED}
    return TargetRow.model_validate(fields | more)


def test_standing_counts_every_target_exactly_once() -> None:
    rows = [
        target("a", outcome=Outcome.APPLIED),
        target("b", outcome=Outcome.APPLIED, undo_outcome=Outcome.UNDONE),
        target("c", outcome=Outcome.FAILED, undo_outcome=Outcome.FAILED),
        target("d", outcome=Outcome.UNKNOWN),
        target("e", outcome=Outcome.NOTHING_TO_DO),
        target("f", state=TargetState.RUNNING),
        target("g", state=TargetState.PENDING),
        target("h", state=TargetState.WAITING),
    ]
    said = standing(rows)
    assert said == (
        "1 of 8 applied, 1 undone, 1 could NOT be undone, 1 had nothing to do, 1 unknown, 1 at work, 2 to go"
    )


def test_waiting_rollout_says_what_for() -> None:
    waits = row(RolloutState.WAITING, waits_for="waits for the window Wed 22:00")
    assert headline(waits, [target("a", outcome=Outcome.APPLIED), target("b", state=TargetState.PENDING)]) == (
        "Waits: 1 of 2 applied, 1 to go; waits for the window Wed 22:00"
    )


def test_waiting_targets_speak_for_a_running_rollout() -> None:
    running = row(RolloutState.RUNNING)
    one = target("a", state=TargetState.WAITING, waits_for="waits for reboot 1 of 1")
    assert waiting_for(running, [one]) == "a waits for reboot 1 of 1"
    assert waiting_for(running, [one, one]) == "2 targets: waits for reboot 1 of 1"
    assert waiting_for(running, [target("b", outcome=Outcome.APPLIED, waits_for="old")]) == ""


@pytest.mark.parametrize("state", list(RolloutState))
def test_every_state_has_a_headline(state: RolloutState) -> None:
    said = headline(row(state), [])
    assert "no target is planned" in said
    assert ("; waits for " in said) == (state in WAITS_BY_STATE), "who waits says what for, and nobody else"


def test_what_only_a_person_can_end_is_said_first() -> None:
    """F10, S8: one sentence, and it names what has to be done."""
    rows = [target("a", state=TargetState.WAITING, waits_for="waits for reboot 1 of 1")]
    for state in (RolloutState.RUNNING, RolloutState.WAITING):
        waits = row(state, waits_for="waits for the window")
        assert waiting_for(waits, rows, stopped="eva: fire").startswith("waits for the stop switch")
        assert waiting_for(waits, rows, stopped="eva: fire", locked="policy p is locked").startswith(
            "waits for a person to release an incident: policy p is locked"
        )
    assert waiting_for(row(RolloutState.UNDOING), [], locked="policy p is locked") == "", "an undo goes on"
    assert waiting_for(row(RolloutState.ABORTED), [], stopped="eva: fire", locked="policy p is locked") == ""


def pending(**more: Any) -> TargetRow:
    return target("a", state=TargetState.PENDING, **more)


@pytest.mark.parametrize(
    ("state", "one", "said"),
    [
        (RolloutState.RUNNING, pending(waits_for="waits for domain web az=a: 1 of 1"), "waits for domain web az=a"),
        (RolloutState.RUNNING, pending(), "waits for its turn in wave 1"),
        (RolloutState.RUNNING, pending(wave=2), "waits for wave 1 to be promoted"),
        (RolloutState.WAITING, pending(), "waits with its rollout for the next run"),
        (RolloutState.HELD, pending(), "waits for a person"),
        (RolloutState.AWAITING_APPROVAL, pending(), "waits for the approval of the plan"),
        (RolloutState.UNDOING, pending(), "waits for nothing any more"),
        (RolloutState.RUNNING, target("a", state=TargetState.RUNNING), ""),
        (RolloutState.RUNNING, target("a", state=TargetState.ENDED, outcome=Outcome.APPLIED), ""),
        (RolloutState.RUNNING, target("a", state=TargetState.ENDED, outcome=Outcome.UNKNOWN), "waits for the next run"),
        (RolloutState.ABORTED, pending(), ""),
    ],
)
def test_every_target_says_in_one_sentence_what_it_waits_for(state: RolloutState, one: TargetRow, said: str) -> None:
    found = target_waits(row(state), one, [1])
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_a_target_names_what_stops_everything_before_its_own_wait() -> None:
    one = pending(waits_for="waits for domain web az=a")
    assert target_waits(row(RolloutState.RUNNING), one, [1], stopped="eva: fire") == (
        "waits for the stop switch to be turned off"
    )
    assert "incident" in target_waits(row(RolloutState.RUNNING), one, [1], stopped="eva: fire", locked="locked")


def test_failed_undo_comes_first_of_what_a_person_must_do() -> None:
    """F10: the most dangerous thing is said first."""
    rows = [
        target("a", outcome=Outcome.OFFLINE),
        target("b", outcome=Outcome.APPLIED, undo_outcome=Outcome.FAILED),
        target("c", outcome=Outcome.UNKNOWN),
    ]
    steps = next_steps(row(RolloutState.UNDONE), rows, ["b"])
    assert [step.split(" ")[0:2] for step in steps[:3]] == [["Repair", "b"], ["Look", "at"], ["Release", "b"]]


def test_nothing_to_do_for_a_person_after_a_clean_end() -> None:
    assert next_steps(row(RolloutState.COMPLETED), [target("a", outcome=Outcome.APPLIED)]) == []
