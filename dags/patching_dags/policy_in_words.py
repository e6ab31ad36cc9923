"""A policy in words, for the page of its DAG: what it patches, when, how carefully, and what follows a failure."""

from __future__ import annotations

from patching.policy import Check, Policy, WaveRule
from patching.quantity import format_duration


def policy_in_words(policy: Policy) -> str:
    """Say what a policy means, as Markdown; every sentence follows from a field."""
    spec = policy.spec
    sections = [
        f"## {policy.metadata.description or policy.name}",
        _what(policy),
        f"**When.** {_when(policy)}",
        f"**Who approves.** {_who(policy)}",
        "**How far at once.**\n\n" + "\n".join(f"1. {_wave(rule)}" for rule in spec.rollout.waves),
        f"At most {spec.rollout.max_unavailable} "
        + (f"of every `{spec.rollout.failure_domain}` " if spec.rollout.failure_domain else "of the fleet ")
        + f"are changed at the same time. {_reboots(policy)}",
        "**What must hold after a change.**\n\n"
        + ("\n".join(f"- {_check(item)}" for item in spec.verify) or "- nothing: only the package state is verified"),
        f"**When it goes wrong.** {_wrong(policy)}",
        "Live state, verdicts and the log of every target: tab **Patching** of a run. "
        "Airflow's colours only show; the ledger decides.",
    ]
    return "\n\n".join(sections)


def _what(policy: Policy) -> str:
    spec = policy.spec
    mode = "Patches" if spec.mode == "apply" else "Plans, and never changes,"
    kinds = "security updates" if "all" not in spec.patches.classes else "all updates"
    selector = spec.targets.selector
    chosen = ", ".join(f"`{key}={value}`" for key, value in selector.match_labels.items())
    chosen += "".join(f", `{e.key}` {e.operator} {list(e.values)}" for e in selector.match_expressions)
    left = f" Never: {', '.join(f'`{name}`' for name in spec.patches.exclude)}." if spec.patches.exclude else ""
    age = (
        f" Only what was published {format_duration(spec.patches.min_age)} ago or earlier."
        if spec.patches.min_age
        else ""
    )
    return (
        f"{mode} {kinds} with driver `{spec.driver.name}` on the targets of inventory `{spec.targets.inventory}`"
        f"{' with ' + chosen.lstrip(', ') if chosen else ''}, at most {spec.targets.max_targets}.{left}{age}"
    )


def _when(policy: Policy) -> str:
    schedule = policy.spec.schedule
    if not schedule.windows:
        return "Whenever somebody triggers it; it has no maintenance window."
    windows = "; ".join(
        f"`{item.rrule}` at {item.start} for {format_duration(item.duration)}" for item in schedule.windows
    )
    ahead = f" Planned {format_duration(schedule.plan_ahead)} ahead." if schedule.plan_ahead else ""
    freezes = "".join(f" Frozen {item.from_} to {item.to} ({item.reason})." for item in schedule.freezes)
    return f"{windows}, {schedule.timezone}.{ahead}{freezes}"


def _who(policy: Policy) -> str:
    rules = policy.spec.approval
    if not rules.required:
        return "Nobody, unless a target could not be undone."
    people = "one person" if rules.required == 1 else f"{rules.required} different people"
    of = f" of {', '.join(rules.approvers)}" if rules.approvers else ""
    return f"{people}{of}, and never the one who asked for the run."


def _wave(rule: WaveRule) -> str:
    soak = f", then watched for {format_duration(rule.soak)}" if rule.soak else ""
    if rule.canary is not None:
        per = f" of every `{rule.canary.per}`" if rule.canary.per else ""
        return f"canary: {rule.canary.count}{per}{soak}"
    return f"up to {rule.size} of the targets{soak}"


def _reboots(policy: Policy) -> str:
    rules = policy.spec.reboot
    if rules.policy == "never":
        return "Nothing is rebooted."
    return f"Reboots only where a patch needs it, {rules.max_concurrent} at once."


def _check(item: Check) -> str:
    if item.http is not None:
        return f"`{item.name}`: {item.http.url} answers {', '.join(map(str, item.http.status))}"
    if item.unit is not None:
        return f"`{item.name}`: {', '.join(item.unit.active)} active"
    if item.command is not None:
        return f"`{item.name}`: `{item.command.run}` exits 0"
    rules = item.compare
    return (
        f"`{item.name}`: errors rise by at most {rules.max_relative_increase} against {', then '.join(rules.against)}"
    )


def _wrong(policy: Policy) -> str:
    stop, after = policy.spec.rollout.stop_when, policy.spec.on_failure
    limits = [f"{stop.failed_targets} failed targets"] if stop.failed_targets is not None else []
    limits += [f"{stop.failed_percent} failed"] if stop.failed_percent is not None else []
    limits += [f"{stop.offline_percent} offline"] if stop.offline_percent is not None else []
    undo = "it is undone by itself" if after.undo == "auto" else "it is held for a person"
    return (
        f"Launching stops at {' or '.join(limits) or 'no limit'}. After a bad verdict {undo}; without data it is held."
    )
