"""What must hold on both databases: leases."""

from __future__ import annotations

import pytest

from ledger_suite.values import K, R, SetClock, claim
from patching.errors import FenceLost, LedgerError
from patching.ledger.base import Busy, Lease
from patching.ledger.store import SqlLedger


def held(answer: Lease | Busy) -> Lease:
    assert isinstance(answer, Lease), answer
    return answer


class LeaseContract:
    """Run by a subclass per database, which has the fixtures ``ledger`` and ``clock`` (F2, F8, T12)."""

    def test_whole_set_or_nothing(self, ledger: SqlLedger) -> None:
        held(ledger.acquire("me", R, "a", [claim("target", "a"), claim("domain", "az-1")], ttl=30))
        answer = ledger.acquire("me", R, "b", [claim("target", "b"), claim("domain", "az-1")], ttl=30)
        assert isinstance(answer, Busy)
        assert answer.sentence == f"waits for domain az-1: 1 of 1 in use by a (rollout {R})"
        assert [lease.target for lease in ledger.leases()] == ["a"]
        held(ledger.acquire("you", "other", "c", [claim("target", "c")], ttl=30))

    def test_living_owner_keeps_its_target(self, ledger: SqlLedger, clock: SetClock) -> None:
        held(ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30))
        clock.move(29)
        answer = ledger.acquire("you", R, "a", [claim("target", "a")], ttl=30)
        assert answer == Busy(kind="target", name="a", limit=1, holders=("me",))

    def test_same_owner_again_renews_the_same_lease_without_an_entry(self, ledger, clock) -> None:
        first = held(ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30))
        clock.move(10)
        again = held(ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30))
        assert (again.id, again.epoch) == (first.id, first.epoch)
        assert (again.expires_at - first.expires_at).total_seconds() == 10
        assert ledger.leases() == [again]
        assert len(ledger.entries(R)) == 1

    def test_expiry_moves_ownership_but_never_capacity(self, ledger: SqlLedger, clock: SetClock) -> None:
        first = held(ledger.acquire("me", R, "a", [claim("target", "a"), claim("domain", "az-1")], ttl=30))
        clock.move(3600)
        answer = ledger.acquire("you", R, "b", [claim("domain", "az-1")], ttl=30)
        assert isinstance(answer, Busy)
        other_rollout = ledger.acquire("you", "other", "a", [claim("target", "a")], ttl=30)
        assert isinstance(other_rollout, Busy)
        taken = held(ledger.acquire("you", R, "a", [claim("target", "a")], ttl=30))
        assert (taken.id, taken.epoch, taken.owner) == (first.id, 2, "you")
        assert taken.claims == first.claims
        (said,) = ledger.entries(R, kinds=[K.LEASE_TAKEN_OVER])
        assert (said.body["from"], said.body["owner"], said.body["epoch"]) == ("me", "you", 2)

    def test_lost_owner_can_do_nothing_with_its_lease(self, ledger: SqlLedger, clock: SetClock) -> None:
        old = held(ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30))
        clock.move(31)
        held(ledger.acquire("you", R, "a", [], ttl=30))
        for act in (
            lambda: ledger.heartbeat(old, ttl=30),
            lambda: ledger.extend(old, [claim("reboot", "all")]),
            lambda: ledger.release(old),
        ):
            with pytest.raises(FenceLost, match="owner you"):
                act()

    def test_expired_lease_that_nobody_took_is_prolonged_by_its_heartbeat(self, ledger, clock) -> None:
        lease = held(ledger.acquire("me", R, "a", [], ttl=30))
        clock.move(60)
        beaten = ledger.heartbeat(lease, ttl=30)
        assert (beaten.expires_at - clock()).total_seconds() == 30
        assert isinstance(ledger.acquire("you", R, "a", [], ttl=30), Busy)

    def test_reboot_is_added_to_a_held_lease_or_is_busy(self, ledger: SqlLedger) -> None:
        """F2: a reboot storm is stopped here."""
        first = held(ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30))
        second = held(ledger.acquire("me", R, "b", [claim("target", "b")], ttl=30))
        more = held(ledger.extend(first, [claim("reboot", "all")]))
        assert {(item.kind, item.name) for item in more.claims} == {("target", "a"), ("reboot", "all")}
        assert isinstance(ledger.extend(second, [claim("reboot", "all")]), Busy)
        assert held(ledger.extend(more, [claim("reboot", "all")])) == more
        ledger.release(more)
        assert isinstance(ledger.extend(second, [claim("reboot", "all")]), Lease)

    def test_tightest_limit_of_all_holders_counts(self, ledger: SqlLedger) -> None:
        """Whoever was promised to be the only one stays the only one."""
        held(ledger.acquire("me", R, "a", [claim("domain", "az", 1)], ttl=30))
        assert isinstance(ledger.acquire("you", "r2", "b", [claim("domain", "az", 5)], ttl=30), Busy)

    def test_limit_of_nothing_is_always_busy(self, ledger: SqlLedger) -> None:
        answer = ledger.acquire("me", R, "a", [claim("domain", "az", 0)], ttl=30)
        assert isinstance(answer, Busy)
        assert answer.holders == ()

    def test_release_frees_capacity_and_a_second_release_is_no_error(self, ledger: SqlLedger) -> None:
        first = held(ledger.acquire("me", R, "a", [claim("domain", "az")], ttl=30))
        ledger.release(first)
        ledger.release(first)
        assert ledger.leases() == []
        again = held(ledger.acquire("me", R, "a", [claim("domain", "az")], ttl=30))
        assert again.id != first.id
        assert again.epoch > first.epoch
        assert [item.kind for item in ledger.entries(R)] == [K.LEASE_TAKEN, K.LEASE_ENDED, K.LEASE_TAKEN]

    def test_release_of_a_lease_that_never_was_is_an_error(self, ledger: SqlLedger) -> None:
        lease = held(ledger.acquire("me", R, "a", [], ttl=30))
        with pytest.raises(LedgerError):
            ledger.release(lease.model_copy(update={"id": "nobody"}))

    def test_who_asked_earlier_goes_first_and_the_other_is_told_so(self, ledger: SqlLedger) -> None:
        first = held(ledger.acquire("me", R, "a", [claim("domain", "az")], ttl=30))
        assert isinstance(ledger.acquire("me", R, "b", [claim("domain", "az")], ttl=30), Busy)
        ledger.release(first)
        answer = ledger.acquire("you", "other", "c", [claim("domain", "az")], ttl=30)
        assert isinstance(answer, Busy)
        assert answer.sentence == f"waits for domain az: 1 of 1 in use by b (rollout {R}, asked earlier)"
        held(ledger.acquire("me", R, "b", [claim("domain", "az")], ttl=30))
        assert [waiter.target for waiter in ledger.waiters()] == ["c"]

    def test_place_that_a_waiter_needs_not_is_given_away(self, ledger: SqlLedger) -> None:
        """Ten that wait for one scarce resource keep one place of the others empty, not ten."""
        held(ledger.acquire("me", R, "a", [claim("domain", "az-1"), claim("service", "web", 3)], ttl=30))
        for name in ("b", "c", "d"):
            answer = ledger.acquire("me", R, name, [claim("domain", "az-1"), claim("service", "web", 3)], ttl=30)
            assert isinstance(answer, Busy)
        held(ledger.acquire("me", R, "e", [claim("domain", "az-2"), claim("service", "web", 3)], ttl=30))
        answer = ledger.acquire("me", R, "f", [claim("domain", "az-3"), claim("service", "web", 3)], ttl=30)
        assert isinstance(answer, Busy)
        assert "asked earlier" in answer.sentence

    def test_waiter_that_fell_silent_is_passed_and_keeps_its_place_for_when_it_is_back(self, ledger, clock) -> None:
        first = held(ledger.acquire("me", R, "a", [claim("domain", "az")], ttl=30))
        assert isinstance(ledger.acquire("me", R, "b", [claim("domain", "az")], ttl=30), Busy)
        clock.move(31)
        assert isinstance(ledger.acquire("you", R, "c", [claim("domain", "az")], ttl=30), Busy)
        assert [waiter.target for waiter in ledger.waiters()] == ["c"]
        assert isinstance(ledger.acquire("me", R, "b", [claim("domain", "az")], ttl=30), Busy)
        assert [waiter.target for waiter in ledger.waiters()] == ["b", "c"]
        ledger.release(first)
        clock.move(31)
        held(ledger.acquire("you", R, "c", [claim("domain", "az")], ttl=30))

    def test_waiter_behind_an_unknown_outcome_does_not_block_the_rest(self, ledger, clock) -> None:
        """An expired lease may stay for ever: whoever waits for its place reserves nothing elsewhere."""
        held(ledger.acquire("dead", R, "a", [claim("domain", "az-1")], ttl=30))
        clock.move(31)
        wanted = [claim("domain", "az-1"), claim("service", "web")]
        assert isinstance(ledger.acquire("me", R, "b", wanted, ttl=30), Busy)
        held(ledger.acquire("me", R, "c", [claim("domain", "az-2"), claim("service", "web")], ttl=30))

    def test_who_adds_to_a_lease_does_not_wait_for_those_who_hold_nothing(self, ledger: SqlLedger) -> None:
        """Otherwise b would wait for a's domain, and a for the reboot that is reserved for b."""
        first = held(ledger.acquire("me", R, "a", [claim("domain", "az")], ttl=30))
        both = [claim("domain", "az"), claim("reboot", "all")]
        assert isinstance(ledger.acquire("me", R, "b", both, ttl=30), Busy)
        held(ledger.extend(first, [claim("reboot", "all")]))

    def test_strict_waiter_is_not_overtaken_for_ever_by_easy_ones(self, ledger: SqlLedger) -> None:
        first = held(ledger.acquire("me", R, "a", [claim("domain", "az", 5)], ttl=30))
        assert isinstance(ledger.acquire("me", R, "b", [claim("domain", "az", 1)], ttl=30), Busy)
        assert isinstance(ledger.acquire("me", R, "c", [claim("domain", "az", 5)], ttl=30), Busy)
        ledger.release(first)
        held(ledger.acquire("me", R, "b", [claim("domain", "az", 1)], ttl=30))

    def test_held_since_is_the_first_taking_whoever_took_it_over(self, ledger, clock) -> None:
        began = clock()
        lease = held(ledger.acquire("me", R, "a", [claim("target", "a")], ttl=30))
        clock.move(100)
        held(ledger.acquire("you", R, "a", [claim("target", "a")], ttl=30))
        assert ledger.held_since() == {lease.id: began}

    def test_queue_survives_a_rebuild(self, ledger: SqlLedger) -> None:
        held(ledger.acquire("me", R, "a", [claim("domain", "az")], ttl=30))
        assert isinstance(ledger.acquire("me", R, "b", [claim("domain", "az")], ttl=30), Busy)
        before = ledger.waiters()
        ledger.rebuild()
        assert ledger.waiters() == before
