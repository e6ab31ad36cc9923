"""First seen: when each offered version was first seen on any target, kept in the ledger, for ``minAge``.

Most updates are dated by no advisory that we read. What a target was offered two days ago is at least two days old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from patching.advisory import Advisory, Finding
from patching.change import Patch, Refusal
from patching.ledger.base import Ledger
from patching.ledger.entry import CONTROL, EntryKind, NewEntry
from patching.plan.age import known_since, offer_name, too_young
from patching.target import Snapshot

FORGOTTEN_AFTER = timedelta(days=400)


class Ages:
    """How old updates are, for the plan of one rollout; without ``min_age`` (seconds) nothing is looked up or kept."""

    def __init__(
        self, ledger: Ledger, rollout: str, min_age: float, advisories: Mapping[str, Advisory], now: datetime
    ) -> None:
        self._ledger = ledger
        self._rollout = rollout
        self._min_age = min_age
        self._advisories = advisories
        self._now = now
        self.seen: dict[str, datetime] = {}

    def look(self, stage: str, snapshots: Iterable[Snapshot]) -> None:
        """Remember what these targets are offered now, and learn since when each version is known."""
        if self._min_age:
            self.seen = first_seen(self._ledger, f"{self._rollout}:{stage}", offered(snapshots), self._now)

    def young(self, changing: Sequence[Patch], findings: Sequence[Finding], ecosystem: str) -> Refusal | None:
        """Find the first component of a whole transaction that is too young, None where all are old enough."""
        for patch in changing if self._min_age else ():
            since = known_since(patch, findings, ecosystem, self._advisories, self.seen)
            refused = too_young(patch, since, self._min_age, self._now) if patch.after is not None else None
            if refused is not None:
                return refused
        return None


def offered(snapshots: Iterable[Snapshot]) -> set[str]:
    """Name every version that targets are offered, and every one that a rehearsed change would bring."""
    names: set[str] = set()
    for snapshot in snapshots:
        for component, offers in snapshot.offers.items():
            names |= {offer_name(component, offer.version) for offer in offers}
        actions = snapshot.transaction.actions if snapshot.transaction is not None else {}
        names |= {offer_name(component, after) for component, (_, after) in actions.items() if after is not None}
    return names


def first_seen(ledger: Ledger, key: str, names: set[str], now: datetime) -> dict[str, datetime]:
    """Say when each of these versions (``plan.age.offer_name``) was first seen, and write down those that are new.

    Idempotent per ``key``: looking again finds the same moments. Where two policies write at once, one may see a
    version later than it could have, never earlier.
    """
    key = f"offers-seen:{key}"
    written = ledger.find(CONTROL, key)
    if written is not None:
        return _read(ledger, str(written.body["data"]))
    earlier = ledger.entries(CONTROL, kinds=[EntryKind.OFFERS_SEEN])
    known = _read(ledger, str(earlier[-1].body["data"])) if earlier else {}
    new = sorted(names - known.keys())
    if not new:
        return known
    kept = {name: at for name, at in known.items() if name in names or now - at < FORGOTTEN_AFTER}
    kept |= dict.fromkeys(new, now)
    digest = ledger.store_document("offers-seen", {name: at.isoformat() for name, at in sorted(kept.items())})
    ledger.append(NewEntry(chain=CONTROL, kind=EntryKind.OFFERS_SEEN, key=key, body={"data": digest, "new": len(new)}))
    return kept


def _read(ledger: Ledger, digest: str) -> dict[str, datetime]:
    return {name: datetime.fromisoformat(at) for name, at in ledger.document(digest).items()}
