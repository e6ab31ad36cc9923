"""Durations: how long change jobs take, from those that ended well; what is not known yet is a stated default.

Jobs that reboot and jobs that do not are different jobs. A quantile is the nearest rank, so it is always a duration
that occurred. Everything is in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta

from patching.ledger.base import PastJob
from patching.plan.windows import waiting_time
from patching.policy import Policy
from patching.value import Value

ENOUGH = 5
"""Jobs from which on their own durations count instead of the default."""

DEFAULT_USUAL, DEFAULT_LONG = 300.0, 600.0


class Known(Value):
    """Past jobs: the policy's ``own``, and those ``alike`` of other policies with the same driver."""

    own: tuple[PastJob, ...] = ()
    alike: tuple[PastJob, ...] = ()


class Estimate(Value):
    """How long a job takes usually (median) and at most in nine of ten cases (p90); ``count`` jobs say so, or none.

    ``driver`` names it where jobs of other policies had to be taken in.
    """

    usual: float
    long: float
    count: int = 0
    driver: str = ""

    @property
    def source(self) -> str:
        """Where the numbers come from, in words."""
        if not self.count:
            return f"the default until {ENOUGH} such jobs are known"
        return f"p90 of {self.count}" + (f" with driver {self.driver}" if self.driver else "")


def estimate(past: Known, policy: Policy, *, reboots: bool) -> Estimate:
    """Estimate a job of a policy by its own past, else by its driver's, else by the default.

    A reboot that nobody has seen yet is given the policy's whole timeout.
    """
    for driver, jobs in (("", past.own), (policy.spec.driver.name, (*past.own, *past.alike))):
        found = sorted(item.seconds for item in jobs if item.rebooted == reboots)
        if len(found) >= ENOUGH:
            usual, long = quantile(found, 0.5), quantile(found, 0.9)
            return Estimate(usual=usual, long=long, count=len(found), driver=driver)
    more = policy.spec.reboot.timeout if reboots else 0.0
    return Estimate(usual=DEFAULT_USUAL + more / 2, long=DEFAULT_LONG + more)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the nearest-rank quantile of values in rising order."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def wave_takes(jobs: Iterable[tuple[Estimate, str]], places: dict[str, int], concurrency: int) -> timedelta:
    """Say how long a wave takes: its jobs (estimate, domain) in rounds, as many at once as domains and worker allow.

    All rounds but the last take the usual time, the last one the long one: the narrowest domain decides.
    """
    domains: dict[str, list[Estimate]] = {}
    for job, domain in jobs:
        domains.setdefault(domain, []).append(job)
    everybody = [job for found in domains.values() for job in found]
    needed = [_rounds(everybody, concurrency)]
    needed += [_rounds(found, max(places.get(name, concurrency), 1)) for name, found in domains.items()]
    return timedelta(seconds=max(needed))


def _rounds(jobs: Sequence[Estimate], at_once: int) -> float:
    if not jobs:
        return 0.0
    rounds = math.ceil(len(jobs) / at_once)
    usual = sum(job.usual for job in jobs) / len(jobs)
    return (rounds - 1) * usual + max(job.long for job in jobs)


def too_late(left: timedelta, job: Estimate) -> str | None:
    """Say why a job is not started with so much time left; None where it fits."""
    if timedelta(seconds=job.long) <= left:
        return None
    takes = waiting_time(timedelta(seconds=job.long))
    return f"not started: {waiting_time(left)} left, jobs like it take up to {takes} ({job.source})"
