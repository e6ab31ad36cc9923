"""Planning: snapshots and advisories become one frozen plan; a second reading rehearses every whole transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from patching.advisory import Advisory, Finding
from patching.assess.exploitation import marked
from patching.assess.matching import match, unmatched
from patching.assess.priority import prioritise
from patching.change import Patch, Refusal
from patching.drivers.base import PatchDriver
from patching.errors import PlanError
from patching.hooks.connections import hooks_unconnected, notify_unconnected
from patching.ledger.entry import EntryKind, NewEntry
from patching.limits import PatchLimits
from patching.plan.document import Exclusion, Plan
from patching.plan.freeze import Candidate, freeze_plan
from patching.plan.patches import Wanted, comparable, wanted_patches
from patching.plan.reversibility import with_declared
from patching.plan.selection import unavailable
from patching.policy import Patches, Policy
from patching.rollout.answers import Request
from patching.rollout.emergency import record_emergency, supersede_overlap
from patching.rollout.error_budget import look_at_budgets
from patching.rollout.exploited import listed
from patching.rollout.first_seen import Ages
from patching.rollout.new_findings import urgencies
from patching.rollout.probing import probe_fleet
from patching.rollout.quarantine import why_left_out
from patching.rollout.queries import short_soaks, tried_queries
from patching.rollout.record import first_written, frozen_plan
from patching.rollout.site import Site
from patching.rollout.states import RolloutState
from patching.sources.osv import read_advisories
from patching.target import Reach, Snapshot, Target

OPEN_ROLLOUTS = 1000


async def make_plan(site: Site, rollout: str) -> Plan:
    """Make and freeze the plan of a rollout, or give the one that is frozen: planning is idempotent.

    Raises AdvisoryError, PlanError, LedgerUnavailable; then nothing was begun.
    """
    earlier = frozen_plan(site, rollout)
    if earlier is not None:
        return earlier
    work = Planning(site, rollout)
    plan = await work.plan()
    document = site.ledger.store_document("plan", plan.model_dump(mode="json"))
    body = {
        "plan": document,
        "targets": [{"name": item.target.name, "wave": item.wave} for item in plan.targets],
        "advisories": site.ledger.store_document("advisories", urgencies(list(work.advisories.values()))),
    }
    written = first_written(site.ledger, NewEntry(chain=rollout, kind=EntryKind.PLAN_FROZEN, key="plan", body=body))
    plan = Plan.frozen(site.ledger.document(written.body["plan"]), str(written.body["plan"]))
    if plan.emergency:
        record_emergency(site, plan, work.request.reason, work.request.requested_by)
        for sentence in supersede_overlap(site, plan):
            site.log(sentence)
    if not plan.targets:
        site.ledger.transition(rollout, RolloutState.COMPLETED, reason="there was nothing to do")
    return plan


class Planning:
    """What is read from the ledger for one plan, and the steps from there to the frozen document."""

    def __init__(self, site: Site, rollout: str) -> None:
        self.site = site
        self.rollout = rollout
        self.now: datetime = site.clock()
        frozen, taken = site.ledger.find(rollout, "policy"), site.ledger.find(rollout, "snapshots:discover")
        if frozen is None or taken is None:
            raise PlanError(
                f"rollout {rollout} has no snapshots: discovery did not finish; clear discover and try again"
            )
        self.policy = Policy.model_validate(site.ledger.document(frozen.body["policy"]))
        found = site.ledger.document(taken.body["snapshots"])
        self.targets = [Target.model_validate(item) for item in found["targets"]]
        self.snapshots = {name: Snapshot.model_validate(item) for name, item in found["snapshots"].items()}
        self.exclusions = [Exclusion.model_validate(item) for item in found["exclusions"]]
        self.limits = PatchLimits.model_validate(found.get("limits") or {})
        self.population: dict[str, int] = dict(found.get("population") or {})
        began = site.ledger.entries(rollout, kinds=[EntryKind.RUN_BEGAN])
        self.request = Request.model_validate(began[0].body["request"])
        spec = self.policy.spec.driver
        self.driver: PatchDriver = site.driver(spec.name, dict(spec.options))
        self.unconnected = hooks_unconnected(self.policy, site.connections)
        self.advisories = self._advisories()
        self.rules = self._rules()
        self.ages = Ages(site.ledger, rollout, self.rules.min_age, self.advisories, self.now)

    async def plan(self) -> Plan:
        """Decide who is patched with what, rehearse it on the targets, and freeze the answer."""
        findings = match(self.snapshots, list(self.advisories.values()))
        self.ages.look("discover", self.snapshots.values())
        wanted = self._wanted(findings)
        rehearsed = await self._rehearse(wanted)
        self.ages.look("rehearse", rehearsed.values())
        candidates = [
            found
            for target in self.targets
            if target.name in rehearsed
            and (found := self._candidate(target, rehearsed[target.name], wanted[target.name], findings)) is not None
        ]
        if self.request.advisories and not any(item.findings for item in candidates):
            self.site.log("no selected target has any of the advisories asked for")
        for name in unmatched(list(self.advisories.values()), self.snapshots.values()):
            self.site.log(f"advisory {name} concerns no package of any target")
        for sentence in notify_unconnected(self.policy, self.site.connections):
            self.site.log(sentence)
        row = self.site.ledger.rollout(self.rollout)
        tried = await tried_queries(self.site, self.policy, [item.target for item in candidates], self.now)
        plan = freeze_plan(
            rollout=self.rollout,
            policy=self.policy,
            now=self.now,
            candidates=candidates,
            exclusions=self.exclusions,
            selected=self.targets,
            down=self._down(),
            emergency=bool(row and row.emergency),
            requested_by=self.request.requested_by,
            limit_to=self.request.limit_to,
            advisories=list(self.advisories),
            limits=self.limits,
            population=self.population,
            rates=tried.rates,
            loads=tried.loads,
        )
        budgets = await look_at_budgets(self.site, self.policy, self.now)
        power = (*plan.power, *short_soaks(plan.waves, tried.scrapes), *tried.said)
        return plan.model_copy(update={"error_budgets": budgets, "power": power, "scrapes": tried.scrapes})

    def _down(self) -> list[str]:
        """Name those that did not answer when they were looked at, or, later, when they rehearsed."""
        found = {name for name, snapshot in self.snapshots.items() if snapshot.reach is Reach.OFFLINE}
        return sorted(found | {item.target for item in self.exclusions if item.code == Reach.OFFLINE})

    def _advisories(self) -> dict[str, Advisory]:
        place, asked = self.policy.spec.patches.advisories, self.request.advisories
        if place is None:
            if asked:
                raise PlanError(
                    f"the run is for {', '.join(asked)}, but policy {self.policy.name} reads no advisories: nothing "
                    "was planned; give spec.patches.advisories a feed, or run it without advisory ids"
                )
            return {}
        read = read_advisories(self.site.policies_dir / place)
        found = {item.id: item for item in marked(read, listed(self.site.ledger))}
        unknown = [name for name in asked if not any(name in (item.id, *item.aliases) for item in found.values())]
        if unknown:
            raise PlanError(f"unknown advisories {', '.join(unknown)}: the feed {place} does not have them")
        return found

    def _wanted(self, findings: Mapping[str, Sequence[Finding]]) -> dict[str, Wanted]:
        """Choose patches for every target that may be touched; the others are excluded with the reason."""
        left = unavailable(
            self.targets,
            self.snapshots,
            quarantined={item.target: why_left_out(item) for item in self.site.ledger.quarantines(now=self.now)},
            busy=self._busy(),
        )
        self.exclusions += left.values()
        wanted: dict[str, Wanted] = {}
        for target in self.targets:
            if target.name in left:
                continue
            snapshot = self.snapshots[target.name]
            blocking = [item for item in self.driver.preflight(snapshot) if item.blocking]
            chosen = self._chosen(snapshot, findings[target.name])
            if not chosen.patches:
                self._exclude(target, *self._nothing(chosen))
            elif blocking:
                self._exclude(target, blocking[0].code, _said(blocking[0]))
            else:
                wanted[target.name] = chosen
        return wanted

    def _busy(self) -> dict[str, str]:
        """Say which targets another rollout is changing; an emergency takes those over instead of leaving them out."""
        if self.request.emergency:
            return {}
        others = [row.id for row in self.site.ledger.rollouts(open_only=True, limit=OPEN_ROLLOUTS)]
        return {
            row.target: name
            for name in others
            if name != self.rollout
            for row in self.site.ledger.targets(name)
            if row.began_at is not None and row.ended_at is None
        }

    def _chosen(self, snapshot: Snapshot, findings: Sequence[Finding]) -> Wanted:
        """Choose one target's patches; in a run for certain advisories only among the components they concern."""
        rules, asked = self.rules, set(self.request.advisories)
        if not asked:
            return wanted_patches(snapshot, findings, self.advisories, rules, self.now, self.ages.seen)
        known = {name for name, item in self.advisories.items() if asked.intersection((name, *item.aliases))}
        own = [item for item in findings if item.advisory in known]
        named = {item.component for item in own}
        offers = {component: found for component, found in snapshot.offers.items() if component in named}
        narrowed = snapshot.model_copy(update={"offers": offers})
        chosen = wanted_patches(narrowed, own, self.advisories, rules, self.now, self.ages.seen)
        # Without advisories that it closes, a patch is kept only where versions do not compare: it may be the fix.
        blind = {item.component for item in own if not comparable(snapshot.installed.get(item.component), item.package)}
        patches = tuple(item for item in chosen.patches if item.advisories or item.component in blind)
        return chosen.model_copy(update={"patches": patches})

    def _nothing(self, chosen: Wanted) -> tuple[str, str]:
        if chosen.left:
            return chosen.left[0].code, "; ".join(item.message for item in chosen.left[:3])
        if self.request.advisories:
            return "not_affected", "none of the advisories that this run is for concerns it"
        return "up_to_date", "nothing that the policy wants is missing"

    async def _rehearse(self, wanted: Mapping[str, Wanted]) -> dict[str, Snapshot]:
        """Let every target rehearse its whole transaction; nothing is changed by that."""
        chosen = [target for target in self.targets if target.name in wanted]
        spec = self.policy.spec.driver
        self.site.log(f"rehearsing the whole transaction on {len(chosen)} targets")
        return await probe_fleet(
            self.site.channel(spec.connection),
            self.driver,
            chosen,
            {name: item.patches for name, item in wanted.items()},
            self.site.clock,
            concurrency=self.site.concurrency,
        )

    def _candidate(
        self, target: Target, rehearsed: Snapshot, wanted: Wanted, findings: Mapping[str, tuple[Finding, ...]]
    ) -> Candidate | None:
        if not rehearsed.online:
            self._exclude(target, rehearsed.reach.value, rehearsed.reach_detail)
            return None
        transaction = self.driver.transaction(rehearsed, wanted.patches)
        if isinstance(transaction, Refusal):
            self._exclude(target, transaction.code, _said(transaction))
            return None
        changing: list[Patch] = transaction
        touched = {patch.component for patch in changing}
        own = tuple(item for item in findings[target.name] if item.component in touched)
        young = self.ages.young(changing, own, rehearsed.ecosystem or "Debian")
        if young is not None:
            self._exclude(target, young.code, f"it would come along: {young.message}")
            return None
        warnings = [item for item in self.driver.preflight(rehearsed) if not item.blocking]
        return Candidate(
            target=target,
            patches=tuple(changing),
            findings=own,
            priority=prioritise(target, own, self.advisories, self.policy.spec.priority.table),
            undo=with_declared(
                self.driver.undoable(rehearsed, changing), changing, self.rules.irreversible, self.advisories
            ),
            reboot=self.driver.reboots(rehearsed, changing),
            warnings=(*warnings, *wanted.left, *self.unconnected),
            download_bytes=rehearsed.transaction.download_bytes if rehearsed.transaction else 0,
        )

    def _rules(self) -> Patches:
        """Which patches: as the policy says; an emergency passes ``minAge`` where the policy lets it."""
        spec = self.policy.spec
        passes = self.request.emergency and "min-age" in spec.emergency.ignore
        return spec.patches.model_copy(update={"min_age": 0.0}) if passes else spec.patches

    def _exclude(self, target: Target, code: str, reason: str) -> None:
        self.exclusions.append(Exclusion(target=target.name, code=code, reason=reason))


def _said(refusal: Refusal) -> str:
    return f"{refusal.message}; {refusal.remedy}" if refusal.remedy else refusal.message
