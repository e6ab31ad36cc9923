"""Markdown of a rollout's report: the headline first, then what a person must do, then the evidence."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from patching.value import JsonValue

SMALL = 30
"""Up to this many targets each gets a row of its own; larger fleets are shown in groups, troubles one by one."""

MOST_ROWS = 60
MOST_NAMES = 10
MOST_CHANGES = 6
GOOD = frozenset({"applied", "nothing_to_do"})

Document = Mapping[str, JsonValue]


def report_markdown(report: Document) -> str:
    """Write a report (the JSON form, ``schema_version`` 1) as Markdown."""
    parts = [
        [f"# {_text(report['headline'])}", ""],
        _facts(report),
        _listed("What a person must do next", report["next_steps"]),
        _waves(report["waves"]),
        _checks(report["waves"]),
        _listed("What cannot be undone", report["irreversible"]),
        _listed("Rollback drill", report["drill"]),
        _targets(report["targets"]),
        _quarantine(report["quarantined"]),
        _listed("Carried over: still on the old version", _short(report["carried_over"])),
        _exclusions(report["exclusions"]),
        _listed("What the checks could detect, as said before approval", report["power"]),
        _history(report["events"]),
        [_made(report), ""],
    ]
    return "\n".join(line for part in parts for line in part)


def _facts(report: Document) -> list[str]:
    lines = ["| | |", "|---|---|", _row("Rollout", report["rollout"]), _row("Policy", report["policy"])]
    lines.append(_row("State", f"{report['state']}: {report['reason']}" if report["reason"] else report["state"]))
    if report["emergency"]:
        lines.append(_row("Emergency", report["emergency_reason"] or "yes"))
    lines.append(_row("Requested by", report["requested_by"] or "the schedule"))
    lines.append(_row("Opened", _when(report["opened_at"])))
    lines.append(_row("Plan", report["plan_digest"] or "none"))
    lines.append(_row("Approval", _approval(report)))
    return [*lines, ""]


def _approval(report: Document) -> str:
    answers = [
        f"{item['person']}: {item['decision']} at {_when(item['at'])}"
        + (f' ("{item["comment"]}")' if item["comment"] else "")
        for item in report["approvers"]
    ]
    said = "; ".join(answers) or "no answers"
    return f"{said} ({report['approval_required']} required; {report['approval_reason'] or 'not decided yet'})"


def _waves(waves: Sequence[Document]) -> list[str]:
    if not waves:
        return []
    lines = ["## Waves", "", "| wave | targets | started | verdict | why |", "|---|---|---|---|---|"]
    for wave in waves:
        name = f"{wave['wave']}{' (canary)' if wave['canary'] else ''}"
        verdict = wave["verdict"] or ("no verdict yet" if wave["started_at"] else "not started")
        lines.append(_row(name, wave["targets"], _when(wave["started_at"]), verdict, wave["reason"]))
    return [*lines, ""]


def _checks(waves: Sequence[Document]) -> list[str]:
    rows = [_check_row(wave["wave"], check) for wave in waves for check in wave["checks"]]
    if not rows:
        return []
    titles = ("wave", "check", "verdict", "compared with", "changed", "reference", "ratio (limits)")
    head = _head(*titles, "seen in 4 of 5", "p", "moved by")
    return ["## What was measured", "", *head, *rows, ""]


def _check_row(wave: JsonValue, check: Document) -> str:
    numbers = check.get("numbers") or {}
    changed = _share(numbers, "treated")
    reference = _share(numbers, "reference")
    return _row(
        wave,
        check.get("name"),
        check.get("verdict"),
        check.get("comparison") or "nothing",
        changed,
        reference,
        _ratio(numbers),
        _seen(numbers, check.get("comparison")),
        _p_values(numbers),
        _when(numbers.get("alarm_at")),
    )


def _seen(numbers: Document, comparison: JsonValue) -> str:
    """Say which change the soak would have shown in four of five rollouts."""
    seen = numbers.get("seen_ratio")
    if seen is None:
        return "-"
    return f"{seen:.2g} ×{' the limit' if comparison == 'threshold' else ''}"


def _p_values(numbers: Document) -> str:
    """Say the p-value that holds at every look, and that of the one look at ranks, each with where it alarms."""
    found = [("", numbers.get("p_value"), numbers.get("alpha"))]
    found.append(("ranks ", numbers.get("rank_p"), numbers.get("rank_alpha")))
    said = [f"{name}{p:.2g} (alarm at {alpha or 0:.2g})" for name, p, alpha in found if p is not None]
    return "; ".join(said) or "-"


def _share(numbers: Document, side: str) -> str:
    """Say the error share of a side, or the level of a gauge."""
    level, share = numbers.get(f"{side}_level"), numbers.get(f"{side}_share")
    if level is not None:
        return f"{level:.4g}"
    return "-" if share is None else f"{100 * share:.3g} % of {numbers.get(f'{side}_requests') or 0:.0f}"


def _ratio(numbers: Document) -> str:
    low, high = numbers.get("ratio_low"), numbers.get("ratio_high")
    if low is None and high is None:
        return "-"
    ratio = numbers.get("ratio")
    estimate = "-" if ratio is None else f"{ratio:.2f}"
    return f"{estimate} ({0.0 if low is None else low:.2f} to {'∞' if high is None else f'{high:.2f}'})"


def _targets(targets: Sequence[Document]) -> list[str]:
    if not targets:
        return []
    kinds = sorted({_changes(target["changes"]) for target in targets})
    alike = len(kinds) == 1
    lines = ["## Targets", ""]
    lines += [f"Planned for all of them: {_text(kinds[0])}", ""] if alike else []
    if len(targets) <= SMALL:
        return [*lines, *_target_table(targets, alike=alike), ""]
    lines += _group_table(targets, alike=alike)
    troubled = [target for target in targets if _troubled(target)]
    if troubled:
        lines += ["", f"### Not as planned: {len(troubled)}", "", *_target_table(troubled[:MOST_ROWS], alike=alike)]
        if len(troubled) > MOST_ROWS:
            lines += ["", f"… and {len(troubled) - MOST_ROWS} more, all of them in the JSON form."]
    return [*lines, ""]


def _group_table(targets: Sequence[Document], *, alike: bool) -> list[str]:
    groups: dict[tuple[int, str, str], list[str]] = defaultdict(list)
    for target in targets:
        groups[(target["wave"], _result(target), _changes(target["changes"]))].append(target["target"])
    lines = _head("wave", "result", "number", "targets", *([] if alike else ["planned change"]))
    for (wave, result, changes), members in sorted(groups.items()):
        lines.append(_row(wave, result, len(members), ", ".join(_short(members)), *([] if alike else [changes])))
    return lines


def _target_table(targets: Sequence[Document], *, alike: bool) -> list[str]:
    lines = _head("target", "wave", "result", *([] if alike else ["planned change"]), "began", "ended", "why")
    for target in targets:
        why = "; undo: ".join(part for part in (target["reason"], target["undo_reason"]) if part) or target["waits_for"]
        cells = [target["target"], target["wave"], _result(target)]
        cells += [] if alike else [_changes(target["changes"])]
        lines.append(_row(*cells, _when(target["began_at"]), _when(target["ended_at"]), why))
    return lines


def _head(*titles: str) -> list[str]:
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def _result(target: Document) -> str:
    outcome = target["outcome"] or target["state"]
    undo = target["undo_outcome"]
    if undo is None:
        return str(outcome)
    return f"{outcome}, then undone" if undo == "undone" else f"{outcome}, undo {undo}"


def _troubled(target: Document) -> bool:
    return target["outcome"] is not None and (target["outcome"] not in GOOD or target["undo_outcome"] is not None)


def _changes(changes: Sequence[str]) -> str:
    shown = "; ".join(changes[:MOST_CHANGES])
    return shown if len(changes) <= MOST_CHANGES else f"{shown}; and {len(changes) - MOST_CHANGES} more"


def _quarantine(quarantined: Sequence[Document]) -> list[str]:
    lines = [
        f"- **{_text(item['target'])}** until {_when(item['until']) if item['until'] else 'released'}: "
        f"{_text(item['reason'])}{_evidence(item.get('evidence'))}"
        for item in quarantined
    ]
    return ["## In quarantine", "", *lines, ""] if lines else []


def _evidence(found: Document | None) -> str:
    """Say what failed and the last line of its output; empty where the ledger has no evidence."""
    if not found or not found["step"]:
        return ""
    lines = str(found["output"]).strip().splitlines()
    tries = f", tried {found['tries']} times" if found["tries"] > 1 else ""
    said = f"; it printed: {_text(lines[-1])}" if lines else ""
    return f" (step {_text(found['step'])}, exit code {found['exit_code']}, cause {found['cause']}{tries}{said})"


def _exclusions(exclusions: Sequence[Document]) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in exclusions:
        groups[(item["code"], item["reason"])].append(item["target"])
    if not groups:
        return []
    lines = ["## Left out of the plan", "", "| code | reason | number | targets |", "|---|---|---|---|"]
    lines += [_row(code, reason, len(found), ", ".join(_short(found))) for (code, reason), found in groups.items()]
    return [*lines, ""]


def _history(events: Sequence[Document]) -> list[str]:
    if not events:
        return []
    lines = [f"- {_when(item['at'])} {_text(item['to'])}: {_text(item['reason'])}{_by(item)}" for item in events]
    return ["## History", "", *lines, ""]


def _by(item: Document) -> str:
    return f" (by {_text(item['actor'])})" if item["actor"] else ""


def _made(report: Document) -> str:
    seal = f"entry {report['last_entry']}, hash {str(report['last_hash'])[:16]}"
    return f"Made {_when(report['made_at'])} from the ledger up to {seal}; `patching ledger verify` proves the chain."


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {_text(item)}" for item in items), ""] if items else []


def _short(names: Sequence[str]) -> list[str]:
    return list(names) if len(names) <= MOST_NAMES else [*names[:MOST_NAMES], f"and {len(names) - MOST_NAMES} more"]


def _when(moment: JsonValue) -> str:
    return f"{datetime.fromisoformat(str(moment)).astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if moment else "-"


def _row(*cells: JsonValue) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _text(value: JsonValue) -> str:
    """Make a value safe inside a table cell or a heading: one line, nothing that Markdown or HTML would act on."""
    return re.sub(r"([|<`*\[\\])", r"\\\1", " ".join(str(value).split()))
