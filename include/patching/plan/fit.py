"""Fit: whether a wave, or one target, still ends before its window closes, in sentences with their numbers.

With ``onWindowClose: finish-wave`` the unit is the wave: it begins only if all of it is expected to end in time, and
once begun it is finished. With ``stop``, and for a wave that is too long for any window, the unit is the target.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from itertools import islice

from patching.plan.document import Plan, PlannedTarget
from patching.plan.durations import Estimate, Known, estimate, too_late, wave_takes
from patching.plan.windows import next_window, open_window, spans, spoken, waiting_time

LOOK_AHEAD = 8
"""Windows that are looked at for the longest one."""


class Fit:
    """What is known of how long a plan's jobs take; ``concurrency`` is how many run at once where no domain is full."""

    def __init__(self, plan: Plan, past: Known, concurrency: int) -> None:
        self.plan = plan
        self.schedule = plan.policy.spec.schedule
        self.concurrency = concurrency
        self._jobs = {reboots: estimate(past, plan.policy, reboots=reboots) for reboots in (False, True)}
        passes = plan.policy.spec.emergency.ignore if plan.emergency else ()
        self.binding = bool(self.schedule.windows) and "window" not in passes

    def job(self, planned: PlannedTarget) -> Estimate:
        """Estimate one target's change job."""
        return self._jobs[planned.reboot]

    def takes(self, wave: int, left: Collection[str] | None = None) -> timedelta:
        """Say how long a wave takes, or those of its targets that are left."""
        label = self.plan.policy.spec.rollout.failure_domain
        jobs = [
            (self.job(item), item.target.domain(label))
            for item in self.plan.targets
            if item.wave == wave and (left is None or item.target.name in left)
        ]
        return wave_takes(jobs, self.plan.domain_limits, self.concurrency)

    def by_target(self, wave: int, now: datetime) -> bool:
        """Say whether every target of a wave is fitted in for itself, because the policy or the windows want it so."""
        if not self.binding:
            return False
        return self.schedule.on_window_close == "stop" or self.takes(wave) > self._longest(now)

    def target_too_late(self, planned: PlannedTarget, now: datetime) -> str | None:
        """Say why a target is not begun now (``not started: 20 min left, …``); None where it fits."""
        left = self._left(now)
        return None if left is None else too_late(left, self.job(planned))

    def wave_too_late(self, wave: int, left_over: Collection[str], now: datetime) -> str | None:
        """Say why a wave is not begun, or gone on with, now; None where it fits or has nobody left."""
        left = self._left(now)
        members = [item for item in self.plan.targets if item.wave == wave and item.target.name in left_over]
        if left is None or not members:
            return None
        if self.by_target(wave, now):
            said = too_late(left, min((self.job(item) for item in members), key=lambda job: job.long))
            return f"wave {wave} {said}; {self.goes_on(now)}" if said else None
        takes = self.takes(wave, left_over)
        if takes <= left:
            return None
        longest = max((self.job(item) for item in members), key=lambda job: job.long)
        number = f"{len(members)} target{'' if len(members) == 1 else 's'}"
        return (
            f"wave {wave} not started: {waiting_time(left)} left, its {number} take up to {waiting_time(takes)} "
            f"({longest.source}); {self.goes_on(now)}"
        )

    def goes_on(self, now: datetime) -> str:
        """Say when the rest goes on: at the next window."""
        following = next_window(self.schedule, now)
        return f"goes on {spoken(self.schedule, following.opens, now)}" if following else "no window comes after this"

    def _left(self, now: datetime) -> timedelta | None:
        """Give the time until the window closes, none where no window binds; a closed window has no time left."""
        if not self.binding:
            return None
        window = open_window(self.schedule, now)
        return timedelta(0) if window is None or window.closes is None else window.closes - now

    def _longest(self, now: datetime) -> timedelta:
        found = islice(spans(self.schedule, now), LOOK_AHEAD)
        return max((span.closes - span.opens for span in found if span.closes is not None), default=timedelta(0))
