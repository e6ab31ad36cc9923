"""What must hold on both databases: appending, fencing, idempotence, projections."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ledger_suite.sequences import projected
from ledger_suite.values import K, R, SetClock, claim, entry, fence, opened
from patching.change import Outcome, TargetState
from patching.errors import FenceLost, LedgerConflict, LedgerError, TransitionRefused
from patching.ledger.base import Fence
from patching.ledger.entry import CONTROL, GENESIS
from patching.ledger.redaction import REDACTED
from patching.ledger.store import SqlLedger
from patching.rollout.states import RolloutState

STEP = {"name": "upgrade", "phase": "apply", "kind": "act", "call": {"script": "true", "sudo": True}}

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_INTENT = {"step": {**STEP, "note": "\x00 ü \u2028"}, "generation": 0}
EVERY_SHAPE = [
    entry(K.GATE, "g", wave=1, share=0.5, whole=2.0, large=2**53 - 1, none=None, nested={"b": [True, {}], "a": "x"}),
    entry(
        K.GATE, 'ü \u2028 \U0001f600 "quoted" \\ \t \x7f', chain="c\n1", actor="eva \x1f <é>", ü=1, **{"€": 2, "😀": 3}
    ),
    entry(K.VERDICT, "v", target="a", reason="password=hunter2", long="é" * 70_000),
    entry(K.INTENT, "i:s1", target="a", step="s1").model_copy(update={"body": _INTENT}),
    entry(K.INTENT, "i:s2", target="a", step="s2").model_copy(update={"body": _INTENT}),
    entry(K.STEP_OUTCOME, "o:s1", target="a", step="s1", exit_code=0, stdout="a\x00b\udcff"),
    entry(K.STEP_OUTCOME, "o:unknown", target="a", step="s9", exit_code=0),
    entry(K.STEP_OUTCOME, "o:none", exit_code=1),
]


class WritingContract:
    """Run by a subclass per database, which has the fixtures ``ledger`` and ``clock``."""

    def test_first_entry_of_a_chain_follows_genesis_and_the_next_one_follows_it(self, ledger: SqlLedger) -> None:
        first = ledger.append(entry(K.GATE, "g1", wave=1))
        second = ledger.append(entry(K.GATE, "g2", wave=1))
        assert (first.seq, first.previous) == (1, GENESIS)
        assert (second.seq, second.previous) == (2, first.hash)
        assert ledger.entries(R) == [first, second]
        assert ledger.find(R, "g2") == second
        assert ledger.chains() == [R]

    def test_same_key_and_body_again_returns_the_first_entry(self, ledger: SqlLedger, clock: SetClock) -> None:
        first = ledger.append(entry(K.GATE, "g", wave=1, share=0.5))
        clock.move(60)
        assert ledger.append(entry(K.GATE, "g", wave=1, share=0.5)) == first
        assert len(ledger.entries(R)) == 1

    @pytest.mark.parametrize(
        "other",
        [
            entry(K.GATE, "g", wave=2),
            entry(K.GATE, "g", wave=1, actor="eva"),
            entry(K.GATE, "g", wave=1, target="a"),
            entry(K.VERDICT, "g", wave=1),
        ],
    )
    def test_same_key_with_anything_else_changed_is_a_conflict_and_keeps_the_first(self, ledger, other) -> None:
        first = ledger.append(entry(K.GATE, "g", wave=1))
        with pytest.raises(LedgerConflict, match="keeps the first"):
            ledger.append(other)
        assert ledger.entries(R) == [first]

    def test_one_bad_entry_of_append_all_writes_none(self, ledger: SqlLedger) -> None:
        ledger.append(entry(K.GATE, "g", wave=1))
        with pytest.raises(LedgerConflict):
            ledger.append_all([entry(K.GATE, "new", wave=1), entry(K.GATE, "g", wave=9)])
        assert ledger.find(R, "new") is None
        assert ledger.verify() == []

    def test_secret_in_a_body_is_redacted_before_it_is_hashed(self, ledger: SqlLedger) -> None:
        written = ledger.append(entry(K.STEP_OUTCOME, "o", step="s", stdout="password=hunter2", headers={"token": "t"}))
        assert written.body == {"stdout": f"password={REDACTED}", "headers": {"token": REDACTED}}
        again = ledger.append(entry(K.STEP_OUTCOME, "o", step="s", stdout="password=hunter2", headers={"token": "t"}))
        assert again == written
        assert ledger.verify() == []

    def test_step_with_a_secret_is_refused_because_a_resumed_step_would_run_with_a_hole(self, ledger) -> None:
        opened(ledger)
        step = {**STEP, "call": {"script": "curl https://eva:hunter2@repo.example/x", "sudo": False}}
        secret = entry(K.INTENT, "i", target="a", step="s1").model_copy(
            update={"body": {"step": step, "generation": 0}}
        )
        with pytest.raises(LedgerError, match=r"\$\.step\.call\.script") as refused:
            ledger.append(secret)
        assert "hunter2" not in str(refused.value)
        assert ledger.intents() == []

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, object(), {1, 2}])
    def test_value_that_is_no_json_is_refused_and_nothing_written(self, ledger: SqlLedger, value: object) -> None:
        with pytest.raises(LedgerError, match="nothing was written"):
            ledger.append(entry(K.GATE, "g", value=value))
        assert ledger.entries(R) == []

    @pytest.mark.parametrize("text", ["", "nul\x00", "\udcff"])
    def test_name_that_a_database_cannot_hold_is_refused(self, ledger: SqlLedger, text: str) -> None:
        with pytest.raises(LedgerError, match="without NUL"):
            ledger.append(entry(K.GATE, text))

    def test_output_that_is_no_unicode_and_has_nul_is_kept_as_far_as_it_can_be(self, ledger: SqlLedger) -> None:
        ledger.append(entry(K.STEP_OUTCOME, "o", step="s", stdout="a\x00b\udcff ü"))
        found = ledger.find(R, "o")
        assert found is not None
        assert found.body["stdout"] == "a\x00b? ü"
        assert ledger.verify() == []

    def test_entries_are_filtered_by_kind_target_place_and_number(self, ledger: SqlLedger) -> None:
        for number in range(4):
            ledger.append(entry(K.GATE if number % 2 else K.VERDICT, f"k{number}", target="ab"[number // 2]))
        assert [item.key for item in ledger.entries(R, kinds=[K.GATE])] == ["k1", "k3"]
        assert [item.key for item in ledger.entries(R, target="b")] == ["k2", "k3"]
        assert [item.key for item in ledger.entries(R, after=1, limit=2)] == ["k1", "k2"]

    def test_document_is_kept_once_by_its_digest(self, ledger: SqlLedger) -> None:
        document = {"targets": ["a", "ü"], "n": 1.0}
        digest = ledger.store_document("plan", document)
        assert ledger.store_document("plan", document) == digest
        assert ledger.document(digest) == document

    def test_unknown_document_is_an_error_not_an_empty_one(self, ledger: SqlLedger) -> None:
        with pytest.raises(LedgerError, match="never stored"):
            ledger.document("0" * 64)

    def test_plan_with_a_secret_is_refused_but_a_snapshot_is_redacted(self, ledger: SqlLedger) -> None:
        secret = {"env": {"db_password": "hunter2"}}
        with pytest.raises(LedgerError, match=r"\$\.env\.db_password"):
            ledger.store_document("plan", secret)
        digest = ledger.store_document("snapshots", secret)
        assert ledger.document(digest) == {"env": {"db_password": REDACTED}}

    def test_zombie_can_neither_append_nor_repeat_after_a_takeover(self, ledger: SqlLedger, clock: SetClock) -> None:
        """F8, T12."""
        opened(ledger)
        old = ledger.acquire("old", R, "a", [claim("target", "a")], ttl=30)
        intent = entry(K.TARGET_BEGAN, "began:a", target="a", wave=1)
        ledger.append(intent, fence(old))
        clock.move(31)
        new = ledger.acquire("new", R, "a", [claim("target", "a")], ttl=30)
        assert new.epoch == old.epoch + 1
        for zombie in (intent, entry(K.TARGET_PROGRESS, "p", target="a", phase="apply")):
            with pytest.raises(FenceLost, match="owner new"):
                ledger.append(zombie, fence(old))
        assert ledger.append(intent, fence(new)).seq == ledger.entries(R, kinds=[K.TARGET_BEGAN])[0].seq

    def test_zombie_hears_of_its_lost_lease_before_it_hears_what_is_wrong_with_its_entry(self, ledger) -> None:
        lost = Fence(lease="gone", epoch=1)
        for bad in (entry(K.GATE, "g", value=float("nan")), entry(K.GATE, "\x00")):
            with pytest.raises(FenceLost, match="was released"):
                ledger.append(bad, lost)
            with pytest.raises(LedgerError):
                ledger.append(bad)

    def test_same_key_within_one_transaction_is_written_once(self, ledger: SqlLedger) -> None:
        same, other = entry(K.GATE, "g", n=1), entry(K.GATE, "h", chain="r2")
        first, again, elsewhere, last = ledger.append_all([same, same, other, entry(K.GATE, "i")])
        assert (again, last.previous, elsewhere.seq) == (first, first.hash, 1)
        assert [item.key for item in ledger.entries(R)] == ["g", "i"]
        assert ledger.append(entry(K.GATE, "j", chain="r2")).previous == elsewhere.hash
        assert ledger.verify() == []

    def test_repetition_at_the_end_of_a_transaction_leaves_no_entry_without_its_head(self, ledger: SqlLedger) -> None:
        written = ledger.append(entry(K.GATE, "g"))
        ledger.append_all([entry(K.GATE, "h"), entry(K.GATE, "g")])
        last = ledger.append(entry(K.GATE, "i"))
        assert [item.seq for item in ledger.entries(R)] == [written.seq, written.seq + 1, last.seq]
        assert ledger.verify() == []

    def test_entry_that_is_written_alone_is_written_as_one_among_others(self, fresh, clock: SetClock) -> None:
        """The direct way and the other one leave the same rows, byte by byte."""
        alone, among = fresh(), fresh()
        for ledger in (alone, among):
            opened(ledger)
            assert ledger.acquire("me", R, "a", [], ttl=30).epoch == 1
        lease = alone.leases()[0]
        for number, item in enumerate(EVERY_SHAPE):
            clock.move(number * 0.000001)
            written = alone.append(item, fence(lease))
            assert among.append_all([item], fence(lease)) == [written]
            assert alone.find(item.chain, item.key) == written
        assert projected(alone) == projected(among)
        assert alone.heads() == among.heads()
        assert alone.verify() == among.verify() == []

    def test_ordinary_entry_asks_nothing_before_it_is_written(self, ledger: SqlLedger, monkeypatch) -> None:
        opened(ledger)
        lease = ledger.acquire("me", R, "a", [], ttl=30)
        monkeypatch.setattr(ledger, "group", None)
        for item in EVERY_SHAPE:
            assert ledger.append(item, fence(lease)).key == item.key

    def test_append_after_release_is_fenced(self, ledger: SqlLedger) -> None:
        lease = ledger.acquire("me", R, "a", [], ttl=30)
        ledger.release(lease)
        with pytest.raises(FenceLost, match="released"):
            ledger.append(entry(K.GATE, "g"), fence(lease))

    def test_transition_is_written_only_through_the_table(self, ledger: SqlLedger) -> None:
        opened(ledger)
        row = ledger.transition(R, RolloutState.AWAITING_APPROVAL, reason="40 targets", actor="eva")
        assert (row.state, row.reason) == (RolloutState.AWAITING_APPROVAL, "40 targets")
        with pytest.raises(TransitionRefused, match="awaiting_approval"):
            ledger.transition(R, RolloutState.RUNNING, reason="T3: nobody approved")
        with pytest.raises(TransitionRefused, match="transition\\(\\)"):
            ledger.append(entry(K.TRANSITION, "t", to="running"))
        written = ledger.entries(R, kinds=[K.TRANSITION])
        assert [item.body for item in written] == [
            {"from": "planned", "to": "awaiting_approval", "reason": "40 targets"}
        ]

    def test_transition_to_where_it_is_already_writes_nothing(self, ledger: SqlLedger) -> None:
        opened(ledger)
        ledger.transition(R, RolloutState.WAITING, reason="first")
        assert ledger.transition(R, RolloutState.WAITING, reason="again").reason == "first"
        assert len(ledger.entries(R, kinds=[K.TRANSITION])) == 1

    def test_transition_of_an_unknown_rollout_is_an_error(self, ledger: SqlLedger) -> None:
        with pytest.raises(LedgerError, match="never opened"):
            ledger.transition("nobody", RolloutState.WAITING, reason="x")

    def test_rollout_row_follows_its_entries(self, ledger: SqlLedger, clock: SetClock) -> None:
        plan = opened(ledger)
        clock.move(1)
        ledger.append(entry(K.RUN_BEGAN, "run:1", run="dag::1", mode="apply"))
        ledger.append(entry(K.WAITS, "w:1", sentence="waits for the window"))
        row = ledger.rollout(R)
        assert row is not None
        assert (row.policy, row.plan_digest, row.run, row.waits_for) == ("web", plan, "dag::1", "waits for the window")
        assert row.updated_at - row.opened_at == timedelta(seconds=1)
        assert ledger.rollout_of("dag::1") == R
        ledger.append(entry(K.RUN_ENDED, "run:1:end", run="dag::1"))
        ledger.transition(R, RolloutState.ABORTED, reason="eva said so")
        row = ledger.rollout(R)
        assert row is not None
        assert (row.run, row.waits_for, row.state) == (None, "", RolloutState.ABORTED)
        assert ledger.rollout_of("dag::1") == R

    def test_rollouts_are_listed_newest_first_and_filtered(self, ledger: SqlLedger) -> None:
        for name in ("r1", "r2", "r3"):
            opened(ledger, name, policy="db" if name == "r2" else "web")
        ledger.transition("r3", RolloutState.ABORTED, reason="x")
        assert [row.id for row in ledger.rollouts()] == ["r3", "r2", "r1"]
        assert [row.id for row in ledger.rollouts(policy="web")] == ["r3", "r1"]
        assert [row.id for row in ledger.rollouts(open_only=True, limit=1)] == ["r2"]

    def test_target_goes_from_pending_to_its_outcome(self, ledger: SqlLedger, clock: SetClock) -> None:
        opened(ledger)
        ledger.append(entry(K.WAITS, "w:a:0", target="a", sentence="waits for az-1"))
        waiting = ledger.targets(R)[0]
        assert (waiting.state, waiting.waits_for) == (TargetState.WAITING, "waits for az-1")
        ledger.append(entry(K.TARGET_BEGAN, "began:a", target="a", wave=1))
        ledger.append(entry(K.TARGET_PROGRESS, "p", target="a", phase="apply", detail="12 packages"))
        running = ledger.targets(R)[0]
        assert (running.state, running.phase, running.detail) == (TargetState.RUNNING, "apply", "12 packages")
        assert (running.waits_for, running.began_at) == ("", clock())
        assert [row.rollout for row in ledger.holding("a")] == [R]
        assert ledger.holding("a", other_than=R) == []
        clock.move(5)
        ledger.append(entry(K.TARGET_OUTCOME, "out:a", target="a", outcome="failed", reason="x", signature="apt:100"))
        ended = ledger.targets(R)[0]
        assert (ended.state, ended.outcome, ended.signature) == (TargetState.ENDED, Outcome.FAILED, "apt:100")
        assert ended.ended_at == clock()
        assert ledger.holding("a") == []
        ledger.append(entry(K.TARGET_PROGRESS, "p2", target="a", phase="undo"))
        assert ledger.targets(R)[0].state is TargetState.UNDOING
        ledger.append(entry(K.TARGET_OUTCOME, "undo:a", target="a", outcome="undone", reason="y", undo=True))
        undone = ledger.targets(R)[0]
        assert (undone.state, undone.outcome, undone.undo_outcome) == (
            TargetState.ENDED,
            Outcome.FAILED,
            Outcome.UNDONE,
        )

    def test_targets_are_in_plan_order(self, ledger: SqlLedger) -> None:
        opened(ledger, targets=("z", "a", "m"))
        assert [(row.wave, row.target) for row in ledger.targets(R)] == [(1, "a"), (1, "z"), (2, "m")]

    def test_reopened_target_is_pending_again_and_its_generation_only_rises(self, ledger: SqlLedger) -> None:
        opened(ledger)
        ledger.append(entry(K.TARGET_BEGAN, "began:a", target="a", wave=1))
        ledger.append(entry(K.TARGET_OUTCOME, "out:a", target="a", outcome="failed", reason="x", signature="s"))
        ledger.append(entry(K.GENERATION_RAISED, "gen:1", target="a", generation=1, reason="retry", reopen=True))
        row = ledger.targets(R)[0]
        assert (row.state, row.outcome, row.generation) == (TargetState.PENDING, None, 1)
        assert (row.began_at is None, row.signature) == (False, None), "what it was changed to is not forgotten"
        with pytest.raises(LedgerConflict, match="only rises"):
            ledger.append(entry(K.GENERATION_RAISED, "gen:1b", target="a", generation=1, reason="again"))

    def test_step_has_one_intent_and_its_outcome_closes_it(self, ledger: SqlLedger) -> None:
        """T9, F8: a second intent for the same step id can only come from somebody who runs it blindly twice."""
        opened(ledger)
        body = {"step": STEP, "generation": 0}
        made = entry(K.INTENT, "i:s1", target="a", step="s1").model_copy(update={"body": body})
        ledger.append(made)
        (intent,) = ledger.intents(rollout=R)
        assert (intent.step_id, intent.step, intent.open, intent.handle) == ("s1", STEP, True, None)
        with pytest.raises(LedgerConflict, match="must not run twice"):
            ledger.append(made.model_copy(update={"key": "i:s1:again"}))
        progress = entry(K.TARGET_PROGRESS, "p", target="a", step="s1", phase="apply", handle={"dir": "/var/lib/x"})
        ledger.append(progress)
        assert ledger.intents(target="a")[0].handle == {"dir": "/var/lib/x"}
        ledger.append(entry(K.STEP_OUTCOME, "o:s1", target="a", step="s1", exit_code=0))
        assert ledger.intents() == []
        assert [item.open for item in ledger.intents(rollout=R, open_only=False)] == [False]

    def test_one_target_and_the_counts_say_the_same_as_all_rows(self, ledger: SqlLedger) -> None:
        opened(ledger)
        opened(ledger, "other")
        ledger.append(entry(K.TARGET_OUTCOME, "out:a", target="a", outcome="failed", reason="x", signature="apt:100"))
        assert [ledger.target(R, row.target) for row in ledger.targets(R)] == ledger.targets(R)
        assert ledger.target(R, "nobody") is None
        found = {(item.wave, item.outcome, item.signature): item.targets for item in ledger.outcomes(R)}
        assert found == {(1, Outcome.FAILED, "apt:100"): 1, (1, None, None): 1, (2, None, None): 1}

    def test_down_are_those_that_are_offline_or_broken_and_hold_no_place(self, ledger: SqlLedger) -> None:
        opened(ledger)
        snapshot = ledger.store_document("snapshot", {})
        ledger.append(entry(K.TARGET_OUTCOME, "out:a", target="a", outcome="offline", reason="x", signature="offline"))
        ledger.append(entry(K.TARGET_OUTCOME, "out:b", target="b", outcome="failed", reason="x", signature="y"))
        ledger.append(entry(K.TARGET_BEGAN, "began:c", target="c", wave=2, snapshot=snapshot))
        assert [row.target for row in ledger.down(R)] == ["a"]
        ledger.append(entry(K.TARGET_OUTCOME, "out:c", target="c", outcome="failed", reason="x", signature="y"))
        assert [row.target for row in ledger.down(R)] == ["a", "c"]
        again = {"generation": 1, "reason": "back", "reopen": True}
        ledger.append(entry(K.GENERATION_RAISED, "gen:a", target="a", **again))
        ledger.append(entry(K.GENERATION_RAISED, "gen:c", target="c", **again))
        assert [row.target for row in ledger.down(R)] == ["c"]
        ledger.append(entry(K.TARGET_OUTCOME, "out:c:1", target="c", outcome="failed", reason="x", signature="y"))
        undone = {"outcome": "undone", "reason": "x", "signature": None, "undo": True}
        ledger.append(entry(K.TARGET_OUTCOME, "undo:c", target="c", **undone))
        assert ledger.down(R) == []

    def test_what_stops_launching_is_read_together_and_says_the_same_as_each_alone(self, ledger: SqlLedger) -> None:
        opened(ledger)
        row = ledger.rollout(R)
        assert row is not None
        before = ledger.standing(R, now=NOW)
        assert (before.stopped, before.state, list(before.outcomes)) == (None, row.state, ledger.outcomes(R))
        ledger.append(entry(K.STOP_SWITCH, "stop:1", chain=CONTROL, actor="eva", on=True, reason="incident 7"))
        ledger.append(entry(K.TARGET_OUTCOME, "out:a", target="a", outcome="failed", reason="x", signature="apt:100"))
        after = ledger.standing(R, now=NOW)
        assert (after.stopped, list(after.outcomes)) == (ledger.stopped(), ledger.outcomes(R))
        assert after.stopped
        assert after.outcomes != before.outcomes
        assert ledger.standing("nobody", now=NOW).state is None

    def test_what_a_job_must_know_is_read_together_and_says_the_same_as_each_alone(self, ledger: SqlLedger) -> None:
        opened(ledger)
        ledger.append(entry(K.INTENT, "i:s1", target="a", step="s1").model_copy(update={"body": _INTENT}))
        ledger.append(entry(K.TARGET_OUTCOME, "out:b", target="b", outcome="offline", reason="x", signature="offline"))
        kept = {"reason": "bad disk", "until": (NOW + timedelta(days=1)).isoformat()}
        ledger.append(entry(K.QUARANTINED, "q:c", target="c", **kept))
        known = ledger.known(R, "a")
        assert (known.row, list(known.entries)) == (ledger.target(R, "a"), ledger.entries(R, target="a"))
        assert known.entries
        assert known.down == {row.target for row in ledger.down(R)} == {"b"}
        assert list(ledger.standing(R, now=NOW).quarantines) == ledger.quarantines(now=NOW)
        assert [item.target for item in ledger.standing(R, now=NOW).quarantines] == ["c"]
        assert ledger.standing(R, now=NOW + timedelta(days=2)).quarantines == ()
        assert ledger.known(R, "nobody").row is None

    def test_only_targets_not_begun_are_superseded(self, ledger: SqlLedger) -> None:
        opened(ledger)
        ledger.append(entry(K.TARGET_BEGAN, "began:a", target="a", wave=1))
        ledger.append(entry(K.SUPERSEDED_TARGETS, "sup", targets=["a", "b"], by="emergency-1"))
        rows = {row.target: row for row in ledger.targets(R)}
        assert (rows["a"].outcome, rows["b"].outcome, rows["c"].outcome) == (None, Outcome.SUPERSEDED, None)
        assert rows["b"].detail == "superseded by emergency-1"

    def test_later_rollout_that_may_have_changed_a_target_is_named(self, ledger: SqlLedger) -> None:
        """An undo is refused for a target that a later rollout changed; failed or unknown may be a change."""
        for name in ("r1", "r2", "r3", "r4"):
            opened(ledger, name)
            ledger.append(entry(K.TARGET_BEGAN, "began:a", chain=name, target="a", wave=1))
        done = {"r1": "applied", "r2": "failed", "r3": "nothing_to_do"}
        for name, outcome in done.items():
            ledger.append(entry(K.TARGET_OUTCOME, "out:a", chain=name, target="a", outcome=outcome, reason="x"))
        assert ledger.later_rollouts("r1", "a") == ["r4", "r2"]
        ledger.append(entry(K.TARGET_OUTCOME, "und:a", chain="r2", target="a", outcome="undone", reason="x", undo=True))
        assert ledger.later_rollouts("r1", "a") == ["r4"]
        assert ledger.later_rollouts("r4", "a") == []

    def test_quarantine_lasts_until_it_expires_or_is_released(self, ledger: SqlLedger, clock: SetClock) -> None:
        until = (clock() + timedelta(days=1)).isoformat()
        ledger.append(entry(K.QUARANTINED, "q:a", target="a", reason="failed", until=until))
        ledger.append(entry(K.QUARANTINED, "q:b", target="b", reason="failed", until=None))
        assert [item.target for item in ledger.quarantines(now=clock())] == ["a", "b"]
        assert [item.target for item in ledger.quarantines(now=clock() + timedelta(days=1))] == ["b"]
        ledger.append(entry(K.RELEASED, "rel:b", chain=CONTROL, target="b", actor="eva", reason="looked at"))
        assert [item.target for item in ledger.quarantines(now=clock())] == ["a"]

    def test_stop_switch_is_on_until_it_is_off_and_only_in_control(self, ledger: SqlLedger) -> None:
        assert ledger.stopped() is None
        ledger.append(entry(K.STOP_SWITCH, "stop:1", chain=CONTROL, actor="eva", on=True, reason="incident 7"))
        assert ledger.stopped() == "incident 7"
        ledger.append(entry(K.STOP_SWITCH, "stop:2", chain=CONTROL, actor="eva", on=False))
        assert ledger.stopped() is None
        with pytest.raises(LedgerError, match="control"):
            ledger.append(entry(K.STOP_SWITCH, "stop:3", on=True))

    def test_plan_cannot_be_exchanged_once_a_target_has_begun(self, ledger: SqlLedger) -> None:
        opened(ledger)
        ledger.append(entry(K.TARGET_BEGAN, "began:a", target="a", wave=1))
        with pytest.raises(LedgerConflict, match="another rollout"):
            ledger.append(entry(K.PLAN_FROZEN, "plan:2", plan="1" * 64, targets=[]))

    @pytest.mark.parametrize(
        "bad",
        [
            entry(K.TARGET_BEGAN, "x", target="nobody", wave=1),
            entry(K.TARGET_BEGAN, "x", wave=1),
            entry(K.TARGET_OUTCOME, "x", target="a", outcome="splendid", reason="no such outcome"),
            entry(K.WAITS, "x", chain="never-opened", sentence="s"),
            entry(K.INTENT, "x", target="a", generation=0),
            entry(K.PLAN_FROZEN, "x", targets=[]),
            entry(K.LEASE_TAKEN, "x", target="a", lease="l"),
        ],
        ids=lambda item: f"{item.kind.value}-{item.target}",
    )
    def test_entry_that_speaks_of_what_does_not_exist_is_refused_and_not_written(self, ledger, bad) -> None:
        opened(ledger)
        with pytest.raises(LedgerError, match="written"):
            ledger.append(bad)
        assert ledger.find(bad.chain, "x") is None
        assert ledger.verify() == []
