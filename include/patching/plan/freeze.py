"""Freezing: everything that was decided becomes one Plan, with the approval that it needs and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from patching.advisory import Finding, Priority
from patching.change import Patch, Refusal, Undo
from patching.limits import PatchLimits
from patching.plan.capacity import Domain, blocked, domains, service_of, services, shared, shared_reboots
from patching.plan.control import choose_control, represented
from patching.plan.dependents import dependents
from patching.plan.document import Exclusion, Plan, PlannedTarget, PlannedWave
from patching.plan.load import Loads
from patching.plan.order import Order
from patching.plan.power import plan_power
from patching.plan.reversibility import refuse_ungated, sentence
from patching.plan.traffic import Rates
from patching.plan.waves import plan_waves
from patching.policy import ApprovalWhen, Policy, RolloutRules
from patching.target import Target
from patching.value import Value, digest

NO_LIMITS = PatchLimits()


class Candidate(Value):
    """One target that will be patched, with everything that is known of it."""

    target: Target
    patches: tuple[Patch, ...]
    findings: tuple[Finding, ...] = ()
    priority: Priority
    undo: Undo
    reboot: str | None = None
    warnings: tuple[Refusal, ...] = ()
    download_bytes: int = 0


def freeze_plan(
    *,
    rollout: str,
    policy: Policy,
    now: datetime,
    candidates: Sequence[Candidate],
    exclusions: Sequence[Exclusion],
    selected: Sequence[Target] = (),
    down: Sequence[str] = (),
    emergency: bool = False,
    requested_by: str | None = None,
    limit_to: Sequence[str] = (),
    advisories: Sequence[str] = (),
    limits: PatchLimits = NO_LIMITS,
    population: Mapping[str, int] | None = None,
    rates: Rates | None = None,
    loads: Loads | None = None,
) -> Plan:
    """Assemble the plan; targets are in wave order, then by priority and name.

    ``selected`` are all targets that the policy selects (those left out count for ``maxUnavailable``), ``down`` the
    names of those that are unavailable already. Candidates of a domain without a place left are left out, and said.
    ``limits`` are those of limits.yaml, ``population`` counts the inventory's targets in their domains,
    ``rates`` is their traffic in the time before, ``loads`` how busy they were, as far as it is known.
    Raises PlanError where the order of the targets is a circle, or an irreversible patch lacks its gates.
    The draw of the waves is seeded by policy and rollout: the same again for this rollout, another for the next.
    """
    rules = policy.spec.rollout
    everybody = selected or [item.target for item in candidates]
    places = _Places(rules, everybody, down, limits, population or {})
    stuck = {item.target.name: said for item in candidates if (said := places.blocked(item.target)) is not None}
    moving = [item for item in candidates if item.target.name not in stuck]
    left = [*exclusions, *(Exclusion(target=name, code=code, reason=said) for name, (code, said) in stuck.items())]
    everyone, seed = [item.target for item in moving], digest({"policy": digest(policy), "rollout": rollout})
    waves = plan_waves(
        rules,
        everyone,
        seed=seed,
        ranks={item.target.name: item.priority.rank for item in moving},
        depths=Order(rules, everyone).depth,
    )
    wave_of = {name: wave.index for wave in waves for name in wave.targets}
    planned = [_planned(item, wave_of[item.target.name], policy) for item in moving]
    planned.sort(key=lambda item: (item.wave, item.priority.rank, item.target.name))
    affected = {wave.index: dependents(rules, [item.target for item in planned], wave.targets) for wave in waves}
    loads = loads.among(wave_of) if loads is not None else None
    waves = _with_control(rules, everyone, waves, affected, seed, loads)
    refuse_ungated(policy, [(item.target.name, item.undo) for item in planned])
    needed, reason = approval_needed(policy, planned, emergency=emergency)
    return Plan(
        rollout=rollout,
        policy=policy,
        policy_digest=digest(policy),
        created_at=now,
        emergency=emergency,
        requested_by=requested_by,
        limit_to=tuple(limit_to),
        targets=tuple(planned),
        exclusions=tuple(sorted(left, key=lambda item: (item.code, item.target))),
        waves=waves,
        power=plan_power(
            policy.spec.verify,
            waves,
            affected,
            watched=bool(rules.watch),
            controls={wave.index: represented(rules, everyone, wave, loads) for wave in waves[:-1]},
            rates=rates,
        ),
        blocked_domains=tuple(dict.fromkeys(said for _, said in stuck.values())),
        domain_limits=_places(places.domains),
        service_limits=_places(places.services),
        shared_limits=_places(places.shared),
        shared_reboots=shared_reboots(limits, everybody),
        loads=loads,
        approval_required=needed,
        approval_reason=reason,
        advisories=tuple(sorted({item.advisory for one in moving for item in one.findings} & set(advisories))),
    )


def _with_control(
    rules: RolloutRules,
    targets: Sequence[Target],
    waves: Sequence[PlannedWave],
    affected: Mapping[int, Mapping[str, Sequence[str]]],
    seed: str,
    loads: Loads | None,
) -> tuple[PlannedWave, ...]:
    """Freeze with every wave whom it is compared with: who comes later and does not depend on what it changes."""
    later, found = {target.name for target in targets}, []
    for wave in waves:
        later -= set(wave.targets)
        depending = {name for names in affected[wave.index].values() for name in names}
        control = choose_control(rules, targets, wave.targets, later - depending, seed, loads)
        found.append(wave.model_copy(update={"control": control}))
    return tuple(found)


class _Places:
    """Every domain and service with the places that it has left."""

    def __init__(
        self,
        rules: RolloutRules,
        selected: Sequence[Target],
        down: Sequence[str],
        limits: PatchLimits,
        population: Mapping[str, int],
    ) -> None:
        self.rules = rules
        self.domains = domains(rules, selected, down)
        self.services = services(rules, selected, down)
        self.shared = shared(limits, population, selected, down)

    def blocked(self, target: Target) -> tuple[str, str] | None:
        """Say what keeps a target from moving at all: the code of the exclusion, and the sentence."""
        label, service = self.rules.failure_domain, service_of(self.rules, target)
        if (said := blocked(self.domains[target.domain(label)], label)) is not None:
            return "domain_blocked", said
        if service is not None and (said := blocked(self.services[service], self.rules.service)) is not None:
            return "service_blocked", said
        for name, value in target.labels.items():
            domain = self.shared.get(f"{name}={value}")
            if domain is not None and (said := blocked(domain, name)) is not None:
                return "limit_blocked", f"{said} (limits.yaml)"
        return None


def _places(found: Mapping[str, Domain]) -> dict[str, int]:
    return {name: domain.places for name, domain in found.items()}


def _planned(item: Candidate, wave: int, policy: Policy) -> PlannedTarget:
    will_reboot = item.reboot is not None and policy.spec.reboot.policy != "never"
    wanted = sum(bool(patch.advisories) for patch in item.patches)
    count = len(item.patches)
    reason = f"{item.priority.reason}; {count} component{'' if count == 1 else 's'} change{'s' if count == 1 else ''}"
    if wanted:
        reason += f", {wanted} close{'s' if wanted == 1 else ''} an advisory"
    if will_reboot:
        reason += f"; reboots: {item.reboot}"
    return PlannedTarget(
        target=item.target,
        wave=wave,
        patches=item.patches,
        before={patch.component: patch.before for patch in item.patches},
        findings=item.findings,
        priority=item.priority,
        reboot=will_reboot,
        undo=item.undo,
        reason=reason,
        warnings=item.warnings,
        download_bytes=item.download_bytes,
    )


def approval_needed(policy: Policy, planned: Sequence[PlannedTarget], *, emergency: bool) -> tuple[int, str]:
    """Say how many people must approve and why; a plan with targets that cannot be undone always needs somebody."""
    if not planned:
        return 0, "there is nothing to do"
    rules = policy.spec.emergency.approval if emergency else policy.spec.approval
    stuck = [item.target.name for item in planned if not item.undo.possible]
    reasons = _reasons(rules.when, planned, stuck) if rules.when is not None else ["the policy always asks"]
    if reasons and rules.required:
        return rules.required, "; ".join(reasons)
    if stuck:
        said = f"undo is not available for {len(stuck)} of {len(planned)} targets: somebody has to look"
        said += _declared(planned)
        return max(rules.required, 1), said
    return 0, "the policy asks for no approval" if not rules.required else "no condition of approval.when holds"


def _reasons(when: ApprovalWhen, planned: Sequence[PlannedTarget], stuck: Sequence[str]) -> list[str]:
    said = []
    if when.targets_over is not None and len(planned) > when.targets_over:
        said.append(f"{len(planned)} targets are more than {when.targets_over}")
    restarting = sum(item.reboot for item in planned)
    if when.reboots and restarting:
        said.append(f"{restarting} targets reboot")
    if when.undo_unavailable and stuck:
        said.append(f"undo is not available for {len(stuck)} targets{_declared(planned)}")
    return said


def _declared(planned: Sequence[PlannedTarget]) -> str:
    """Say once what people have declared irreversible; empty where nothing is."""
    found = dict.fromkeys(sentence(item) for one in planned for item in one.undo.irreversible if item.declared)
    return "".join(f"; {said}" for said in found)
