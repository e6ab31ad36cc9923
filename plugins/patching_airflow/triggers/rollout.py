"""RolloutTrigger: sleeps until a moment, and wakes its task earlier where the ledger says something else meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from patching.errors import LedgerError, LedgerUnavailable

log = logging.getLogger(__name__)


class RolloutTrigger(BaseTrigger):
    """Fires at ``moment``, or as soon as the rollout's state is not ``state`` any more or the stop switch is on.

    It only wakes: the task asks the ledger anew and decides nothing by the event. The ledger is looked at every
    ``poll`` seconds, and while it is gone the trigger goes on sleeping.
    """

    def __init__(self, rollout: str, state: str, moment: str, poll: float) -> None:
        super().__init__()
        self.rollout = rollout
        self.state = state
        self.moment = moment
        self.poll = poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class and its arguments, all of them plain JSON."""
        arguments = {"rollout": self.rollout, "state": self.state, "moment": self.moment, "poll": self.poll}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep, looking at the ledger now and then."""
        moment = datetime.fromisoformat(self.moment)
        ledger: Any = None
        while (left := (moment - datetime.now(UTC)).total_seconds()) > 0:
            await asyncio.sleep(min(self.poll, left))
            try:
                ledger = ledger or await asyncio.to_thread(_open)
                why = await asyncio.to_thread(self.changed, ledger)
            except LedgerUnavailable as error:
                log.warning("rollout %s: the ledger is unavailable, sleeping on: %s", self.rollout, error)
                continue
            except LedgerError as error:
                log.error("rollout %s: the ledger cannot be read, so the task itself looks: %s", self.rollout, error)
                break
            if why is not None:
                yield TriggerEvent(why)
                return
        yield TriggerEvent("the time has come")

    def changed(self, ledger: Any) -> str | None:
        """Say what is different from when the task fell asleep, None when nothing is."""
        stopped = ledger.stopped()
        if stopped is not None:
            return f"everything is stopped: {stopped}"
        row = ledger.rollout(self.rollout)
        state = None if row is None else row.state.value
        return None if state == self.state else f"the rollout is {state}"


def _open() -> Any:
    from patching.ledger.store import open_ledger
    from patching_airflow.site import configured_ledger_url

    return open_ledger(configured_ledger_url(), create=False)
