"""A plan as people read it: in the terminal, as Markdown for the approval, and as one versioned JSON document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from patching.change import Patch
from patching.plan.document import Plan, PlannedTarget, PlannedWave
from patching.quantity import format_duration
from patching.value import JsonValue

MANY = 20
SHOWN_PATCHES = 3


def symbol(patch: Patch) -> str:
    """Give the sign of a change: ``+`` new, ``-`` removed, ``~`` another version."""
    return "+" if patch.before is None else "-" if patch.after is None else "~"


def patch_text(patch: Patch) -> str:
    """Say one change in a few words."""
    name = patch.component
    if patch.before is None:
        return f"+ {name} {patch.after}"
    if patch.after is None:
        return f"- {name} {patch.before}"
    return f"~ {name} {patch.before} -> {patch.after}"


def summary(plan: Plan) -> str:
    """Give the last line: how much will be patched, left out, rebooted, and what can be undone."""
    codes = Counter(item.code for item in plan.exclusions)
    current = codes.pop("up_to_date", 0)
    reboots = sum(item.reboot for item in plan.targets)
    said = f"Plan: {len(plan.targets)} to patch, {sum(codes.values())} skipped, {current} up to date; {reboots} reboots"
    undoable = sum(item.undo.possible for item in plan.targets)
    return f"{said}; undo available for {undoable} of {len(plan.targets)} targets."


def render_plan(plan: Plan) -> str:
    """Render for a terminal: a line for every target and exclusion with its reason, grouped where a wave is large."""
    lines = [
        f"Plan {plan.digest[:12]} for {plan.policy.name} "
        f"(policy {plan.policy_digest[:12]}, {plan.created_at:%Y-%m-%d %H:%M}Z)"
    ]
    if plan.emergency:
        passes = ", ".join(plan.policy.spec.emergency.ignore) or "nothing"
        lines.append(f"  EMERGENCY: passes {passes}")
    for wave in plan.waves:
        lines += ["", f"  {_wave_title(wave)}", *(f"    {line}" for line in _wave_lines(plan, wave))]
        lines += [f"    {item.check}: {item.statement}" for item in plan.power if item.wave == wave.index]
    if plan.exclusions:
        lines += ["", "  left out", *(f"    {line}" for line in _exclusion_lines(plan))]
    lines += [f"  ! {sentence}" for sentence in plan.blocked_domains]
    lines += ["", f"Approval: {_approval(plan)}", summary(plan)]
    return "\n".join(lines)


def plan_markdown(plan: Plan) -> str:
    """Render for the approval: the summary first, then waves, changes and what the checks can see."""
    lines = [f"**{summary(plan)}**", "", f"Plan `{plan.digest}`, approval: {_approval(plan)}", ""]
    for wave in plan.waves:
        lines += [f"**{_wave_title(wave)}**", "", "```", *_wave_lines(plan, wave), "```", ""]
        lines += [f"- {item.check}: {item.statement}" for item in plan.power if item.wave == wave.index]
        lines.append("")
    if plan.exclusions:
        lines += ["**left out**", "", "```", *_exclusion_lines(plan), "```"]
    lines += [f"- ⚠ {sentence}" for sentence in plan.blocked_domains]
    return "\n".join(lines)


def plan_json(plan: Plan) -> dict[str, JsonValue]:
    """Give the versioned document of ``patching plan --json``."""
    return {"version": 1, "digest": plan.digest, "summary": summary(plan), "plan": plan.model_dump(mode="json")}


def _approval(plan: Plan) -> str:
    if not plan.approval_required:
        return f"none ({plan.approval_reason})"
    people = "person" if plan.approval_required == 1 else "different people"
    return f"{plan.approval_required} {people} ({plan.approval_reason})"


def _wave_title(wave: PlannedWave) -> str:
    kind = " (canary)" if wave.canary else ""
    soak = f", then soaks {format_duration(wave.soak)}" if wave.soak else ""
    return f"wave {wave.index}{kind}: {len(wave.targets)} targets{soak}"


def _wave_lines(plan: Plan, wave: PlannedWave) -> list[str]:
    found = [item for item in plan.targets if item.wave == wave.index]
    if len(found) <= MANY:
        width = max((len(item.target.name) for item in found), default=0)
        return [line for item in found for line in _target_lines(item.target.name.ljust(width), item)]
    groups: dict[tuple[str, ...], list[PlannedTarget]] = {}
    for item in found:
        groups.setdefault(tuple(patch_text(patch) for patch in item.patches), []).append(item)
    return [line for group in groups.values() for line in _target_lines(_names(group), group[0])]


def _target_lines(name: str, item: PlannedTarget) -> list[str]:
    shown = [patch_text(patch) for patch in item.patches[:SHOWN_PATCHES]]
    more = len(item.patches) - len(shown)
    changes = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    flags = ["reboot"] if item.reboot else []
    if not item.undo.possible:
        flags.append(f"NO UNDO: {item.undo.covered} of {item.undo.total} old versions are kept ({item.undo.reason})")
    lines = [f"{name}  {changes}{''.join(f'  {flag}' for flag in flags)}", f"{' ' * len(name)}  because {item.reason}"]
    return lines + [f"{' ' * len(name)}  ! {warning.message}" for warning in item.warnings]


def _names(group: Sequence[PlannedTarget]) -> str:
    names = [item.target.name for item in group]
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"


def _exclusion_lines(plan: Plan) -> Iterable[str]:
    if len(plan.exclusions) <= MANY:
        return [f"{item.target}  {item.code}: {item.reason}" for item in plan.exclusions]
    groups: dict[tuple[str, str], list[str]] = {}
    for item in plan.exclusions:
        groups.setdefault((item.code, item.reason), []).append(item.target)
    return [
        f"{names[0] if len(names) == 1 else f'{names[0]} … ({len(names)})'}  {code}: {reason}"
        for (code, reason), names in groups.items()
    ]
