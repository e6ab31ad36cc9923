"""The page's document (S7, V2, V3): every state is told in words, and it can be shown as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patching.canary.plot import Mark
from patching.change import Outcome, Phase, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.ledger.entry import EntryKind
from patching.report.rollout_view import (
    MOST_MARKS,
    VIEW_KINDS,
    _few,
    overview_line,
    rollout_view,
    run_without_rollout,
    shown_as,
)
from patching.report.status_text import rollout_text
from patching.report.target_view import target_view
from patching.report.wave_view import wave_state
from patching.rollout.states import RolloutState
from rollout_page.stories import START, Story, at_work, held, open_story_ledger, undone

Teller = Callable[..., Story]


def view_of(folder: Path, tell: Teller, size: int = 12) -> dict[str, Any]:
    ledger, clock = open_story_ledger(folder)
    return seen(tell(ledger, clock, size))


def seen(story: Story, **more: Any) -> dict[str, Any]:
    ledger = story.ledger
    entries = ledger.entries(story.rollout, kinds=VIEW_KINDS)
    measured = {e.body["data"]: ledger.document(e.body["data"]) for e in entries if e.kind is EntryKind.MEASURED}
    row = ledger.rollout(story.rollout)
    assert row is not None
    targets = ledger.targets(story.rollout)
    return rollout_view(row, targets, story.plan, entries, ledger.now(), measured=measured, **more)


def test_held_wave_says_that_it_waits_for_a_person_and_why(tmp_path: Path) -> None:
    view = view_of(tmp_path, held)
    assert view["rollout"]["state"] == "held"
    assert view["sentence"].startswith("waits for a person to resume or abort it: wave 2: errors: 1.33 %")
    assert [wave["state"] for wave in view["waves"]] == ["promoted", "held", "ahead"]
    assert view["counts"] == {"applied": 7, "offline": 1, "pending": 4}
    assert view["next_steps"][0].startswith("Decide, with --reason: `patching resume web-os-security-")


def test_every_target_has_wave_state_verdict_zone_and_time(tmp_path: Path) -> None:
    view = view_of(tmp_path, held)
    first, last = view["targets"][0], view["targets"][-1]
    assert (first["name"], first["wave"], first["shown_as"], first["zone"]) == ("web-01", 1, "applied", "az-a")
    assert (first["verdict"], first["seconds"]) == ("promote", 29.0)
    assert first["change"] == "shopfront 1.4.2-1 -> 1.4.3-1 (+2 more)"
    assert (last["wave"], last["shown_as"], last["verdict"], last["seconds"]) == (3, "pending", None, None)


def test_verdict_comes_with_its_numbers_and_the_plot_of_its_wave(tmp_path: Path) -> None:
    view = view_of(tmp_path, undone)
    check = view["waves"][0]["checks"][0]
    assert check["numbers"]["treated_share"] == pytest.approx(0.039)
    (plot,) = view["plots"]
    assert (plot["wave"], plot["check"], plot["changed"]) == (1, "errors", 3)
    assert plot["canary"][-1]["value"] > 3 * plot["control"][-1]["value"]
    assert plot["tolerated"][-1]["value"] == pytest.approx(1.5 * plot["control"][-1]["value"], rel=0.2)
    assert [mark["label"] for mark in plot["changes"]] == ["web-01", "web-02", "web-03"]


def test_undone_canary_leaves_the_later_waves_not_reached(tmp_path: Path) -> None:
    view = view_of(tmp_path, undone)
    assert [wave["state"] for wave in view["waves"]] == ["undone", "not_reached", "not_reached"]
    assert view["rollout"]["final"] is True
    assert view["counts"] == {"undone": 3, "pending": 9}


def test_targets_that_wait_say_for_what(tmp_path: Path) -> None:
    view = view_of(tmp_path, at_work, size=40)
    waiting = [target for target in view["targets"] if target["shown_as"] == "waiting"]
    assert waiting
    assert all(target["waits_for"].startswith("waits for failure_domain az-b") for target in waiting)
    assert "waits for failure_domain az-b" in view["sentence"]


def test_approvals_of_another_plan_are_not_shown(tmp_path: Path) -> None:
    ledger, clock = open_story_ledger(tmp_path)
    story = Story(ledger, clock, size=12).opened()
    body = {"person": "mallory", "decision": "approve", "plan": "0" * 64, "comment": ""}
    story.write(EntryKind.APPROVAL, "approval:mallory", body, actor="mallory")
    story.approved()
    approval = seen(story)["approval"]
    assert [answer["person"] for answer in approval["answers"]] == ["alice", "bob"]
    assert (approval["required"], approval["decided"]) == (2, True)


def test_stop_switch_stands_in_the_document(tmp_path: Path) -> None:
    ledger, clock = open_story_ledger(tmp_path)
    assert seen(held(ledger, clock, 12), stopped="datacentre on fire")["stop_switch"] == "datacentre on fire"


def test_rollout_without_a_plan_is_shown_as_what_it_is() -> None:
    row = rollout_row(RolloutState.PLANNED)
    view = rollout_view(row, [], None, [], START)
    assert (view["standing"], view["waves"], view["targets"]) == ("no target is planned", [], [])


def test_documents_are_plain_json_and_versioned(tmp_path: Path) -> None:
    view = view_of(tmp_path, at_work, size=30)
    assert json.loads(json.dumps(view)) == view
    nothing = run_without_rollout("patch__web", "run-1", START, "no rollout yet")
    assert (nothing["schema_version"], nothing["rollout"], nothing["sentence"]) == (1, None, "no rollout yet")


def test_an_idle_rollout_gives_the_same_document_later(tmp_path: Path) -> None:
    ledger, clock = open_story_ledger(tmp_path)
    story = held(ledger, clock, 12)
    before = seen(story)
    story.wait(hours=3)
    after = seen(story)
    assert before.pop("as_of") != after.pop("as_of")
    assert before == after


def test_quarantine_is_shown_until_a_person_releases_it(tmp_path: Path) -> None:
    ledger, clock = open_story_ledger(tmp_path)
    story = held(ledger, clock, 12)
    story.write(EntryKind.QUARANTINED, "q", {"reason": "could not be undone", "until": None}, target="web-04")
    shown = seen(story)["targets"][3]
    assert (shown["quarantined"], shown["quarantined_until"]) == ("could not be undone", None)
    assert "web-04" in next(line for line in rollout_text(seen(story)).splitlines() if "until it is released" in line)
    story.write(EntryKind.RELEASED, "r", {"reason": "repaired"}, target="web-04", actor="alice")
    assert seen(story)["targets"][3]["quarantined"] is None


def test_quarantine_is_shown_with_its_end_and_no_more_once_that_has_passed(tmp_path: Path) -> None:
    """Whether `patch_reconcile` has written the end or not: the next plan takes the target in again."""
    ledger, clock = open_story_ledger(tmp_path)
    story = held(ledger, clock, 12)
    until = clock() + timedelta(hours=1)
    body = {"reason": "could not be undone", "until": until.isoformat()}
    story.write(EntryKind.QUARANTINED, "q", body, target="web-04")
    assert seen(story)["targets"][3]["quarantined_until"] == until.isoformat()
    assert f"in quarantine until {until:%Y-%m-%d %H:%MZ}" in rollout_text(seen(story))
    story.wait(hours=2)
    assert seen(story)["targets"][3]["quarantined"] is None
    assert "in quarantine" not in rollout_text(seen(story))


def test_what_may_be_done_follows_from_how_it_stands(tmp_path: Path) -> None:
    """S8: what the ledger would refuse anyway is no button."""
    ledger, clock = open_story_ledger(tmp_path)
    story = held(ledger, clock, 12)
    view = seen(story)
    assert [act["act"] for act in view["acts"]] == ["promote", "undo", "abort"]
    by_name = {target["name"]: target["acts"] for target in view["targets"]}
    assert (by_name["web-01"], by_name["web-08"], by_name["web-09"]) == ([], [], ["skip"])
    body = {"wave": 2, "verdict": "promote", "reason": "eva", "checks": view["waves"][1]["checks"], "by": "eva"}
    story.write(EntryKind.VERDICT, "verdict:2:by:1", body, actor="eva")
    story.state(RolloutState.WAITING, "promoted")
    view = seen(story)
    assert [act["act"] for act in view["acts"]] == ["hold", "retry", "abort"]
    assert next(act["says"] for act in view["acts"] if act["act"] == "retry").startswith("1 target that failed or did")
    assert {target["name"]: target["acts"] for target in view["targets"]}["web-08"] == ["retry"]
    story.state(RolloutState.ABORTED, "enough")
    assert [act["act"] for act in seen(story)["acts"]] == ["undo"]


def test_overview_line_has_the_sentence_and_the_counts(tmp_path: Path) -> None:
    ledger, clock = open_story_ledger(tmp_path)
    story = held(ledger, clock, 12)
    row = ledger.rollout(story.rollout)
    assert row is not None
    line = overview_line(row, ledger.targets(story.rollout))
    assert line["dag_id"] == "patch__web-os-security"
    assert line["standing"] == "7 of 12 applied, 1 offline, 4 to go"


def test_hundreds_of_marks_become_few_and_none_is_lost() -> None:
    marks = tuple(Mark(at=START + timedelta(seconds=second), label=f"web-{second}") for second in range(447))
    few = _few(marks)
    assert len(few) <= MOST_MARKS + 1
    more = sum(int(mark.label.split(" and ")[1].split()[0]) for mark in few if " and " in mark.label)
    assert more + len(few) == 447


def target_row(**more: Any) -> TargetRow:
    return TargetRow(**{"rollout": "r", "target": "web-1", "wave": 1, "state": TargetState.PENDING} | more)


def rollout_row(state: RolloutState) -> RolloutRow:
    return RolloutRow(
        id="r", policy="web", state=state, plan_digest=None, emergency=False, opened_at=START, updated_at=START
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "pending"),
        ({"state": TargetState.WAITING}, "waiting"),
        ({"state": TargetState.RUNNING}, "running"),
        ({"state": TargetState.ENDED, "outcome": Outcome.APPLIED}, "applied"),
        ({"state": TargetState.UNDOING, "outcome": Outcome.APPLIED}, "undoing"),
        ({"state": TargetState.ENDED, "outcome": Outcome.APPLIED, "undo_outcome": Outcome.UNDONE}, "undone"),
        ({"state": TargetState.ENDED, "outcome": Outcome.APPLIED, "undo_outcome": Outcome.FAILED}, "undo_failed"),
        ({"state": TargetState.ENDED, "outcome": Outcome.APPLIED, "undo_outcome": Outcome.UNKNOWN}, "unknown"),
        ({"state": TargetState.ENDED, "outcome": Outcome.APPLIED, "undo_outcome": Outcome.SKIPPED}, "applied"),
    ],
)
def test_a_failed_undo_is_never_shown_as_success(row: dict[str, Any], said: str) -> None:
    assert shown_as(target_row(**row)) == said


APPLIED = {"state": TargetState.ENDED, "outcome": Outcome.APPLIED}


@pytest.mark.parametrize(
    ("state", "rows", "started", "verdict", "said"),
    [
        ("waiting", [{}], False, None, "ahead"),
        ("aborted", [{}], False, None, "not_reached"),
        ("running", [APPLIED, {}], True, None, "running"),
        ("running", [APPLIED], True, None, "soaking"),
        ("waiting", [APPLIED, {}], True, None, "paused"),
        ("held", [APPLIED, {}], True, None, "held"),
        ("aborted", [APPLIED, {}], True, None, "aborted"),
        ("running", [APPLIED], True, "promote", "promoted"),
        ("held", [APPLIED], True, "inconclusive", "held"),
        ("undoing", [APPLIED], True, "undo", "undoing"),
        ("undone", [APPLIED | {"undo_outcome": Outcome.UNDONE}], True, "undo", "undone"),
        ("held", [APPLIED | {"undo_outcome": Outcome.FAILED}], True, "undo", "undo_failed"),
        ("held", [APPLIED | {"undo_outcome": Outcome.UNKNOWN}], True, "promote", "undo_failed"),
    ],
)
def test_state_of_a_wave(state: str, rows: list[dict[str, Any]], started: bool, verdict: str | None, said: str) -> None:
    mine = [target_row(**row) for row in rows]
    assert wave_state(rollout_row(RolloutState(state)), mine, started=started, verdict=verdict) == said


def one_target(story: Story, name: str) -> dict[str, Any]:
    row = next(item for item in story.ledger.targets(story.rollout) if item.target == name)
    return target_view(row, story.plan, story.ledger.entries(story.rollout), story.ledger.now())


def test_step_log_pairs_intents_with_their_ends_in_order(tmp_path: Path) -> None:
    ledger, clock = open_story_ledger(tmp_path)
    view = one_target(held(ledger, clock, 12), "web-01")
    assert [(step["name"], step["ok"], step["exit_code"]) for step in view["steps"]] == [
        ("download", True, 0),
        ("install", True, 0),
        ("restart-services", True, 0),
    ]
    assert view["planned"]["undo"] == "3 of 3 packages"
    assert view["log"][-1]["text"].startswith("outcome: applied")


def test_step_whose_end_nobody_saw_stays_open_in_the_log(tmp_path: Path) -> None:
    ledger, clock = open_story_ledger(tmp_path)
    story = Story(ledger, clock, size=12).opened().approved().begin_wave(1)
    story.begin("web-01")
    story.steps("web-01", ("install", Phase.APPLY, None, ""))
    (step,) = one_target(story, "web-01")["steps"]
    assert (step["ok"], step["ended_at"], step["exit_code"]) == (None, None, None)
