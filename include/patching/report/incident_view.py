"""Incident view: one incident as a document and as text, with what was gathered of each target; pure."""

from __future__ import annotations

from collections.abc import Mapping

from patching.report.printing import printable
from patching.rollout.incidents import Incident
from patching.value import JsonValue

SCHEMA = 1
LINES = 12


def incident_line(found: Incident) -> dict[str, JsonValue]:
    """Make one line of the list of incidents, without the evidence."""
    return {**found.model_dump(mode="json", exclude={"evidence"}), "locks": found.locks, "sentence": _sentence(found)}


def incident_view(found: Incident, evidence: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Make the document of one incident; ``evidence`` maps targets to what was gathered of them."""
    gathered = [evidence[name] for name in found.targets if name in evidence]
    return {"schema_version": SCHEMA, "incident": incident_line(found), "evidence": gathered}


def _sentence(found: Incident) -> str:
    if found.locks:
        return found.sentence
    return f"{found.cause}; released by {found.release_reason}"


def incidents_text(listed: Mapping[str, JsonValue]) -> str:
    """Write the list of incidents, a paragraph each."""
    if not listed["incidents"]:
        return "no incident: no policy is locked"
    lines = []
    for item in listed["incidents"]:
        lines.append(
            f"{printable(item['id'])}  {'LOCKS ' + printable(item['policy']) if item['locks'] else 'released'}"
        )
        lines.append(f"    {printable(item['sentence'])}")
    return "\n".join(lines)


def incident_text(view: Mapping[str, JsonValue]) -> str:
    """Write one incident with its evidence and what to do."""
    found = view["incident"]
    lines = [
        printable(found["sentence"]),
        f"rollout {printable(found['rollout'])}, opened {printable(found['opened_at'])}",
        f"runbook: {printable(found['runbook'])}",
    ]
    for item in view["evidence"]:
        lines += ["", *_evidence(item)]
    if found["locks"]:
        lines += ["", f"Once you answer for it: patching incident release {printable(found['id'])} --reason WHY"]
    return "\n".join(lines)


def _evidence(item: Mapping[str, JsonValue]) -> list[str]:
    lines = [f"{printable(item['target'])}: {printable(item['reason'])}"]
    for step in item["steps"]:
        code = "its end was not seen" if step["exit_code"] is None else f"exit {step['exit_code']}"
        lines.append(f"  step {printable(step['name'])} ({printable(step['phase'])}): {code}")
        said = f"{step['stdout']}\n{step['stderr']}".strip().splitlines() if not step["ok"] else []
        lines += [f"    | {printable(line)}" for line in said[-LINES:]]
    return lines + _now(item["now"], item["wanted_back"])


def _now(now: Mapping[str, JsonValue], wanted: Mapping[str, JsonValue]) -> list[str]:
    if not now["answers"]:
        return [f"  it did not answer: {printable(now['detail'])}"]
    lines = []
    for name, before in wanted.items():
        has = now["versions"].get(name)
        mark = "" if has == before else "  <- not back"
        lines.append(
            f"  {printable(name)}: has {printable(has or 'nothing')}, had {printable(before or 'nothing')}{mark}"
        )
    if now["half_installed"]:
        lines.append(f"  half installed: {printable(', '.join(now['half_installed']))}")
    lines += [
        f"  check {printable(check['check'])} does not pass: {printable(check['detail'])}"
        for check in now["checks"]
        if not check["ok"]
    ]
    return lines
