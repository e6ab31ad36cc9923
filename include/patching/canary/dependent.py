"""A dependent service as a metric of its own: what a check of the patched targets asks of it; pure.

It has no control: everybody of the service feels the patched one. So it is compared with its own time before.
"""

from __future__ import annotations

from patching.canary.verdicts import CheckVerdict
from patching.policy import Check
from patching.rollout.answers import VerdictName


def dependent_check(check: Check, service: str) -> Check:
    """Make the check of a service that depends on the patched one: the same metric, against the time before."""
    against = tuple(name for name in check.compare.against if name != "control") or ("before",)
    compare = check.compare.model_copy(update={"against": against})
    return check.model_copy(update={"name": f"{check.name} of {service}", "compare": compare})


def service_of(name: str, check: Check) -> str | None:
    """Give the service that a metric's name says, None for any other name."""
    lead = f"{check.name} of "
    return name.removeprefix(lead) if name.startswith(lead) else None


def with_moment(verdict: CheckVerdict) -> CheckVerdict:
    """Say in the sentence of an alarm when the service moved: its first look with enough evidence."""
    at = verdict.numbers.alarm_at if verdict.numbers is not None else None
    if verdict.verdict is not VerdictName.UNDO or at is None:
        return verdict
    reason = f"{verdict.reason}; it only depends on what was changed, and moved by {at:%H:%M:%S} UTC"
    return verdict.model_copy(update={"reason": reason})
