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
        held(ledger.acquire("you", "other", "b", [claim("target", "b")], ttl=30))

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
