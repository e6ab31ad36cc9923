"""Control: the targets that each wave is compared with, chosen when planning and frozen; pure.

What is compared must be alike: the same service, in the same zones, in the proportion of the wave, as busy before. The
lot decides the rest before the wave begins, so that nobody chooses a control that suits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from fractions import Fraction

from patching.plan.document import PlannedWave
from patching.plan.load import Loads, compared, nearest_first
from patching.plan.order import SERVICE
from patching.plan.waves import lot
from patching.policy import RolloutRules
from patching.target import Target

Stratum = tuple[str, str]
"""Service and zone of a target."""

CONTROLS_A_TARGET = 10
"""Controls for each changed target: v = 1/c + 1/k is then within a tenth of what any number of them would give."""

FEWEST_CONTROLS = 30
"""Controls that are taken where there are so many, however few targets change: from them σ is estimated."""


def choose_control(
    rules: RolloutRules,
    targets: Sequence[Target],
    wave: Collection[str],
    later: Collection[str],
    seed: str,
    loads: Loads | None = None,
) -> tuple[str, ...]:
    """Choose the control of a wave among the ``later`` targets, which are not changed yet and depend on nothing of it.

    Only targets of a service (``rollout.service``) that the wave changes. Zones (``rollout.failureDomain``) in which
    the wave has targets come first, in its proportion (Sainte-Laguë), then the others; within a zone whoever is about
    as busy as a changed target there (``load.nearest_first``), and by lot where no load is known.
    """
    inside, possible = set(wave), set(later)
    changed = [target for target in targets if target.name in inside]
    weight = Counter(_stratum(rules, target) for target in changed)
    services = {service for service, _ in weight}
    strata: dict[Stratum, list[str]] = {}
    for target in sorted(targets, key=lambda item: lot(seed, item.name)):
        if target.name in possible and _service(rules, target) in services:
            strata.setdefault(_stratum(rules, target), []).append(target.name)
    keyed = [
        (not weight[stratum], Fraction(2 * number + 1, weight[stratum] or 1), drawn, target)
        for stratum, found in strata.items()
        for drawn in (lot(seed, "/".join(stratum)),)
        for number, target in enumerate(_ordered(rules, changed, stratum, found, loads))
    ]
    most = max(CONTROLS_A_TARGET * len(changed), FEWEST_CONTROLS)
    return tuple(sorted(item[-1] for item in sorted(keyed)[:most]))


def _ordered(
    rules: RolloutRules, changed: Sequence[Target], stratum: Stratum, found: Sequence[str], loads: Loads | None
) -> list[str]:
    """Order the targets of a service and zone, as they were drawn, by the changed ones there, else of the service."""
    there = [target.name for target in changed if _stratum(rules, target) == stratum]
    if loads is None or not loads.of.keys() & there:
        there = [target.name for target in changed if _service(rules, target) == stratum[0]]
    return nearest_first(loads, there, found)


def represented(rules: RolloutRules, targets: Sequence[Target], wave: PlannedWave, loads: Loads | None = None) -> str:
    """Say of which services, in how many zones and how busy the control is, and what it does not represent."""
    inside, control = set(wave.targets), set(wave.control or ())
    changed = [target for target in targets if target.name in inside]
    chosen = [target for target in targets if target.name in control]
    services = sorted({_service(rules, target) for target in changed})
    of = " and ".join(name for name in services if name)
    if not chosen:
        return f"none, as no later target is of {of}" if of else "none, as no later target is like these"
    covers = {_service(rules, target) for target in chosen}
    said = f"{len(chosen)} of {of}" if of else f"{len(chosen)} target{'' if len(chosen) == 1 else 's'}"
    missing = [f"no control of service {name}" for name in services if name not in covers]
    if rules.failure_domain:
        alike = [target for target in targets if _service(rules, target) in services]
        everywhere, zones, covered = (_zones(rules, found) for found in (alike, changed, chosen))
        said += f" in {len(covered)} of {len(everywhere)} zone{'' if len(everywhere) == 1 else 's'}"
        missing += [f"no control in zone {zone}" for zone in sorted(zones - covered)]
    return "; ".join([said, *missing, *compared(loads, [*inside], [*control])])


def _service(rules: RolloutRules, target: Target) -> str:
    return target.labels.get(rules.service or SERVICE, "")


def _zones(rules: RolloutRules, targets: Sequence[Target]) -> set[str]:
    return {target.domain(rules.failure_domain) for target in targets}


def _stratum(rules: RolloutRules, target: Target) -> Stratum:
    return _service(rules, target), target.domain(rules.failure_domain)
