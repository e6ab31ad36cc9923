"""Selection: which targets of an inventory a policy means, and for every other one why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patching.diagnostics import did_you_mean
from patching.errors import PlanError
from patching.plan.document import Exclusion
from patching.policy import Policy, Requirement, Selector
from patching.target import Snapshot, Target
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
    if not targets:
        raise PlanError(
            f'inventory "{policy.spec.targets.inventory}" has no targets at all: nothing was planned; '
            "check what fills it before the next window"
        )
    selector = policy.spec.targets.selector
    _known_labels(selector, targets)
    chosen = [target for target in targets if matches(selector, target)]
    if not chosen:
        raise PlanError(
            f"the selector of policy {policy.name} matches none of {len(targets)} targets: nothing was planned"
            f"{_why_none(selector, targets)}; compare spec.targets.selector with the labels of the inventory"
        )
    limit = policy.spec.targets.max_targets
    if len(chosen) > limit:
        raise PlanError(
            f"the selector of policy {policy.name} matches {len(chosen)} targets, more than maxTargets {limit}: "
            "nothing was planned; raise spec.targets.maxTargets if that many are meant"
        )
    _known_names(limit_to, chosen)
    wanted = set(limit_to) or {item.name for item in chosen}
    left = [Exclusion(target=item.name, code="limited", reason="this run is limited to other targets")
            for item in chosen if item.name not in wanted]  # fmt: skip
    return Selected(
        targets=tuple(item for item in chosen if item.name in wanted),
        exclusions=tuple(left),
        not_selected=len(targets) - len(chosen),
    )


def unavailable(
    targets: Sequence[Target],
    snapshots: Mapping[str, Snapshot],
    *,
    quarantined: Mapping[str, str],
    busy: Mapping[str, str],
) -> dict[str, Exclusion]:
    """Say which selected targets may not be touched now; first reason wins: does not answer, quarantined, busy.

    ``quarantined`` maps target to the reason, ``busy`` to the other rollout that is changing it. Codes are those of
    ``Reach`` (offline, login_refused, host_key_unknown, host_key_changed), not_seen, quarantined, busy.
    """
    found = {}
    for target in targets:
        answer = _unavailable(target.name, snapshots.get(target.name), quarantined, busy)
        if answer is not None:
            found[target.name] = Exclusion(target=target.name, code=answer[0], reason=answer[1])
    return found


def _unavailable(
    name: str, snapshot: Snapshot | None, quarantined: Mapping[str, str], busy: Mapping[str, str]
) -> tuple[str, str] | None:
    if snapshot is None:
        return "not_seen", "nobody looked at it: discovery has no snapshot of it"
    if not snapshot.online:
        return snapshot.reach.value, snapshot.reach_detail or "it did not answer"
    if name in quarantined:
        return "quarantined", f"it is in quarantine: {quarantined[name]}"
    if name in busy:
        return "busy", f"rollout {busy[name]} is changing it; the next plan takes it in"
    return None


def matches(selector: Selector, target: Target) -> bool:
    """Whether a target has what a Kubernetes label selector asks for."""
    labels = target.labels
    plain = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return plain and all(_holds(item, labels) for item in selector.match_expressions)


def _holds(item: Requirement, labels: Mapping[str, str]) -> bool:
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
            hint = did_you_mean(key, known) or "; the targets have no label at all"
            raise PlanError(f'unknown label "{key}": no target of the inventory has it, nothing was planned{hint}')


def _why_none(selector: Selector, targets: Sequence[Target]) -> str:
    """Name the first value that no target has, which is the likeliest typing error."""
    for key, value in selector.match_labels.items():
        known = sorted({target.labels[key] for target in targets if key in target.labels})
        if value not in known:
            return f'; no target has {key} "{value}"{did_you_mean(value, known)}'
    return ""


def _known_names(names: Sequence[str], chosen: Sequence[Target]) -> None:
    known = [target.name for target in chosen]
    for name in names:
        if name not in known:
            raise PlanError(
                f'the run is limited to "{name}", which the policy does not select: nothing was planned'
                f"{did_you_mean(name, known)}"
            )
