"""MaintenanceWindowTimetable: a run when planning is due (``planAhead``) and a run when the window opens.

The moments are computed by ``patching.plan.moments`` in the policy's own zone. Freezes do not move a run: its gates
say that they wait for the freeze.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

from patching.plan.moments import next_run
from patching.policy import Schedule


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
        return f"{', '.join(item.start for item in self.schedule.windows)} {self.schedule.timezone}"

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
        """Give the next moment: after a downtime at most the one that is under way, never the missed ones."""
        last = last_automated_data_interval
        found = next_run(
            self.schedule,
            pendulum.now("UTC"),
            last=last and last.start,
            earliest=restriction.earliest,
            latest=restriction.latest,
            catchup=restriction.catchup,
        )
        return None if found is None else DagRunInfo.exact(pendulum.instance(found))
