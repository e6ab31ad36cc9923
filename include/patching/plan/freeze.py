"""Freezing: everything that was decided becomes one Plan, with the approval that it needs and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from patching.advisory import Finding, Priority
from patching.change import Patch, Refusal, Undo
from patching.plan.capacity import blocked_domains
from patching.plan.document import Exclusion, Plan, PlannedTarget
from patching.plan.power import plan_power
from patching.plan.waves import plan_waves
from patching.policy import ApprovalWhen, Policy
from patching.target import Target
from patching.value import Value, digest


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
    down: Sequence[str] = (),
    emergency: bool = False,
    requested_by: str | None = None,
    limit_to: Sequence[str] = (),
    advisories: Sequence[str] = (),
) -> Plan:
    """Assemble the plan; targets are in wave order, then by priority and name."""
    rules = policy.spec.rollout
    waves = plan_waves(rules, [item.target for item in candidates], seed=digest(policy))
    wave_of = {name: wave.index for wave in waves for name in wave.targets}
    planned = [_planned(item, wave_of[item.target.name], policy) for item in candidates]
    planned.sort(key=lambda item: (item.wave, item.priority.rank, item.target.name))
    needed, reason = approval_needed(policy, planned, emergency=emergency)
    everybody = [item.target for item in candidates]
    return Plan(
        rollout=rollout,
        policy=policy,
        policy_digest=digest(policy),
        created_at=now,
        emergency=emergency,
        requested_by=requested_by,
        limit_to=tuple(limit_to),
        targets=tuple(planned),
        exclusions=tuple(sorted(exclusions, key=lambda item: (item.code, item.target))),
        waves=waves,
        power=plan_power(policy.spec.verify, waves),
        blocked_domains=blocked_domains(rules, everybody, down),
        approval_required=needed,
        approval_reason=reason,
        advisories=tuple(sorted({item.advisory for found in candidates for item in found.findings} & set(advisories))),
    )


def _planned(item: Candidate, wave: int, policy: Policy) -> PlannedTarget:
    will_reboot = item.reboot is not None and policy.spec.reboot.policy != "never"
    wanted = sum(bool(patch.advisories) for patch in item.patches)
    reason = f"{item.priority.reason}; {len(item.patches)} components change"
    if wanted:
        reason += f", {wanted} of them close an advisory"
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
        return max(rules.required, 1), f"undo is not available for {len(stuck)} of {len(planned)} targets"
    return 0, "the policy asks for no approval" if not rules.required else "no condition of approval.when holds"


def _reasons(when: ApprovalWhen, planned: Sequence[PlannedTarget], stuck: Sequence[str]) -> list[str]:
    said = []
    if when.targets_over is not None and len(planned) > when.targets_over:
        said.append(f"{len(planned)} targets are more than {when.targets_over}")
    restarting = sum(item.reboot for item in planned)
    if when.reboots and restarting:
        said.append(f"{restarting} targets reboot")
    if when.undo_unavailable and stuck:
        said.append(f"undo is not available for {len(stuck)} targets")
    return said
