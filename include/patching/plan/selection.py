"""Selection: which targets of an inventory a policy means, and for every other one why not."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from patching.errors import PlanError
from patching.plan.document import Exclusion
from patching.policy import Policy, Requirement, Selector
from patching.target import Target
from patching.value import Value


class Selected(Value):
    """Targets that the policy means, in the inventory's order, and those it names but leaves out."""

    targets: tuple[Target, ...]
    exclusions: tuple[Exclusion, ...] = ()
    not_selected: int = 0


def select_targets(policy: Policy, targets: Sequence[Target], *, limit_to: Sequence[str] = ()) -> Selected:
    """Apply selector, limit and ``maxTargets``; raises PlanError that says what to write instead.

    A selector that names a label which no target has is an error: a typing error must not look like an empty fleet.
    """
    selector = policy.spec.targets.selector
    _known_labels(selector, targets)
    chosen = [target for target in targets if matches(selector, target)]
    if not chosen:
        raise PlanError(
            f"the selector of policy {policy.name} matches none of {len(targets)} targets: nothing was planned; "
            "compare spec.targets.selector with the labels of the inventory"
        )
    limit = policy.spec.targets.max_targets
    if len(chosen) > limit:
        raise PlanError(
            f"the selector of policy {policy.name} matches {len(chosen)} targets, more than maxTargets {limit}: "
            "nothing was planned; raise spec.targets.maxTargets if that many are meant"
        )
    if not limit_to:
        return Selected(targets=tuple(chosen), not_selected=len(targets) - len(chosen))
    _known_names(limit_to, chosen)
    wanted = set(limit_to)
    left = [Exclusion(target=item.name, code="limited", reason="this run is limited to other targets")
            for item in chosen if item.name not in wanted]  # fmt: skip
    return Selected(
        targets=tuple(item for item in chosen if item.name in wanted),
        exclusions=tuple(left),
        not_selected=len(targets) - len(chosen),
    )


def matches(selector: Selector, target: Target) -> bool:
    """Whether a target has what a Kubernetes label selector asks for."""
    labels = target.labels
    plain = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return plain and all(_holds(item, labels) for item in selector.match_expressions)


def _holds(item: Requirement, labels: dict[str, str]) -> bool:
    present = item.key in labels
    if item.operator == "Exists":
        return present
    if item.operator == "DoesNotExist":
        return not present
    if item.operator == "In":
        return labels.get(item.key) in item.values
    return labels.get(item.key) not in item.values


def _known_labels(selector: Selector, targets: Sequence[Target]) -> None:
    known = sorted({key for target in targets for key in target.labels})
    asked = [*selector.match_labels, *(e.key for e in selector.match_expressions if e.operator != "DoesNotExist")]
    for key in asked:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = (
                f'; did you mean "{close[0]}"?' if close else f"; there is: {', '.join(known[:8]) or 'no label at all'}"
            )
            raise PlanError(f'unknown label "{key}": no target of the inventory has it, nothing was planned{hint}')


def _known_names(names: Sequence[str], chosen: Sequence[Target]) -> None:
    known = [target.name for target in chosen]
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise PlanError(f'the run is limited to "{name}", which the policy does not select{hint}')
