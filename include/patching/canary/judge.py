"""Checks and probes → the verdict of a wave; pure, and the only place where that decision is made."""

from __future__ import annotations

from collections.abc import Sequence

from patching.canary.verdicts import CheckVerdict, ProbeResult, WaveVerdict
from patching.policy import Check
from patching.rollout.answers import VerdictName


def judge_wave(
    verdicts: Sequence[CheckVerdict],
    probes: Sequence[ProbeResult],
    checks: Sequence[Check],
    targets: Sequence[str] | None = None,
) -> WaveVerdict:
    """Combine everything that was asked about the changed ``targets`` of a wave into promote, hold or undo.

    ``checks`` is what the policy asks; without ``targets``, those with any probe result count as the wave's.

    Any undo of a critical check or failed probe → undo; else any undo of another check, or any inconclusive answer →
    hold, unless its check says ``onInconclusive: promote`` and the answer has data; else promote. What the policy asks
    must have been answered: a missing answer, a silent target, a probe that could not be asked and a source that failed
    always hold (F9). A check with ``dryRun`` is recorded and decides nothing.
    """
    dry = {check.name for check in checks if check.dry_run}
    verdict, reason = _decided(
        [one for one in verdicts if one.name not in dry],
        [probe for probe in probes if probe.check not in dry],
        [check for check in checks if check.name not in dry],
        sorted({probe.target for probe in probes}) if targets is None else targets,
        nobody=targets is not None and not targets,
    )
    recorded = [one.reason for one in verdicts if one.name in dry]
    recorded += [f"{probe.check} failed on {probe.target}" for probe in probes if probe.check in dry and not probe.ok]
    if recorded:
        reason += f"; recorded only: {_listed(recorded)}"
    return WaveVerdict(verdict=verdict, reason=reason, checks=tuple(verdicts), probes=tuple(probes))


def _decided(
    verdicts: Sequence[CheckVerdict],
    probes: Sequence[ProbeResult],
    checks: Sequence[Check],
    targets: Sequence[str],
    *,
    nobody: bool,
) -> tuple[VerdictName, str]:
    """Decide from the answers that count: critical alarms, then nobody changed, then everything that holds."""
    mild = {check.name for check in checks if not check.critical}
    bad = _bad([one for one in verdicts if one.name not in mild], [one for one in probes if one.check not in mild])
    if bad:
        return VerdictName.UNDO, _listed(bad)
    if nobody:
        return VerdictName.HOLD, "no target of this wave was changed, so it tested nothing"
    holding, waved_through = _inconclusive(checks, verdicts, probes, targets)
    holding = [f"not critical, so it holds: {reason}" for reason in _bad(verdicts, probes)] + holding
    if holding:
        return VerdictName.HOLD, _listed(holding)
    return VerdictName.PROMOTE, _promoted(checks, verdicts, waved_through)


def _bad(verdicts: Sequence[CheckVerdict], probes: Sequence[ProbeResult]) -> list[str]:
    judged = [verdict.reason for verdict in verdicts if verdict.verdict is VerdictName.UNDO]
    return judged + [f"{probe.check} failed on {probe.target}: {probe.detail}" for probe in probes if probe.ok is False]


def _inconclusive(
    checks: Sequence[Check],
    verdicts: Sequence[CheckVerdict],
    probes: Sequence[ProbeResult],
    targets: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Give the reasons that hold, and those that the policy lets pass: never one that stands for no data."""
    holding: list[str] = []
    waved_through: list[str] = []
    for check in checks:
        if check.metric is not None:
            unanswered, undecided = _open_comparison(check, verdicts)
        else:
            unanswered, undecided = _open_probe(check, probes, targets), []
        holding += _put(check, unanswered)
        (waved_through if check.on_inconclusive == "promote" else holding).extend(_put(check, undecided))
    known = {check.name for check in checks}
    strays = [one.reason for one in verdicts if one.name not in known and one.verdict is not VerdictName.PROMOTE]
    strays += [f"{one.check} on {one.target}: {one.detail}" for one in probes if one.check not in known and not one.ok]
    return holding + strays, waved_through


def _put(check: Check, open_questions: Sequence[str]) -> list[str]:
    """Put open questions to a person where the policy asks one."""
    if check.on_inconclusive != "ask":
        return list(open_questions)
    return [f"the policy asks a person to promote or undo: {text}" for text in open_questions]


def _open_comparison(check: Check, verdicts: Sequence[CheckVerdict]) -> tuple[list[str], list[str]]:
    """Give why a metric check is open: what nobody answered, and what was answered without a decision."""
    answers = [verdict for verdict in verdicts if verdict.name == check.name]
    if not answers:
        return [f"{check.name} gave no answer"], []
    settled = (VerdictName.PROMOTE, VerdictName.UNDO)
    left = [answer for answer in answers if answer.verdict not in settled]
    return [one.reason for one in left if one.no_data], [one.reason for one in left if not one.no_data]


def _open_probe(check: Check, probes: Sequence[ProbeResult], targets: Sequence[str]) -> list[str]:
    answers = {probe.target: probe for probe in probes if probe.check == check.name}
    if not targets:
        return [f"{check.name} was not asked"]
    unknown = [target for target in targets if target not in answers or answers[target].ok is None]
    if not unknown:
        return []
    first = answers.get(unknown[0])
    detail = first.detail if first else "it was not asked"
    more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    return [f"{check.name} could not be answered for {unknown[0]}{more}: {detail}"]


def _promoted(checks: Sequence[Check], verdicts: Sequence[CheckVerdict], waved_through: Sequence[str]) -> str:
    if not checks:
        return "promoted without a measurement: the policy has no check, only the package state was verified"
    passed = [verdict.reason for verdict in verdicts if verdict.verdict is VerdictName.PROMOTE]
    if not any(check.metric is not None for check in checks):
        return f"promoted by probes only ({', '.join(check.name for check in checks)}): no metric was compared"
    if not waved_through:
        return _listed(passed)
    allowed = f"promoted although inconclusive, as the policy allows: {_listed(waved_through)}"
    return f"{allowed}; passed: {_listed(passed)}" if passed else allowed


def _listed(reasons: Sequence[str], limit: int = 5) -> str:
    shown = "; ".join(reasons[:limit])
    return shown if len(reasons) <= limit else f"{shown}; and {len(reasons) - limit} more"
