"""New findings: what was published after a plan was made, and whether it can wait until that plan is done.

They are looked for in the snapshots that the plan was made from, as the plan will leave the targets, so nobody is asked
anything over the network, and what the plan closes anyway is no news.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from patching.advisory import Advisory, Finding
from patching.assess.matching import match
from patching.assess.priority import prioritise
from patching.errors import AdvisoryError
from patching.plan.document import Plan
from patching.plan.windows import next_window, open_window
from patching.policy import Policy
from patching.rollout.site import Site
from patching.sources.osv import read_advisories
from patching.target import Component, Snapshot, Target
from patching.value import JsonValue, Value

SHOWN = 3


class NewFinding(Value):
    """An advisory that the plan did not know (or knew as less urgent) and that concerns a target: due when, if ever."""

    advisory: str
    target: str
    due: datetime | None = None


class News(Value):
    """Everything new since a plan was made; ``trouble`` says why nobody knows, where the feed cannot be read."""

    findings: tuple[NewFinding, ...] = ()
    trouble: str = ""

    def due_before(self, moment: datetime | None) -> tuple[NewFinding, ...]:
        """Give the findings that fall due before a moment, the most urgent first; none without a moment."""
        due = [(item.due, item) for item in self.findings if item.due is not None]
        early = [(when, item) for when, item in due if moment is not None and when < moment]
        return tuple(item for _, item in sorted(early, key=lambda pair: (pair[0], pair[1].advisory, pair[1].target)))

    @property
    def sentence(self) -> str:
        """Say which findings wait for the next plan; empty where there are none."""
        if self.trouble:
            return f"new advisories are not known ({self.trouble})"
        names = sorted({item.advisory for item in self.findings})
        if not names:
            return ""
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        number = f"{len(self.findings)} new finding{'s wait' if len(self.findings) > 1 else ' waits'}"
        return f"{number} for the next plan ({', '.join(names[:SHOWN])}{more})"


def urgencies(advisories: Sequence[Advisory]) -> dict[str, str]:
    """Say of every advisory how urgent it was taken to be: what a plan knew is what it was made for."""
    return {item.id: f"{item.severity or '-'}{', exploited' if item.exploited else ''}" for item in advisories}


def news_since(site: Site, plan: Plan, policy: Policy) -> News:
    """Look for findings that are new since a plan was frozen; raises LedgerUnavailable.

    A plan that does not say what it knew (an older release made it) has no news, and neither has one without a feed.
    """
    place, frozen = policy.spec.patches.advisories, site.ledger.find(plan.rollout, "plan")
    taken = site.ledger.find(plan.rollout, "snapshots:discover")
    if place is None or frozen is None or taken is None or "advisories" not in frozen.body:
        return News()
    try:
        feed = read_advisories(site.policies_dir / place)
        known = site.ledger.document(frozen.body["advisories"])
        fresh = [item for item in feed if known.get(item.id) != urgencies([item])[item.id]]
        found = site.ledger.document(taken.body["snapshots"])
        targets = [Target.model_validate(item) for item in found["targets"]] if fresh else []
        snapshots = _as_planned(plan, found["snapshots"]) if fresh else {}
        return News(findings=_rated(targets, match(snapshots, fresh), fresh, policy.spec.priority.table))
    except AdvisoryError as error:
        return News(trouble=str(error))


def _as_planned(plan: Plan, taken: Mapping[str, JsonValue]) -> dict[str, Snapshot]:
    """Give the snapshots as the plan will leave the targets: what it closes anyway is no news."""
    snapshots = {name: Snapshot.model_validate(item) for name, item in taken.items()}
    for planned in plan.targets:
        snapshot = snapshots.get(planned.target.name)
        if snapshot is None:
            continue
        installed = dict(snapshot.installed)
        for patch in planned.patches:
            before = installed.pop(patch.component, None)
            if patch.after is not None:
                installed[patch.component] = _changed(before, patch.after)
        snapshots[planned.target.name] = snapshot.model_copy(update={"installed": installed})
    return snapshots


def _changed(before: Component | None, version: str) -> Component:
    """Give a component in its new version; the source's new version is only known where both had the same before."""
    if before is None or before.source_version is None:
        return Component(version=version, source=before.source if before else None)
    source = version if before.source_version == before.version else before.source_version
    return Component(version=version, source=before.source, source_version=source)


def _rated(
    targets: Sequence[Target], findings: Mapping[str, tuple[Finding, ...]], fresh: Sequence[Advisory], table: str
) -> tuple[NewFinding, ...]:
    named = {item.id: item for item in fresh}
    made = []
    for target in targets:
        for name in dict.fromkeys(item.advisory for item in findings.get(target.name, ())):
            own = [item for item in findings[target.name] if item.advisory == name]
            made.append(NewFinding(advisory=name, target=target.name, due=prioritise(target, own, named, table).due))
    return tuple(made)


def following_window(policy: Policy, now: datetime) -> datetime | None:
    """Give when the window after the one that is open or comes next opens: until then a new plan can wait."""
    schedule = policy.spec.schedule
    if not schedule.windows:
        return None
    first = open_window(schedule, now) or next_window(schedule, now)
    second = next_window(schedule, first.closes) if first is not None and first.closes is not None else None
    return second.opens if second is not None else None
