"""Reversibility: which patches of a target cannot be taken back, who says so, and what that asks for before approval.

Bringing an old version back does not bring back what a migration has rewritten, and a version that nobody has any more
cannot be brought back at all. Both are found when planning, with the reason, and the plan keeps them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from patching.advisory import Advisory
from patching.assess.matching import bare
from patching.change import Irreversible, Patch, Undo
from patching.errors import PlanError
from patching.plan.document import Plan
from patching.plan.patches import matching_pattern
from patching.policy import IrreversibleRule, Policy
from patching.policy_rules.irreversible import lacking

SHOWN = 4


def with_declared(
    undo: Undo, patches: Sequence[Patch], rules: Sequence[IrreversibleRule], advisories: Mapping[str, Advisory]
) -> Undo:
    """Add what the policy and the advisories declare irreversible to what the driver found on the target."""
    said: dict[tuple[str, str], list[str]] = {}
    for patch in patches:
        for rule in rules:
            if _declares(rule, patch.component):
                said.setdefault(("policy", rule.reason), []).append(patch.component)
        for name in patch.advisories:
            reason = advisories[name].irreversible if name in advisories else None
            if reason is not None:
                said.setdefault(("advisory", f"{name}: {reason}"), []).append(patch.component)
    declared = tuple(
        Irreversible.model_validate({"components": tuple(names), "found_by": by, "reason": reason})
        for (by, reason), names in said.items()
    )
    if not declared:
        return undo
    found = (*undo.irreversible, *declared)
    lost = {name for item in found for name in item.components}
    covered = min(undo.covered, undo.total - len(lost))
    reason = "; ".join([*([undo.reason] if not undo.possible else []), *map(sentence, declared)])
    return Undo(possible=False, covered=max(covered, 0), total=undo.total, reason=reason, irreversible=found)


def sentence(found: Irreversible) -> str:
    """Say in one sentence what cannot be taken back, why, and who says so."""
    names = ", ".join(found.components[:SHOWN])
    more = f" and {len(found.components) - SHOWN} more" if len(found.components) > SHOWN else ""
    said = {"policy": "declared in the policy: ", "advisory": "declared by advisory ", "driver": ""}[found.found_by]
    return f"{names}{more} cannot be undone ({said}{found.reason})"


def refuse_ungated(policy: Policy, found: Iterable[tuple[str, Undo]]) -> None:
    """Raise PlanError where a declared irreversible patch would be applied without the gates that it needs.

    ``found`` are targets with what is known of their undo. The policy's own declarations were checked with the policy;
    an advisory's comes to light only here.
    """
    spec = policy.spec
    for name, undo in found:
        for item in undo.irreversible:
            if not item.declared:
                continue
            matched = [
                rule for rule in spec.patches.irreversible if any(_declares(rule, one) for one in item.components)
            ]
            for gate, remedy in lacking(spec, matched).items():
                raise PlanError(
                    f"{name}: {sentence(item)}, and {remedy}; or accept it in patches.irreversible "
                    f"(accept.{gate}, with the reason). Nothing was planned"
                )


def gates(plan: Plan) -> list[str]:
    """Say what a plan changes for good, on how many targets, and what is done about it; empty where nothing is."""
    counts = Counter(sentence(item) for one in plan.targets for item in one.undo.irreversible if item.declared)
    if not counts:
        return _undrillable(plan)
    spec = plan.policy.spec
    said = [f"IRREVERSIBLE on {count} of {len(plan.targets)} targets: {text}" for text, count in counts.items()]
    hooks = ", ".join(hook.title for hook in spec.hooks if hook.backup)
    rules = [
        rule
        for rule in spec.patches.irreversible
        if any(_declares(rule, patch.component) for one in plan.targets for patch in one.patches)
    ]
    if hooks:
        said.append(f"before each of them hook {hooks} must succeed")
    said += [f"accepted without a backup: {why}" for rule in rules if (why := rule.accept.without_backup)]
    if spec.rollout.drill:
        said.append("the undo is tried on the first canary before wave 2")
    said += [f"accepted without a drill: {why}" for rule in rules if (why := rule.accept.without_drill)]
    then = "nothing is undone" if spec.on_failure.irreversible == "hold" else "only the others are undone"
    return [*said, f"a bad verdict holds there: {then} without proof that it can be", *_undrillable(plan)]


def _undrillable(plan: Plan) -> list[str]:
    """Say that the drill will hold the rollout, where the driver knows of every canary that it cannot be undone."""
    canaries = [item.undo.irreversible for item in plan.targets if item.wave == 1]
    found = [next((one for one in undo if not one.declared), None) for undo in canaries]
    if not plan.policy.spec.rollout.drill or not found or found[0] is None or None in found:
        return []
    return [f"the rollback drill cannot pass and will hold the rollout, for on every canary {sentence(found[0])}"]


def _declares(rule: IrreversibleRule, component: str) -> bool:
    return matching_pattern(rule.match, bare(component), component) is not None
