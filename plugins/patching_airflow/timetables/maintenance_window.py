"""MaintenanceWindowTimetable: a run when planning is due (``planAhead``) and a run when the window opens.

The windows are computed by ``patching.plan.windows`` in the policy's own zone. Freezes do not move a run: its gates
say that they wait for the freeze.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

from patching.plan.windows import next_window, open_window
from patching.policy import Schedule

LOOK_AHEAD = 64


class MaintenanceWindowTimetable(Timetable):
    """Fires at ``window start − planAhead`` and at the window's start; ``schedule`` is the policy's, as plain JSON."""

    def __init__(self, schedule: dict[str, Any]) -> None:
        self.schedule = Schedule.model_validate(schedule)
        self.plain = self.schedule.model_dump(mode="json")
        rules = ", ".join(f"{window.rrule} {window.start}" for window in self.schedule.windows)
        self.description = f"maintenance windows: {rules} {self.schedule.timezone}"

    @property
    def summary(self) -> str:
        """Say in a few words when runs begin."""
        return "; ".join(f"{item.start} {self.schedule.timezone}" for item in self.schedule.windows)

    def serialize(self) -> dict[str, Any]:
        """Give what ``deserialize`` needs."""
        return {"schedule": self.plain}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MaintenanceWindowTimetable:
        """Make the timetable from its serialised form."""
        return cls(data["schedule"])

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """A manual run covers its own moment."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Give the next moment: after a downtime at most the window that is open now, never the missed ones."""
        now = pendulum.now("UTC")
        after = restriction.earliest or now
        if last_automated_data_interval is not None:
            after = max(after, last_automated_data_interval.start)
        if not restriction.catchup:
            floor = open_window(self.schedule, now)
            start = floor.opens if floor is not None and floor.closes is not None else now
            after = max(after, pendulum.instance(start) - timedelta(seconds=1))
        found = self.next_moment(after)
        if found is None or (restriction.latest is not None and found > restriction.latest):
            return None
        moment = pendulum.instance(found)
        return DagRunInfo(run_after=moment, data_interval=DataInterval.exact(moment))

    def next_moment(self, after: datetime) -> datetime | None:
        """Give the first planning or opening moment strictly after another moment."""
        ahead = timedelta(seconds=self.schedule.plan_ahead)
        moments, look = [], after
        for _ in range(LOOK_AHEAD):
            window = next_window(self.schedule, look)
            if window is None:
                break
            moments += [window.opens] if window.opens > after else []
            moments += [window.opens - ahead] if ahead and window.opens - ahead > after else []
            look = window.opens
            if moments and window.opens - ahead > min(moments):
                break
        return min(moments, default=None)
