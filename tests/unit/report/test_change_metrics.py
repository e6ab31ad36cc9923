"""Metrics of changes: one latest change for each target, bounded, and whatever a target is called."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from patching.change import Outcome, TargetState
from patching.ledger.base import RolloutRow, TargetRow
from patching.report import change_metrics as subject
from patching.rollout.states import FINAL, RolloutState

NOW = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)
Series = dict[str, list[tuple[dict[str, str], float]]]


def rollout(name: str = "r1", state: RolloutState = RolloutState.RUNNING, age: float = 0) -> RolloutRow:
    at = NOW - timedelta(hours=age)
    return RolloutRow(
        id=name, policy="web", state=state, plan_digest=None, emergency=False, opened_at=at, updated_at=at
    )


def target(name: str, began: float | None = 0, rollout: str = "r1") -> TargetRow:
    """One target that began so many hours ago; None: it is pending."""
    at = None if began is None else NOW - timedelta(hours=began)
    state, outcome = (TargetState.ENDED, Outcome.APPLIED) if at else (TargetState.PENDING, None)
    return TargetRow(rollout=rollout, target=name, wave=1, state=state, outcome=outcome, began_at=at, ended_at=at)


def read(text: bytes) -> Series:
    families = text_string_to_metric_families(text.decode())
    return {family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families}


def test_the_latest_change_of_a_target_is_the_only_one() -> None:
    shown = [
        (rollout("new"), [target("web-1", 1, "new"), target("web-2", None, "new")]),
        (rollout("old"), [target("web-1", 5, "old"), target("web-2", 5, "old")]),
    ]
    for order in (shown, shown[::-1]):
        found = read(subject.change_metrics(order, stopped=False))["patching_target_change_info"]
        assert {labels["target"]: labels["change_id"] for labels, _ in found} == {"web-1": "new", "web-2": "old"}
        assert len(found) == 2


def test_waves_states_and_the_stop_switch_are_told() -> None:
    shown = [(rollout(state=RolloutState.HELD), [target("a"), target("b"), target("c", None)])]
    found = read(subject.change_metrics(shown, stopped=True))
    info = {"change_id": "r1", "policy": "web", "state": "held", "emergency": "false"}
    assert found["patching_rollout_info"] == [(info, 1)]
    assert {labels["outcome"]: value for labels, value in found["patching_wave_targets"]} == {
        "applied": 2,
        "pending": 1,
    }
    assert found["patching_stopped"] == [({}, 1)]
    assert found["patching_target_change_timestamp_seconds"][0][1] == NOW.timestamp()


def test_targets_are_bounded_and_those_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_TARGETS", 2)
    shown = [(rollout(), [target(f"web-{age}", age) for age in (3, 1, 2)])]
    found = read(subject.change_metrics(shown, stopped=False))
    assert [labels["target"] for labels, _ in found["patching_target_change_info"]] == ["web-1", "web-2"]
    assert found["patching_targets_left_out"] == [({}, 1)]


@pytest.mark.parametrize("state", RolloutState)
def test_open_rollouts_are_always_shown_and_ended_ones_for_a_day(state: RolloutState) -> None:
    assert subject.shown_in_metrics(rollout(state=state, age=24), NOW)
    assert subject.shown_in_metrics(rollout(state=state, age=25), NOW) is (state not in FINAL)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1))
def test_no_name_of_a_target_can_write_a_series_of_its_own(name: str) -> None:
    lines = subject.change_metrics([(rollout(), [target(name)])], stopped=False).decode().split("\n")
    assert len([line for line in lines if line.startswith("patching_target_change_info{")]) == 1
    assert len([line for line in lines if line and not line.startswith(("#", "patching_"))]) == 0
