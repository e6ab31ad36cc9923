"""Short words for the tests: entries, claims, a clock that is set by hand, and a rollout that has a plan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from patching.ledger.base import Claim, Fence, Lease
from patching.ledger.entry import EntryKind, NewEntry
from patching.ledger.store import SqlLedger

R = "web-1"
K = EntryKind


class SetClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def move(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def entry(kind: EntryKind, key: str, *, chain: str = R, target: str | None = None, step: str | None = None,
          actor: str | None = None, **body: Any) -> NewEntry:  # fmt: skip
    return NewEntry(chain=chain, kind=kind, key=key, target=target, step=step, actor=actor, body=body)


def opened(ledger: SqlLedger, rollout: str = R, targets: tuple[str, ...] = ("a", "b", "c"), policy: str = "web") -> str:
    """Open a rollout with a plan: every target in wave 1, the last one in wave 2; gives the plan's digest."""
    plan = ledger.store_document("plan", {"rollout": rollout, "targets": list(targets)})
    waves = [{"name": name, "wave": 2 if name == targets[-1] else 1} for name in targets]
    ledger.append_all(
        [
            entry(K.ROLLOUT_OPENED, "opened", chain=rollout, policy=policy, emergency=False, requested_by="eva"),
            entry(K.PLAN_FROZEN, "plan", chain=rollout, plan=plan, targets=waves),
        ]
    )
    return plan


def claim(kind: str, name: str, limit: int = 1) -> Claim:
    return Claim(kind=kind, name=name, limit=limit)


def fence(lease: Lease) -> Fence:
    return Fence(lease=lease.id, epoch=lease.epoch)
