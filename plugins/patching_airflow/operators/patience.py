"""Patience: while the ledger is gone a task holds no worker slot, decides nothing, and asks again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseOperator

from patching_airflow.site import seconds

PATIENCE = 3600.0
POLL = 5.0


class PatientOperator(BaseOperator):
    """An operator whose ``work`` begins anew when it is resumed: each task reads from the ledger how far it came.

    While the ledger is unavailable it defers, at most ``[patching] ledger_patience`` seconds (1 h); then it fails.
    It has no ``__init__`` and must not get one before BaseOperator's: Airflow would lose the defaults of mapped tasks.
    """

    _gone_since: str | None = None

    def execute(self, context: Any) -> Any:
        """Do the work of this task."""
        return self.attempt(context)

    def resume(self, context: Any, event: Any = None, gone_since: str | None = None) -> Any:
        """Do the work after a deferral; ``gone_since`` says since when the ledger has not answered."""
        self._gone_since = gone_since
        return self.attempt(context)

    def attempt(self, context: Any) -> Any:
        """Do the work, or wait for the ledger."""
        try:
            return self.work(context)
        except Exception as error:
            gone = unavailable(error)
            if gone is None or self._waited_long():
                raise
            return self._wait(context, gone)

    def work(self, context: Any) -> Any:
        """Ask the ledger, act, and show what was decided."""
        raise NotImplementedError

    def note(self, context: Any, sentence: str) -> None:
        """Write the sentence where a person looks first: the note of the run."""
        from patching_airflow.hooks.run_note import write_run_note

        write_run_note(context["ti"].dag_id, context["ti"].run_id, sentence)

    def _waited_long(self) -> bool:
        if self._gone_since is None:
            return False
        gone = datetime.now(UTC) - datetime.fromisoformat(self._gone_since)
        return gone >= timedelta(seconds=seconds("ledger_patience", PATIENCE))

    def _wait(self, context: Any, error: BaseException) -> None:
        now = datetime.now(UTC)
        sentence = f"waits for the ledger, nothing new is launched: {error}"
        self.log.warning(sentence)
        self.note(context, sentence)
        trigger = DateTimeTrigger(moment=now + timedelta(seconds=seconds("gate_poll", POLL)))
        since = {"gone_since": self._gone_since or now.isoformat()}
        self.defer(trigger=trigger, method_name="resume", kwargs=since)


def unavailable(error: BaseException) -> BaseException | None:
    """Find the LedgerUnavailable in an error that is nothing else; parallel jobs raise it in a group."""
    from patching.errors import LedgerUnavailable

    if isinstance(error, LedgerUnavailable):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [unavailable(inner) for inner in error.exceptions]
    return found[0] if all(found) else None
