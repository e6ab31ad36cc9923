"""Power: what each check can and cannot detect in each wave, said before anybody approves the plan.

Zero failures among n targets still allow a failure share of 1 − (1 − c)^(1/n) at confidence c (the rule of three's
exact form); n = ⌈ln(1 − c)/ln(1 − p)⌉ targets are needed to see a share p at least once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from patching.plan.document import CheckPower, PlannedWave
from patching.policy import Check
from patching.quantity import format_duration

CONFIDENCE = 0.95


def undetected_share(targets: int, confidence: float = CONFIDENCE) -> float:
    """Give the failure share that zero failures among ``targets`` still allow."""
    return 1.0 if targets <= 0 else 1 - (1 - confidence) ** (1 / targets)


def targets_to_see(share: float, confidence: float = CONFIDENCE) -> int:
    """Give how many targets are needed to see a failure share at least once."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - share))


def plan_power(checks: Sequence[Check], waves: Sequence[PlannedWave]) -> tuple[CheckPower, ...]:
    """State for every wave what the checks can see there; without checks say that only packages are verified."""
    said: list[CheckPower] = []
    for position, wave in enumerate(waves):
        later = sum(len(item.targets) for item in waves[position + 1 :])
        size = len(wave.targets)
        if not checks:
            statement = "no check: only the package state is verified, a bad patch that installs cleanly is not seen"
            said.append(CheckPower(check="-", wave=wave.index, comparison="none", statement=statement))
        for check in checks:
            if check.prometheus is None:
                share = f"{100 * undetected_share(size):.0f} %"
                statement = f"passing on {size} of {size} targets still allows a failure share up to {share}"
                said.append(CheckPower(check=check.name, wave=wave.index, comparison="probe", statement=statement))
            else:
                said.append(_metric(check, wave, later))
    return tuple(said)


def _metric(check: Check, wave: PlannedWave, later: int) -> CheckPower:
    size, soak = len(wave.targets), format_duration(wave.soak)
    chosen = next((name for name in check.compare.against if name != "control" or later), "none")
    if chosen == "control":
        statement = f"{size} patched against {later} unpatched targets over {soak}"
        if later < 3:
            statement += "; so few controls give little power"
    elif chosen == "before":
        statement = (
            f"no control is left: {size} targets against their own time before, over {soak}; a change that hits "
        )
        statement += "everybody at once looks the same"
    elif chosen == "threshold":
        statement = f"no control is left: {size} targets against the fixed limit {check.compare.threshold} over {soak}"
    else:
        statement = "no comparison is possible: the check will be inconclusive"
    return CheckPower(check=check.name, wave=wave.index, comparison=chosen, statement=statement)
