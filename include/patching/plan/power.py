"""Power: what each check can and cannot detect in each wave, said before anybody approves the plan.

Zero failures among n targets still allow a failure share of 1 − (1 − c)^(1/n) at confidence c (the exact form of the
rule of three); n = ⌈ln(1 − c)/ln(1 − p)⌉ targets are needed to see a share p at least once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from patching.canary.dependent import dependent_check
from patching.canary.weights import looks_of, share_of
from patching.plan.detectable import number, percent, seen_beside, seen_over, seen_since
from patching.plan.document import CheckPower, PlannedWave
from patching.plan.traffic import Expected, Rates, Traffic
from patching.policy import Check
from patching.quantity import format_duration

CONTROL = "control"
"""Name of the statement that says whom the control of a wave represents."""

CONFIDENCE = 0.95
SMALL_FLEET = 3
FEW_CONTROLS = 3
SHARE_TO_SEE = 0.05


def undetected_share(targets: int, confidence: float = CONFIDENCE) -> float:
    """Give the failure share that zero failures among ``targets`` still allow."""
    return 1.0 if targets <= 0 else 1 - (1 - confidence) ** (1 / targets)


def targets_to_see(share: float, confidence: float = CONFIDENCE) -> int:
    """Give how many targets are needed to see a failure share (above 0) at least once."""
    return 1 if share >= 1 else math.ceil(math.log(1 - confidence) / math.log(1 - share))


def plan_power(
    checks: Sequence[Check],
    waves: Sequence[PlannedWave],
    affected: Mapping[int, Mapping[str, Sequence[str]]] | None = None,
    *,
    watched: bool = False,
    controls: Mapping[int, str] | None = None,
    rates: Rates | None = None,
) -> tuple[CheckPower, ...]:
    """State for every wave what the checks can see there; a small fleet and missing checks are said as they are.

    Statements about the plan as a whole have check ``-`` and stand with the first wave. ``affected``: for
    each wave the services that depend on it, with their targets. ``watched``: the rollout is watched after its end.
    ``controls`` says whom the control of a wave represents (``plan.control``): a statement named ``control``.
    ``rates`` is the traffic that is expected to go on, where it is known.
    """
    if not waves:
        return ()
    affected, rates = affected or {}, rates or {}
    said = _of_fleet(sum(len(wave.targets) for wave in waves), checks, rates)
    depending = sum(len(services) for services in affected.values())
    looks = looks_of(checks, [len(wave.targets) for wave in waves], watched=watched, dependents=depending)
    shares = [share_of(check, checks, looks) for check in checks]
    beside = any(check.metric is not None and "control" in check.compare.against for check in checks)
    for wave in waves:
        services = affected.get(wave.index, {})
        if beside and (whom := (controls or {}).get(wave.index)):
            said.append(CheckPower(check=CONTROL, wave=wave.index, comparison="control", statement=whom))
        said += [
            _probe(check, wave)
            if check.metric is None
            else _metric(check, wave, share, Expected.of(rates.get(check.name, {}), wave.targets, wave, check))
            for check, share in zip(checks, shares, strict=True)
        ]
        said += [
            _dependent(check, wave, service, names, share, rates)
            for service, names in services.items()
            for check, share in zip(checks, shares, strict=True)
            if check.metric is not None and check.metric.history
        ]
    return tuple(said)


def _of_fleet(total: int, checks: Sequence[Check], rates: Rates) -> list[CheckPower]:
    said = []
    if total == 1:
        said.append("one target is the whole fleet: there is no control, and a bad patch reaches all of it")
    elif total <= SMALL_FLEET:
        said.append(f"a fleet of {total} has little power: only gross errors are told from chance")
    if not checks:
        said.append("no check: only the packages are verified; a bad patch that installs cleanly is not seen")
    said += [
        f"{check.name}: {_requests(check, rates.get(check.name, {}))}"
        for check in checks
        if check.metric is not None and not check.metric.gauge
    ]
    said += [f"{check.name}: {_asked(check.http_json.every)}" for check in checks if check.http_json is not None]
    return [CheckPower(check="-", wave=1, comparison="none", statement=text) for text in said]


def _probe(check: Check, wave: PlannedWave) -> CheckPower:
    size = len(wave.targets)
    passing = f"{_targets(size)} pass{'es' if size == 1 else ''}"
    statement = f"if {passing}, up to {percent(undetected_share(size))} of all could still fail"
    if wave.canary:
        statement += f"; {targets_to_see(SHARE_TO_SEE)} targets would show a share of {percent(SHARE_TO_SEE)}"
    if size >= targets_to_see(SHARE_TO_SEE):
        statement = f"if all {size} targets pass, at most {percent(undetected_share(size))} of all could still fail"
    return CheckPower(check=check.name, wave=wave.index, comparison="probe", statement=statement)


def _metric(check: Check, wave: PlannedWave, share: float, expected: Expected | None) -> CheckPower:
    controls = len(wave.control or ())
    chosen = _comparison(check, controls, later=wave.index > 1)
    size, span = _targets(len(wave.targets)), f" over {format_duration(wave.soak)}" if wave.soak else ""
    lead = "" if controls else "no control is left: "
    if chosen == "control":
        statement = f"{size} against {controls} unpatched{span}"
        if controls < FEW_CONTROLS:
            statement += "; so few controls give little power"
        statement += f"; {seen_beside(check, wave, share, expected)}"
    elif chosen == "before":
        own = "its" if len(wave.targets) == 1 else "their"
        statement = f"{lead}{size} against {own} own time before{span}; what hits everybody at once looks the same"
        statement += seen_since(check, share, expected) if wave.soak else ""
    elif chosen == "threshold":
        statement = f"{lead}{size} against the fixed limit {check.compare.threshold}{span}"
        statement += seen_over(check, share, expected)
    else:
        statement = f"{lead}no comparison is possible: the check will be inconclusive ({check.on_inconclusive})"
        return CheckPower(check=check.name, wave=wave.index, comparison="none", statement=statement)
    if not wave.soak:
        statement += "; without a soak there is hardly a request to judge by"
    return CheckPower(check=check.name, wave=wave.index, comparison=chosen, statement=statement)


def _dependent(
    check: Check, wave: PlannedWave, service: str, names: Sequence[str], share: float, rates: Rates
) -> CheckPower:
    """Say how a service is judged that only depends on what the wave changes."""
    own = "its" if len(names) == 1 else "their"
    statement = f"depends on what is changed: {_targets(len(names))} against {own} own time before"
    statement += seen_since(check, share, Expected.of(rates.get(check.name, {}), names, wave, check))
    named = dependent_check(check, service).name
    return CheckPower(check=named, wave=wave.index, comparison="before", statement=statement)


def _comparison(check: Check, controls: int, *, later: bool) -> str:
    """Name the first comparison of the check that can be made; ``later``: earlier waves were asked already."""
    history = check.metric is None or check.metric.history or later
    possible = {"control": controls > 0, "before": history, "threshold": check.compare.threshold is not None}
    return next((name for name in check.compare.against if possible[name]), "none")


def _requests(check: Check, rates: Mapping[str, Traffic]) -> str:
    least = check.compare.min_requests
    after = "the wave is promoted unseen" if check.on_inconclusive == "promote" else "the wave is held"
    come = "how many requests come is not known"
    if rates:
        a_minute = number(60 * sum(one.requests for one in rates.values()))
        come = f"{a_minute} requests a minute came before on {_targets(len(rates))}"
    return (
        f"{come}: below {least} {after}, and {least} without an error still allow "
        f"an error share of {percent(undetected_share(least))}"
    )


def _asked(every: float) -> str:
    return f"it has no past and is asked every {format_duration(every)}, from the first wave on; before that is no data"


def _targets(count: int) -> str:
    return "1 target" if count == 1 else f"{count} targets"
