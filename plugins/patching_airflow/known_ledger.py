"""The one ledger that this Airflow works with: remembered in an Airflow Variable, because it may vanish as a whole.

A folder that is not mounted, or a database made anew, would otherwise look like a first start: an empty ledger forgets
every open rollout, and hosts would be patched twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patching_airflow.site import configured_ledger_url

if TYPE_CHECKING:
    from patching.ledger.base import Ledger

VARIABLE = "patching_ledger_id"
DESCRIPTION = (
    "Which ledger the patching DAGs belong to. Remove it only when that ledger is lost for good: "
    "the next task then makes or takes another one (runbook: ledger unavailable)."
)


def open_known_ledger() -> Ledger:
    """Open the ledger that this Airflow knows; the very first task makes one, and its id is remembered.

    Raises LedgerUnavailable where that ledger is gone or another one is in its place; LedgerError.
    """
    from airflow.sdk import Variable

    from patching.errors import LedgerUnavailable
    from patching.ledger.store import open_ledger

    known = Variable.get(VARIABLE, default=None)
    ledger = open_ledger(configured_ledger_url(), create=known is None)
    if known is None:
        Variable.set(VARIABLE, ledger.ledger_id, description=DESCRIPTION)
    elif ledger.ledger_id != known:
        raise LedgerUnavailable(
            f"[patching] ledger_url leads to ledger {ledger.ledger_id}, but this Airflow works with {known} (Variable "
            f"{VARIABLE}): nothing new is launched, because open rollouts would be forgotten; correct the URL or "
            "restore the ledger (docs/runbooks/ledger-unavailable.md)"
        )
    return ledger
