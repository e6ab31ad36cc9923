"""Leases under random histories: no limit is ever exceeded, and a zombie can never write (F2, F8, T12)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from ledger_suite.empty import place_empty_ledger
from ledger_suite.values import K, SetClock, claim, entry, fence
from patching.errors import FenceLost
from patching.ledger.base import Busy, Claim, Lease
from patching.ledger.store import open_ledger

pytestmark = pytest.mark.slow

TTL = 30
owners = st.sampled_from(["w1", "w2", "w3"])
rollouts = st.sampled_from(["r1", "r2"])
targets = st.sampled_from(["a", "b", "c"])
domains = st.builds(lambda name, limit: Claim(kind="domain", name=name, limit=limit), st.sampled_from(["x", "y"]),
                    st.integers(1, 3))  # fmt: skip


class Leases(RuleBasedStateMachine):
    """``model`` maps (rollout, target) to (lease id, owner, epoch, expiry, claims): what the ledger must agree with."""

    held = Bundle("held")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="patching-leases-"))
        self.clock = SetClock()
        self.ledger = open_ledger(place_empty_ledger(self.folder / "ledger.db"), clock=self.clock)
        self.model: dict[tuple[str, str], Lease] = {}
        self.written = 0

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    def _current(self, lease: Lease) -> bool:
        found = self.model.get((lease.rollout, lease.target))
        return found is not None and (found.id, found.epoch) == (lease.id, lease.epoch)

    def _room(self, claims: tuple[Claim, ...], own: Lease | None) -> bool:
        known = {(item.kind, item.name): item.limit for item in own.claims} if own else {}
        for wanted in claims:
            place = (wanted.kind, wanted.name)
            if place in known and known[place] <= wanted.limit:
                continue
            limits = [wanted.limit]
            for other in self.model.values():
                if own is None or other.id != own.id:
                    limits += [item.limit for item in other.claims if (item.kind, item.name) == place]
            if len(limits) - 1 >= min(limits):
                return False
        return True

    @rule(target=held, owner=owners, rollout=rollouts, name=targets, more=st.lists(domains, max_size=2))
    def acquire(self, owner: str, rollout: str, name: str, more: list[Claim]) -> object:
        before = self.model.get((rollout, name))
        claims = (claim("target", name), *more)
        answer = self.ledger.acquire(owner, rollout, name, claims, ttl=TTL)
        alive = before is not None and before.owner != owner and before.expires_at > self.clock()
        if isinstance(answer, Busy):
            assert alive or not self._room(claims, before) or "asked earlier" in answer.sentence
            return multiple()
        assert not alive
        assert self._room(claims, before)
        if before is not None:
            assert answer.id == before.id
            assert answer.epoch == before.epoch + (before.owner != owner)
            assert {(c.kind, c.name) for c in before.claims} <= {(c.kind, c.name) for c in answer.claims}
        self.model[rollout, name] = answer
        return answer

    @rule(target=held, lease=held, more=st.lists(domains, min_size=1, max_size=2))
    def extend(self, lease: Lease, more: list[Claim]) -> object:
        if not self._current(lease):
            with pytest.raises(FenceLost):
                self.ledger.extend(lease, more)
            return multiple()
        before = self.model[lease.rollout, lease.target]
        answer = self.ledger.extend(lease, more)
        if isinstance(answer, Busy):
            assert not self._room(tuple(more), before) or "asked earlier" in answer.sentence
            return multiple()
        assert self._room(tuple(more), before)
        self.model[lease.rollout, lease.target] = answer
        return answer

    @rule(lease=held)
    def heartbeat(self, lease: Lease) -> None:
        if self._current(lease):
            self.model[lease.rollout, lease.target] = self.ledger.heartbeat(lease, ttl=TTL)
        else:
            with pytest.raises(FenceLost):
                self.ledger.heartbeat(lease, ttl=TTL)

    @rule(lease=consumes(held))
    def release(self, lease: Lease) -> None:
        found = self.model.get((lease.rollout, lease.target))
        if self._current(lease):
            self.ledger.release(lease)
            del self.model[lease.rollout, lease.target]
        elif found is not None and found.id == lease.id:
            with pytest.raises(FenceLost):
                self.ledger.release(lease)

    @rule(lease=held)
    def append(self, lease: Lease) -> None:
        self.written += 1
        made = entry(K.GATE, f"g{self.written}", chain=lease.rollout)
        if self._current(lease):
            self.ledger.append(made, fence(lease))
        else:
            with pytest.raises(FenceLost):
                self.ledger.append(made, fence(lease))
            assert self.ledger.find(lease.rollout, made.key) is None

    @rule(seconds=st.sampled_from([1, TTL - 1, TTL, TTL + 1]))
    def time_passes(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule()
    def rebuild(self) -> None:
        self.ledger.rebuild()

    @invariant()
    def ledger_agrees_and_no_limit_is_exceeded(self) -> None:
        if not hasattr(self, "ledger"):
            return
        held = self.ledger.leases()
        assert {(lease.rollout, lease.target): lease for lease in held} == self.model
        for lease in held:
            for wanted in lease.claims:
                holders = [item for item in held for c in item.claims if (c.kind, c.name) == (wanted.kind, wanted.name)]
                assert len(holders) <= wanted.limit


class TestLeases(Leases.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
