"""Status text: rollouts for a terminal, from the API's documents; pure, and safe to print whatever hosts are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from patching.report.printing import printable
from patching.report.quarantine_view import until_when
from patching.value import JsonValue

SMALL = 30
"""Up to this many targets all are shown; of larger fleets only those that do something or went wrong."""

MOST_TARGETS = 40
QUIET = frozenset({"applied", "nothing_to_do", "pending"})

Document = Mapping[str, JsonValue]


def rollouts_text(listed: Document, *, every: bool = False) -> str:
    """Write a list of rollouts, one paragraph each: where it stands and what it waits for."""
    lines = _stopped(listed.get("stop_switch"))
    if not listed["rollouts"]:
        return "\n".join([*lines, "no rollout yet" if every else "no open rollout; --all lists the ended ones too"])
    for item in listed["rollouts"]:
        state = str(item["state"]).upper() if item["state"] in ("held", "undoing", "undone") else item["state"]
        emergency = "  EMERGENCY" if item["emergency"] else ""
        lines.append(f"{printable(item['id'])}  {state}{emergency}  {printable(item['standing'])}".rstrip())
        if item["sentence"]:
            lines.append(f"    {printable(item['sentence'])}")
    return "\n".join(lines)


def rollout_text(view: Document) -> str:
    """Write one rollout: the headline, waves, targets, and what a person must do."""
    rollout = view["rollout"]
    facts = (
        f"{printable(rollout['id'])}  policy {printable(rollout['policy'])}  plan {str(rollout['plan_digest'])[:12]}"
    )
    lines = [printable(view["headline"]), facts, *_stopped(view["stop_switch"])]
    if view["sentence"] and printable(view["sentence"]) not in lines[0]:
        lines.append(printable(view["sentence"]))
    lines += _section("Waves", [_wave(wave) for wave in view["waves"]])
    lines += _section(*_targets(view["targets"]))
    lines += _section("Late hosts", _late(view.get("late", [])))
    lines += _section("What a person must do next", [f"- {printable(step)}" for step in view["next_steps"]])
    return "\n".join(lines)


def changes_text(last: Document, now: Document) -> str:
    """Write what is different between two documents of one rollout, a line each; empty where nothing to tell is."""
    clock = f"{datetime.fromisoformat(str(now['as_of'])).astimezone(UTC):%H:%M:%SZ}"
    lines = []
    if now["rollout"]["state"] != last["rollout"]["state"]:
        lines.append(f"{last['rollout']['state']} -> {now['rollout']['state']}: {printable(now['rollout']['reason'])}")
    verdicts = {wave["index"]: wave["verdict"] for wave in last["waves"]}
    for wave in now["waves"]:
        if wave["verdict"] and wave["verdict"] != verdicts.get(wave["index"]):
            lines.append(f"wave {wave['index']}: {wave['verdict']}: {printable(wave['reason'])}")
    before = {target["name"]: target for target in last["targets"]}
    lines += [
        f"{printable(target['name'])}: {_doing(target)}"
        for target in now["targets"]
        if _does(target) != _does(before.get(target["name"], {}))
    ]
    if now["sentence"] != last["sentence"] and now["sentence"]:
        lines.append(printable(now["sentence"]))
    return "\n".join(f"{clock}  {line}" for line in lines)


def _stopped(reason: JsonValue) -> list[str]:
    return [f"EVERYTHING IS STOPPED: {printable(reason)}"] if reason is not None else []


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _wave(wave: Document) -> str:
    name = f"{wave['index']}{' canary' if wave['canary'] else ''}"
    text = f"{name:<9} {wave['ended']} of {wave['targets']} ended  {wave['state']}"
    return f"{text}: {printable(wave['reason'])}" if wave["reason"] else text


def _late(late: Sequence[Document]) -> list[str]:
    lines = [printable(item["sentence"]) for item in late[:MOST_TARGETS]]
    return [*lines, f"… and {len(late) - MOST_TARGETS} more; --json has all"] if len(late) > MOST_TARGETS else lines


def _targets(targets: Sequence[Document]) -> tuple[str, list[str]]:
    shown = list(targets) if len(targets) <= SMALL else [item for item in targets if not _quiet(item)]
    width = max([len(printable(item["name"])) for item in shown[:MOST_TARGETS]], default=0)
    lines = [
        f"{printable(item['name']):<{width}}  wave {item['wave']}  {_doing(item)}" for item in shown[:MOST_TARGETS]
    ]
    if len(shown) > MOST_TARGETS:
        lines.append(f"… and {len(shown) - MOST_TARGETS} more; --json has all")
    if len(shown) == len(targets):
        return "Targets", lines
    return f"Targets: {len(shown)} of {len(targets)}; the others are applied, pending or had nothing to do", lines


def _quiet(target: Document) -> bool:
    return target["shown_as"] in QUIET and not target["quarantined"]


def _does(target: Document) -> str:
    """Say what a target does, without what every target waits for that has not begun: the rollout's line says that."""
    return "pending" if target and target["shown_as"] == "pending" else _doing(target)


def _doing(target: Document) -> str:
    """Say in one line what a target does, waits for, or why it ended."""
    if not target:
        return ""
    said = str(target["shown_as"])
    if target["state"] in ("running", "undoing") and target["phase"]:
        said += f" ({target['phase']})"
    more = target["waits_for"] or ("" if target["shown_as"] in QUIET else target["detail"])
    said += f": {printable(more)}" if more else ""
    return f"{said}; in quarantine until {until_when(target['quarantined_until'])}" if target["quarantined"] else said
