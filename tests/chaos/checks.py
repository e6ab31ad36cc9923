"""What must hold after a run, as the targets themselves show it; the ledger only says what it claims about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.world import DAG, World
from patching.change import Outcome, TargetState
from patching.ledger.base import Ledger, TargetRow
from patching.report.rollout_report import make_report
from patching.rollout.record import frozen_plan

OLD, NEW = "1.0", "1.1"
CHANGES = ("out", "set", "reboot")
STAYS = ("out", "broken")
"""What a boot does not end."""
MEANT = ("is locked by incident", "LedgerUnavailable")
"""Ends that are the answer to a fault: nothing begins in a locked policy, or without the ledger."""


@dataclass
class Found:
    """What is wrong; every list is empty after a good run."""

    twice: list[str] = field(default_factory=list)
    exceeded: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.twice, *self.exceeded, *self.lost, *self.wrong]


def check(world: World, problems: list[str]) -> Found:
    """Look at every target, at the ledger and at the report."""
    found = Found(wrong=list(problems))
    for path in sorted(world.folder.glob("engine-*.error")):
        text = path.read_text().strip()
        if not any(meant in text for meant in MEANT):
            last = [
                line.strip("| ") for line in text.splitlines() if "Error" in line or "Exception" in line or ": " in line
            ]
            found.wrong.append(f"{path.stem} ended with an error: {last[-1]}")
    for name in world.names:
        found.twice += twice(world, name)
    with world.looked_up() as ledger:
        found.exceeded += over_limits(world, ledger)
        found.lost += unwritten(world, ledger)
        found.wrong += [f"ledger: {problem.chain} {problem.seq}: {problem.message}" for problem in ledger.verify()]
        found.wrong += [f"ghost lock: {lease.target} is still leased by {lease.owner}" for lease in ledger.leases()]
        for row in ledger.rollouts(limit=1000):
            found.lost += missing_from_report(world, ledger, row.id)
        states(world, ledger, found)
    return found


def lines(world: World, name: str, log: str) -> list[str]:
    """Read a log of a host."""
    path: Path = world.fleet.folder / name / log
    return path.read_text().splitlines() if path.exists() else []


def twice(world: World, name: str) -> list[str]:
    """Find steps whose marker counts more than once, and acts that had been done already, under whatever id."""
    counted = Counter(world.fleet.markers(name))
    said = [f"{name}: step {step} began {number} times" for step, number in counted.items() if number > 1]
    for line in lines(world, name, "acts.log"):
        step, what, was, to = line.split("\t")
        if what == "reboot" and was == "False":
            said.append(f"{name}: step {step} rebooted it though nothing asked for that any more")
        elif what != "reboot" and was == to:
            said.append(f"{name}: step {step} installed {what} {to}, which was there")
    return said


def unwritten(world: World, ledger: Ledger) -> list[str]:
    """Find steps that began on a target though nothing was written before, and those whose end was never written."""
    said = []
    for name in world.names:
        intents = [
            item
            for row in ledger.rollouts(limit=1000)
            for item in ledger.intents(rollout=row.id, target=name, open_only=False)
        ]
        began, meant = set(world.fleet.markers(name)), {item.step_id for item in intents}
        said += [f"{name}: step {step} began without an intent" for step in sorted(began - meant)]
        left = sorted(item.step_id for item in intents if item.open and item.step_id in began)
        said += [f"{name}: step {step} began and has no outcome" for step in left]
    return said


def over_limits(world: World, ledger: Ledger) -> list[str]:
    """Count in each failure domain, from the targets' own logs, how many were out of service or in a step at once."""
    plans = [plan for row in ledger.rollouts(limit=1000) if (plan := frozen_plan(_Only(ledger), row.id)) is not None]
    limits = {zone: max((plan.domain_limits.get(zone, 0) for plan in plans), default=0) for zone in _zones(world)}
    said = []
    for zone, limit in limits.items():
        spans = [span for name in world.names if world.zone(name) == zone for span in unavailable(world, name)]
        most = most_at_once(spans)
        if most > limit:
            said.append(f"{zone}: {most} targets were unavailable at once, the limit is {limit}")
        else:
            said += _begun_beside_broken(world, zone, limit)
    rebooting = most_at_once([span for name in world.names for span in unavailable(world, name, only="reboot")])
    if rebooting > 1:
        said.append(f"{rebooting} targets rebooted at once, the limit is 1")
    return said


def _begun_beside_broken(world: World, zone: str, limit: int) -> list[str]:
    """Count, whenever a change took a target out of service, who was so then, or left broken by a change before.

    An undo is no such moment: it waits for who is at work, and not for who is broken.
    """
    names = [name for name in world.names if world.zone(name) == zone]
    spans = {name: unavailable(world, name, broken=True) for name in names}
    said = []
    for name in names:
        for moment in _begun(world, name):
            others = [other for other in names if other != name and _covers(spans[other], moment)]
            if len(others) >= limit:
                said.append(
                    f"{zone}: {name} was begun at {moment:.3f} beside {', '.join(others)}, the limit is {limit}"
                )
    return said[:1]


def _begun(world: World, name: str) -> list[float]:
    found = [line.split() for line in lines(world, name, "changes.log")]
    return [float(moment) for moment, what, sign in found if sign == "+" and what in CHANGES]


def _covers(spans: list[tuple[float, float]], moment: float) -> bool:
    return any(begun <= moment < ended for begun, ended in spans)


class _Only:
    """A site that is only a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger


def _zones(world: World) -> list[str]:
    return sorted({world.zone(name) for name in world.names})


def unavailable(world: World, name: str, only: str | None = None, *, broken: bool = False) -> list[tuple[float, float]]:
    """Give when a target was out of service or in a step, from its own log; a boot ends what ran.

    With ``broken`` also when it ran versions that do not belong together, or one that does not work on it.
    """
    since: dict[str, float] = {}
    spans: list[tuple[float, float]] = []
    for line in lines(world, name, "changes.log"):
        moment, what, sign = line.split()
        if sign == "!":
            spans += [(begun, float(moment)) for key, begun in since.items() if key not in STAYS]
            since = {key: begun for key, begun in since.items() if key in STAYS}
        elif (only is not None and what != only) or (what == "broken" and not broken):
            continue
        elif sign == "+":
            since.setdefault(what, float(moment))
        elif what in since:
            spans.append((since.pop(what), float(moment)))
    return _merged([*spans, *((begun, float("inf")) for begun in since.values())])


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join what overlaps, so that one target counts once."""
    joined: list[tuple[float, float]] = []
    for begun, ended in sorted(spans):
        if joined and begun <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], ended))
        else:
            joined.append((begun, ended))
    return joined


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """Give the largest number at once; an end comes before a beginning at the same moment."""
    events = sorted([(ended, -1) for _, ended in spans] + [(begun, 1) for begun, _ in spans])
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def missing_from_report(world: World, ledger: Ledger, rollout: str) -> list[str]:
    """Find hosts of the inventory that a rollout's report does not speak of."""
    row, plan = ledger.rollout(rollout), frozen_plan(_Only(ledger), rollout)
    if row is None or plan is None:
        return []
    report = make_report(ledger.entries(rollout), plan, row, ledger.targets(rollout), ledger.now())
    spoken = {item.target for item in report.targets} | {item.target for item in report.exclusions}
    return [f"{name} is not in the report of {rollout}" for name in world.names if name not in spoken]


def states(world: World, ledger: Ledger, found: Found) -> None:
    """Compare what each target runs with what its last rollout says became of it."""
    rollouts = ledger.rollouts(limit=1000)
    if not rollouts:
        found.lost.append(f"no rollout of {DAG} was ever opened")
        return
    for name in world.names:
        rows = [row for item in reversed(rollouts) for row in ledger.targets(item.id) if row.target == name]
        wanted = NEW if any(_changed(row) for row in rows) else OLD
        installed = world.fleet.installed(name)
        if any(row.outcome is Outcome.UNKNOWN and row.undo_outcome is None for row in rows):
            found.lost.append(f"{name}: nobody knows what became of it")
        elif wrong := [f"{key} {version}" for key, version in sorted(installed.items()) if version != wanted]:
            told = ", ".join(f"{_told(row)}" for row in rows) or "excluded"
            found.wrong.append(f"{name} ({told}) should be at {wanted} and has {', '.join(wrong)}")
        if any(row.state in (TargetState.RUNNING, TargetState.UNDOING) for row in rows):
            found.lost.append(f"{name}: its change was begun and never ended")
        if world.fleet.out(name):
            found.wrong.append(f"{name} was left out of service")


def _changed(row: TargetRow) -> bool:
    return row.outcome is Outcome.APPLIED and row.undo_outcome is not Outcome.UNDONE


def _told(row: TargetRow) -> str:
    undone = f", undo {row.undo_outcome.value}" if row.undo_outcome else ""
    return f"{row.outcome.value if row.outcome else row.state.value}{undone}: {row.detail}"
