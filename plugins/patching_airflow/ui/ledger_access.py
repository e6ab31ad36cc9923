"""Reading the ledger for the pages: opened once, never created here; documents that cannot change are kept."""

import logging
from collections.abc import Callable
from functools import lru_cache
from threading import Lock

from patching.errors import PlanRefused
from patching.ledger.base import Ledger, RolloutRow
from patching.ledger.store import open_ledger
from patching.plan.document import Plan
from patching.value import JsonValue
from patching_airflow.site import configured_ledger_url

log = logging.getLogger(__name__)

LedgerFactory = Callable[[], Ledger]

PLANS_KEPT = 32
DOCUMENTS_KEPT = 256


def configured_ledger() -> Ledger:
    """Open the ledger that Airflow's configuration names; raises LedgerError, LedgerUnavailable."""
    return open_ledger(configured_ledger_url(), create=False)


class LedgerAccess:
    """One ledger, opened at the first request that needs it; a failure is not remembered."""

    def __init__(self, factory: LedgerFactory) -> None:
        self._factory = factory
        self._ledger: Ledger | None = None
        self._lock = Lock()
        # Documents are named by their digest, so what was read once stays right.
        self.document = lru_cache(DOCUMENTS_KEPT)(self._document)
        self._plan = lru_cache(PLANS_KEPT)(self._read_plan)

    @property
    def ledger(self) -> Ledger:
        """The open ledger; raises LedgerError, LedgerUnavailable."""
        with self._lock:
            if self._ledger is None:
                self._ledger = self._factory()
            return self._ledger

    def plan(self, row: RolloutRow) -> Plan | None:
        """Give the frozen plan of a rollout, None before it has one, and where this release refuses it.

        Then the page still shows targets, entries, and what the rollout waits for.
        """
        try:
            return None if row.plan_digest is None else self._plan(row.plan_digest)
        except PlanRefused as error:
            log.warning("rollout %s is shown without its plan, which this release refuses: %s", row.id, error)
            return None

    def _document(self, digest: str) -> JsonValue:
        return self.ledger.document(digest)

    def _read_plan(self, digest: str) -> Plan:
        return Plan.frozen(self.ledger.document(digest), digest)
