"""Leases under random schedules, crashes and clock jumps (F2, F8): no limit is exceeded, and no waiter starves."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger_suite.empty import place_empty_ledger
from ledger_suite.values import SetClock
from patching.ledger.base import Busy, Claim, Lease, Waiter
from patching.ledger.store import SqlLedger, open_ledger

pytestmark = pytest.mark.slow

TTL = 30
LIMITS = {("domain", "az-1"): 1, ("domain", "az-2"): 2, ("service", "web"): 2, ("limit", "rack"): 3}
CLAIMS = [Claim(kind=kind, name=name, limit=limit) for (kind, name), limit in LIMITS.items()]
REBOOT = Claim(kind="reboot", name="web", limit=1)
LIMITS[REBOOT.kind, REBOOT.name] = REBOOT.limit
TARGETS = [f"t{number}" for number in range(8)]


def fresh(clock: SetClock) -> tuple[Path, SqlLedger]:
    folder = Path(tempfile.mkdtemp(prefix="patching-fair-"))
    return folder, open_ledger(place_empty_ledger(folder / "ledger.db"), clock=clock)


def counted(ledger: SqlLedger) -> Counter[tuple[str, str]]:
    return Counter((claim.kind, claim.name) for lease in ledger.leases() for claim in lease.claims)


class Queue(RuleBasedStateMachine):
    """Workers that ask, come back, die, are taken over and end, while the clock jumps both ways."""

    @initialize(wishes=st.lists(st.sets(st.sampled_from(CLAIMS), min_size=1), min_size=8, max_size=8))
    def begin(self, wishes: list[set[Claim]]) -> None:
        self.clock = SetClock()
        self.folder, self.ledger = fresh(self.clock)
        self.wishes = {name: sorted(found, key=str) for name, found in zip(TARGETS, wishes, strict=True)}
        self.mine: dict[str, Lease] = {}

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    def first(self) -> Waiter | None:
        """The earliest waiter whose places are not filled by silent owners: those may stay for ever."""
        now, held = self.clock(), self.ledger.leases()
        for waiter in self.ledger.waiters():
            silent = Counter(
                (claim.kind, claim.name) for lease in held if lease.expires_at <= now for claim in lease.claims
            )
            if all(silent[claim.kind, claim.name] < claim.limit for claim in waiter.claims):
                return waiter
        return None

    @rule(name=st.sampled_from(TARGETS), owner=st.sampled_from(["w1", "w2"]))
    def ask(self, name: str, owner: str) -> None:
        first, before = self.first(), counted(self.ledger)
        held = {lease.target for lease in self.ledger.leases()}
        answer = self.ledger.acquire(owner, "r", name, self.wishes[name], ttl=TTL)
        if isinstance(answer, Busy):
            return
        self.mine[name] = answer
        if name in held or first is None or first.target == name:
            return
        for claim in first.claims:
            taken = counted(self.ledger)[claim.kind, claim.name]
            if taken > before[claim.kind, claim.name]:
                assert taken < claim.limit, f"{name} took the last {claim.name} from {first.target}, who asked earlier"

    @rule(name=st.sampled_from(TARGETS))
    def reboot(self, name: str) -> None:
        """A holder wants a reboot place too: it stands behind its like only, and keeps what it holds meanwhile."""
        lease = self.mine.get(name)
        held = {item.target: item for item in self.ledger.leases()}
        if lease is None or name not in held or held[name].epoch != lease.epoch:
            return
        now = self.clock()
        first = next((item for item in self.ledger.waiters() if item.holds), None)
        silent = sum(REBOOT in item.claims and item.expires_at <= now for item in held.values())
        taken = sum(REBOOT in item.claims for item in held.values())
        answer = self.ledger.extend(lease, [REBOOT])
        if isinstance(answer, Busy):
            assert taken or first is not None
            return
        self.mine[name] = answer
        if REBOOT not in lease.claims and first is not None and not silent:
            assert first.target == name, f"{name} took the reboot place from {first.target}, who asked earlier"

    @rule(name=st.sampled_from(TARGETS))
    def end(self, name: str) -> None:
        lease = self.mine.pop(name, None)
        held = {item.target: item for item in self.ledger.leases()}
        if lease is not None and held.get(name) is not None and held[name].epoch == lease.epoch:
            self.ledger.release(lease)

    @rule(name=st.sampled_from(TARGETS))
    def crash(self, name: str) -> None:
        """The worker is gone; its lease stays until somebody takes it over."""
        self.mine.pop(name, None)

    @rule(seconds=st.sampled_from([-3600, -5, 1, TTL - 1, TTL + 1, 7200]))
    def clock_jumps(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule()
    def rebuild(self) -> None:
        before = self.ledger.waiters()
        self.ledger.rebuild()
        assert self.ledger.waiters() == before

    @precondition(lambda self: hasattr(self, "ledger"))
    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for place, number in counted(self.ledger).items():
            assert number <= LIMITS[place]

    @precondition(lambda self: hasattr(self, "ledger"))
    @invariant()
    def who_holds_waits_for_nothing_more(self) -> None:
        held = {lease.target for lease in self.ledger.leases()}
        assert not held & {waiter.target for waiter in self.ledger.waiters() if not waiter.holds}


class TestQueue(Queue.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


class Crowd:
    """Six others that take single places as often as they can, and a victim that needs several at once."""

    def __init__(self, ledger: SqlLedger, clock: SetClock, seed: int, wish: set[Claim]) -> None:
        self.ledger, self.clock = ledger, clock
        self.chance = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.wish = sorted(wish, key=str)
        self.held: dict[str, tuple[Lease, int]] = {}
        self.holder: Lease | None = None

    def reboot_victim_is_served(self) -> bool:
        """It holds a lease from the start and only wants to add the reboot place, which the others take as well."""
        if self.holder is None:
            claim = Claim(kind="domain", name="of its own", limit=1)
            taken = self.ledger.acquire("w1", "r", "rebooting", [claim], ttl=TTL)
            assert isinstance(taken, Lease)
            self.holder = taken
        self.holder = self.ledger.heartbeat(self.holder, ttl=TTL)
        return isinstance(self.ledger.extend(self.holder, [REBOOT]), Lease)

    def victim_is_served(self) -> bool:
        answer = self.ledger.acquire("w1", "r", "victim", self.wish, ttl=TTL)
        for place, number in counted(self.ledger).items():
            assert number <= LIMITS[place]
        return isinstance(answer, Lease)

    def worker_dies(self, name: str) -> None:
        """Its lease expires while all others go on: they beat, and the victim asks, as they always do."""
        self.clock.move(TTL - 1)
        for other, (lease, since) in self.held.items():
            if other != name:
                self.held[other] = (self.ledger.heartbeat(lease, ttl=TTL), since)
        self.victim_is_served()
        self.clock.move(2)
        taken = self.ledger.acquire("w2", "r", name, self.held[name][0].claims, ttl=TTL)
        assert isinstance(taken, Lease)
        self.held[name] = (taken, self.held[name][1])

    def add_reboot(self, name: str, number: int) -> None:
        """As a change job does: with the place it ends in the round after, without it asks again."""
        answer = self.ledger.extend(self.held[name][0], [REBOOT])
        if isinstance(answer, Lease):
            self.held[name] = (answer, number)

    def round(self, number: int) -> None:
        others = [f"o{index}" for index in range(6)]
        for name in self.chance.sample(others, len(others)):
            if name in self.held:
                if self.chance.random() < 0.2:
                    self.worker_dies(name)
                lease, since = self.held[name]
                if REBOOT not in lease.claims and self.chance.random() < 0.5:
                    self.add_reboot(name, number)
                elif number > since:
                    self.ledger.release(lease)
                    del self.held[name]
                continue
            answer = self.ledger.acquire("w1", "r", name, [self.chance.choice(CLAIMS)], ttl=TTL)
            if isinstance(answer, Lease):
                self.held[name] = (answer, number)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sets(st.sampled_from(CLAIMS), min_size=2))
def test_no_waiter_starves_however_busy_the_others_are(seed: int, wish: set[Claim]) -> None:
    """Every holder ends in the round after its first, if need be under a worker that took it over.

    So whoever stands before the victim is served within rounds, and then it is the first: nobody passes it any more.
    """
    clock = SetClock()
    folder, ledger = fresh(clock)
    try:
        crowd = Crowd(ledger, clock, seed, wish)
        crowd.round(0)
        rounds = 0
        while not crowd.victim_is_served():
            rounds += 1
            assert rounds <= 12, ledger.waiters()
            crowd.round(rounds)
    finally:
        ledger.close()
        shutil.rmtree(folder)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_no_holder_that_waits_for_a_reboot_place_starves(seed: int) -> None:
    """The others hold places, too, and add the only reboot place as often as they can."""
    clock = SetClock()
    folder, ledger = fresh(clock)
    try:
        crowd = Crowd(ledger, clock, seed, {CLAIMS[0]})
        crowd.round(0)
        rounds = 0
        while not crowd.reboot_victim_is_served():
            rounds += 1
            assert rounds <= 24, ledger.waiters()
            crowd.round(rounds)
    finally:
        ledger.close()
        shutil.rmtree(folder)


def test_free_place_is_kept_for_who_waits_for_two_at_once(tmp_path: Path) -> None:
    """The schedule that the queue is for: two take turns so that a and b are never free at once."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", clock=SetClock())
    a, b = Claim(kind="domain", name="a", limit=1), Claim(kind="domain", name="b", limit=1)
    one = ledger.acquire("w", "r", "one", [a], ttl=TTL)
    assert isinstance(one, Lease)
    assert isinstance(ledger.acquire("w", "r", "both", [a, b], ttl=TTL), Busy)
    overtaking = ledger.acquire("w", "r", "two", [b], ttl=TTL)
    assert isinstance(overtaking, Busy)
    assert "both (rollout r, asked earlier)" in overtaking.sentence
    ledger.release(one)
    assert isinstance(ledger.acquire("w", "r", "both", [a, b], ttl=TTL), Lease)
