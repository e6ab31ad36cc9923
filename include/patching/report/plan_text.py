"""A plan as people read it: in the terminal, as Markdown for the approval, and as one versioned JSON document.

Signs: ``+`` new, ``-`` removed, ``~`` another version; a target that has several kinds of change gets ``~``.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from patching.change import Patch, Refusal
from patching.diagnostics import printable
from patching.plan.document import CheckPower, Exclusion, Plan, PlannedTarget, PlannedWave
from patching.plan.power import CONTROL
from patching.plan.reversibility import gates
from patching.quantity import format_duration
from patching.value import JsonValue

MANY = 20
SHOWN_PATCHES = 3
SHOWN_NAMES = 8
WIDTH = 120
NARROWEST = 60


def plural(count: int, noun: str) -> str:
    """Say a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def symbol(patch: Patch) -> str:
    """Give the sign of a change: ``+`` new, ``-`` removed, ``~`` another version."""
    return "+" if patch.before is None else "-" if patch.after is None else "~"


def patch_text(patch: Patch) -> str:
    """Say one change in a few words, its sign first."""
    versions = " -> ".join(version for version in (patch.before, patch.after) if version is not None)
    return f"{symbol(patch)} {patch.component} {versions}"


def summary(plan: Plan) -> str:
    """Give the last line: how much will be patched, left out, rebooted, and what can be undone."""
    codes = Counter(item.code for item in plan.exclusions)
    current = codes.pop("up_to_date", 0)
    said = f"Plan: {len(plan.targets)} to patch, {sum(codes.values())} skipped, {current} up to date"
    if not plan.targets:
        return f"{said}; nothing would be changed."
    undoable = sum(item.undo.possible for item in plan.targets)
    covered, total = sum(item.undo.covered for item in plan.targets), sum(item.undo.total for item in plan.targets)
    said += f"; {plural(sum(item.reboot for item in plan.targets), 'reboot')}"
    said += f"; undo available for {undoable} of {len(plan.targets)}"
    return f"{said} ({covered} of {total} components)." if undoable < len(plan.targets) else f"{said}."


def render_plan(plan: Plan, now: datetime | None = None, *, width: int = WIDTH) -> str:
    """Render for a terminal: every target and exclusion with its reason, grouped where a wave is large.

    ``now`` adds how old the plan is. Lines are folded at ``width`` columns; control characters are shown, not sent.
    """
    age = f", {format_duration((now - plan.created_at).total_seconds())} ago" if now is not None else ""
    lines = [
        f"Plan {plan.digest[:12]} for {plan.policy.name} "
        f"(policy {plan.policy_digest[:12]}, {plan.created_at:%Y-%m-%d %H:%M}Z{age})"
    ]
    if plan.emergency:
        lines.append(f"  ! EMERGENCY: passes {', '.join(plan.policy.spec.emergency.ignore) or 'nothing'}")
    lines += [f"  ! {text}" for text in (*gates(plan), *_of_fleet(plan), *plan.blocked_domains)]
    lines += [f"  error budget {view.sentence}" for view in plan.error_budgets]
    for wave in plan.waves:
        lines += ["", f"  {_wave_title(wave)}", *(f"    {line}" for line in _wave_lines(plan, wave))]
        lines += [f"    {_named(item)}: {item.statement}" for item in _checks(plan, wave)]
    if plan.exclusions:
        lines += ["", "  left out", *(f"    {line}" for line in _exclusion_lines(plan.exclusions))]
    lines += ["", f"Approval: {_approval(plan)}", summary(plan)]
    return "\n".join(_folded(line, max(width, NARROWEST)) for line in lines)


def plan_markdown(plan: Plan) -> str:
    """Render for the approval: the summary first, then waves, changes and what the checks can see."""
    lines = [f"**{summary(plan)}**", "", f"Plan `{plan.digest}`, approval: {_approval(plan)}", ""]
    if plan.emergency:
        lines += [f"- ⚠ EMERGENCY: passes {', '.join(plan.policy.spec.emergency.ignore) or 'nothing'}"]
    lines += [f"- ⚠ {sentence}" for sentence in (*gates(plan), *_of_fleet(plan), *plan.blocked_domains)]
    lines += [f"- error budget {view.sentence}" for view in plan.error_budgets]
    for wave in plan.waves:
        lines += ["", f"**{_wave_title(wave)}**", "", *_fenced(_wave_lines(plan, wave)), ""]
        lines += [f"- {item.check}: {item.statement}" for item in _checks(plan, wave)]
    if plan.exclusions:
        lines += ["", "**left out**", "", *_fenced(_exclusion_lines(plan.exclusions))]
    return "\n".join(lines)


def plan_json(plan: Plan) -> dict[str, JsonValue]:
    """Give the versioned document of ``patching plan --json``."""
    return {
        "schema_version": 1,
        "digest": plan.digest,
        "summary": summary(plan),
        "changes": len(plan.targets),
        "plan": plan.model_dump(mode="json"),
    }


def _of_fleet(plan: Plan) -> list[str]:
    """What is true of the whole plan: too small, or nothing that looks."""
    return [item.statement for item in plan.power if item.check == "-"]


def _checks(plan: Plan, wave: PlannedWave) -> list[CheckPower]:
    return [item for item in plan.power if item.wave == wave.index and item.check != "-"]


def _named(item: CheckPower) -> str:
    return item.check if item.check == CONTROL else f"check {item.check}"


def _fenced(lines: Iterable[str]) -> list[str]:
    """Put lines into a code block that what hosts say cannot end."""
    return ["```", *(printable(line).replace("```", "'''") for line in lines), "```"]


def _folded(line: str, width: int) -> str:
    clean = printable(line)
    if len(clean) <= width:
        return clean
    indent = " " * (len(clean) - len(clean.lstrip()) + 4)
    return textwrap.fill(
        clean, width, subsequent_indent=indent, drop_whitespace=True, break_long_words=False, break_on_hyphens=False
    )


def _approval(plan: Plan) -> str:
    if not plan.approval_required:
        return f"none ({plan.approval_reason})"
    people = "person" if plan.approval_required == 1 else "different people"
    return f"{plan.approval_required} {people} ({plan.approval_reason})"


def _wave_title(wave: PlannedWave) -> str:
    kind = " (canary)" if wave.canary else ""
    soak = f", then soaks {format_duration(wave.soak)}" if wave.soak else ""
    return f"wave {wave.index}{kind}: {plural(len(wave.targets), 'target')}{soak}"


def _wave_lines(plan: Plan, wave: PlannedWave) -> list[str]:
    found = [item for item in plan.targets if item.wave == wave.index]
    label = plan.policy.spec.rollout.failure_domain
    if len(found) <= MANY:
        width = max((len(item.target.name) for item in found), default=0)
        return [line for item in found for line in _target_lines(item, width, label)]
    return [line for group in _grouped(found) for line in _group_lines(group, label)]


def _alike(item: PlannedTarget) -> tuple[object, ...]:
    """Say what two targets must have in common to be shown as one."""
    changes = tuple((patch.component, patch.before, patch.after) for patch in item.patches)
    warned = tuple(sorted({warning.code for warning in item.warnings}))
    declared = tuple(found.reason for found in item.undo.irreversible if found.declared)
    return changes, item.reboot, item.undo.possible, declared, item.reason, warned


def _grouped(found: Iterable[PlannedTarget]) -> list[list[PlannedTarget]]:
    groups: dict[tuple[object, ...], list[PlannedTarget]] = {}
    for item in found:
        groups.setdefault(_alike(item), []).append(item)
    return sorted(groups.values(), key=len, reverse=True)


def _target_lines(item: PlannedTarget, width: int, label: str | None) -> list[str]:
    domain = f"  {item.target.domain(label)}" if label else ""
    return _described(item, f"{item.target.name.ljust(width)}{domain}", [])


def _group_lines(group: Sequence[PlannedTarget], label: str | None) -> list[str]:
    item = group[0]
    if len(group) == 1:
        return _target_lines(item, 0, label)
    counts = Counter(one.target.domain(label) for one in group)
    spread = f" ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))})" if label else ""
    return _described(item, f"{len(group)} targets{spread}", [f"    {_names([one.target.name for one in group])}"])


def _described(item: PlannedTarget, who: str, names: list[str]) -> list[str]:
    """Say what happens to a target or a group of equal ones: one change beside the name, several below it."""
    reboot = "  reboot" if item.reboot else ""
    if len(item.patches) == 1:
        sign, change = patch_text(item.patches[0]).split(" ", 1)
        lines = [f"{sign} {who}  {change}{reboot}", *names]
    else:
        lines = [f"{_sign(item.patches)} {who}  {len(item.patches)} components{reboot}", *names]
        lines += [f"    {line}" for line in _changes(item.patches)]
    if not item.undo.possible:
        why = f" ({item.undo.reason})" if item.undo.reason else ""
        lines.append(f"    ! NO UNDO: available for {item.undo.covered} of {item.undo.total} components{why}")
    return [*lines, f"    because {item.reason}", *_warning_lines(item.warnings)]


def _sign(patches: Sequence[Patch]) -> str:
    signs = {symbol(patch) for patch in patches}
    return signs.pop() if len(signs) == 1 else "~"


def _changes(patches: Sequence[Patch]) -> list[str]:
    """List the first changes, those that close an advisory before those that only come along."""
    ordered = sorted(patches, key=lambda patch: not patch.advisories)
    more = len(ordered) - SHOWN_PATCHES
    return [patch_text(patch) for patch in ordered[:SHOWN_PATCHES]] + ([f"  and {more} more"] if more > 0 else [])


def _warning_lines(warnings: Sequence[Refusal]) -> list[str]:
    return [
        f"    ! {warning.message}" + (f"; {warning.remedy}" if warning.remedy and warning.blocking else "")
        for warning in warnings
    ]


def _names(names: Sequence[str]) -> str:
    ordered = sorted(names)
    if len(ordered) <= SHOWN_NAMES:
        return ", ".join(ordered)
    return f"{', '.join(ordered[:SHOWN_NAMES])} and {len(ordered) - SHOWN_NAMES} more"


def _exclusion_lines(exclusions: Sequence[Exclusion]) -> list[str]:
    if len(exclusions) <= MANY:
        width = max(len(item.target) for item in exclusions)
        return [f"{item.target.ljust(width)}  {item.code}: {item.reason}" for item in exclusions]
    groups: dict[tuple[str, str], list[str]] = {}
    for item in exclusions:
        groups.setdefault((item.code, item.reason), []).append(item.target)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [f"{_names(names)}  {code}: {reason}" for (code, reason), names in ordered]
