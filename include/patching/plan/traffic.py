"""Traffic: what targets counted before the plan, and so what a wave is expected to count while it soaks; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patching.plan.document import PlannedWave
from patching.policy import Check
from patching.value import Value


class Traffic(Value):
    """What a target's counters counted a second in the time before the plan."""

    errors: float
    requests: float


Rates = Mapping[str, Mapping[str, Traffic]]
"""Traffic by check and target, as far as the metric source told it."""


class Expected(Value):
    """What a side counts in a soak without harm: ``errors`` of ``requests``, and ``past`` errors in the time before.

    ``a_host`` and ``control`` are the requests of a host there and at the control.
    """

    errors: float
    requests: float
    past: float
    a_host: float
    control: float | None = None

    @classmethod
    def of(cls, rates: Mapping[str, Traffic], names: Sequence[str], wave: PlannedWave, check: Check) -> Expected | None:
        """Expect of targets what they had before; None without a soak, and where nothing is known of one of them."""
        known = [rates[name] for name in names if name in rates]
        if not wave.soak or not known or len(known) < len(names) or check.metric is None:
            return None
        beside = [rates[name].requests * wave.soak for name in wave.control or () if name in rates]
        errors, requests = sum(one.errors for one in known), sum(one.requests for one in known)
        return cls(
            errors=errors * wave.soak,
            requests=requests * wave.soak,
            past=errors * check.metric.before,
            a_host=requests * wave.soak / len(known),
            control=sum(beside) / len(beside) if beside else None,
        )
