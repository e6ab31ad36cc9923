"""``patching judge``: replay a canary from recorded data, print verdict and trace; no Airflow, no Prometheus."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from patching.canary.recorded import Recording, RecordingUnreadable, csv_rows, moment, recording
from patching.canary.replay import replay, worst
from patching.canary.saved_answer import Guide, answer_rows
from patching.canary.verdicts import CheckVerdict, Numbers, WaveVerdict
from patching.errors import PatchingError
from patching.policy import Policy
from patching.policy_files import load_policy
from patching.rollout.answers import VerdictName
from patching.value import JsonValue

SCHEMA = "patching/judge/v1"
EXIT = {VerdictName.PROMOTE: 0, VerdictName.UNDO: 1, VerdictName.HOLD: 3, VerdictName.INCONCLUSIVE: 3}
WRONG_USE = 2

PolicyFile = Annotated[Path, typer.Option("--policy", help="Policy file whose metric checks judge.", metavar="FILE")]
SeriesFile = Annotated[
    Path | None,
    typer.Option(
        "--series", help="Recorded series: CSV, or a saved answer of query_range; - reads stdin.", metavar="FILE"
    ),
]
RolloutId = Annotated[
    str, typer.Option("--rollout", help="Judge again what the ledger has of a rollout.", metavar="ID")
]
Ledger = Annotated[str, typer.Option("--url", help="Ledger database; default: $PATCHING_LEDGER_URL.", metavar="URL")]
Canaries = Annotated[
    list[str] | None,
    typer.Option("--canary", help="A changed target, where a saved answer has no label role; may be repeated."),
]
Start = Annotated[
    str, typer.Option("--start", help="When the wave began, where a saved answer has no label phase.", metavar="TIME")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def judge(
    policy: PolicyFile,
    series: SeriesFile = None,
    rollout: RolloutId = "",
    canary: Canaries = None,
    start: Start = "",
    url: Ledger = "",
    as_json: AsJson = False,
) -> int:
    """Judge recorded series by a policy's metric checks, wave by wave, as the live judge would.

    The CSV has the header time,wave,target,role,phase,metric,value. Exit code 0: promote. 1: undo. 2: wrong use, or a
    file that cannot be read. 3: hold or inconclusive.
    """
    try:
        rules = load_policy(policy)
        found = _verdicts(rules, series, rollout, url, canary or [], start)
    except (PatchingError, OSError, UnicodeDecodeError) as error:
        _complain(error)
        return WRONG_USE
    verdict = worst([one.verdict for one in found.values()])
    if as_json:
        print(json.dumps(document(rules, found, verdict), indent=2, ensure_ascii=False))
    else:
        print(text(found, verdict))
    return EXIT[verdict]


def _complain(error: Exception) -> None:
    from patching.diagnostics import PolicyError, render

    if isinstance(error, PolicyError):
        print("\n".join(render(item) for item in error.diagnostics), file=sys.stderr)
    else:
        print(f"patching judge: {error}", file=sys.stderr)


def _verdicts(
    policy: Policy, series: Path | None, rollout: str, url: str, canaries: list[str], start: str
) -> dict[int, WaveVerdict]:
    if (series is None) == (not rollout):
        raise RecordingUnreadable("say either --series FILE or --rollout ID")
    if not any(check.metric is not None for check in policy.spec.verify):
        raise RecordingUnreadable(f"policy {policy.name} has no metric check, so there is nothing to judge by")
    if series is None:
        from patching.cli.recorded_rollout import rejudged

        return rejudged(policy, rollout, url)
    begun = moment(start, "--start") if start else None
    guide = Guide(policy.spec.verify, frozenset(canaries), begun)
    name = "stdin" if str(series) == "-" else str(series)
    content = sys.stdin.read() if name == "stdin" else series.read_text(encoding="utf-8-sig")
    read = _read(content, name, guide)
    if not read.numbers:
        raise RecordingUnreadable(f"{name} has no row")
    return replay(policy, read)


def _read(content: str, name: str, guide: Guide) -> Recording:
    """Tell CSV and JSON apart by the first character."""
    is_json = content.lstrip()[:1] in ("{", "[")
    return recording(answer_rows(content, name, guide) if is_json else csv_rows(content, name))


def document(policy: Policy, waves: dict[int, WaveVerdict], verdict: VerdictName) -> dict[str, JsonValue]:
    """Give the versioned document of ``--json``."""
    return {
        "schema": SCHEMA,
        "policy": policy.name,
        "verdict": verdict.value,
        "exit_code": EXIT[verdict],
        "waves": [{"wave": number, **one.model_dump(mode="json")} for number, one in sorted(waves.items())],
    }


def text(waves: dict[int, WaveVerdict], verdict: VerdictName) -> str:
    """Write the verdict with its trace, wave by wave and check by check; the verdict of all stands last."""
    lines = []
    for number, wave in sorted(waves.items()):
        lines.append(f"wave {number}: {wave.verdict.value}")
        for check in wave.checks:
            lines += [
                f"  {check.verdict.value:<12} {check.reason}",
                *(f"               {line}" for line in trace(check)),
            ]
    return "\n".join([*lines, f"Verdict: {verdict.value}"])


def trace(check: CheckVerdict) -> list[str]:
    """Say how a verdict was reached: the test, its numbers and its interval, and why others were not used."""
    lines = [f"not used: {reason}" for reason in check.passed_over]
    if check.idle:
        lines.append(f"without any request before and after: {', '.join(check.idle)}")
    if check.test is not None:
        lines.append(f"against {check.comparison}: {check.test}")
    if check.numbers is not None:
        lines.append(_numbers(check.numbers))
    return lines


def _numbers(numbers: Numbers) -> str:
    parts = [f"{numbers.looks} look{'s' if numbers.looks != 1 else ''}"]
    if numbers.evidence is not None and numbers.evidence_needed is not None:
        parts.append(f"evidence at most {numbers.evidence:.3g}, alarm from {numbers.evidence_needed:.3g}")
    if numbers.ratio is not None:
        low = "0" if numbers.ratio_low is None else f"{numbers.ratio_low:.3g}"
        high = "no limit" if numbers.ratio_high is None else f"{numbers.ratio_high:.3g}"
        parts.append(f"ratio {numbers.ratio:.3g} ({low} to {high})")
    if numbers.before_ratio is not None:
        parts.append(f"before the wave {numbers.before_ratio:.3g}")
    if numbers.rank_p is not None:
        parts.append(f"ranks p {numbers.rank_p:.2g}, alarm at {numbers.rank_alpha or 0:.2g}")
    if numbers.seen_ratio is not None:
        parts.append(f"seen in 4 of 5 rollouts {numbers.seen_ratio:.2g}")
    if numbers.spread is not None:
        parts.append(f"hosts vary by {numbers.spread:.2g}")
    if numbers.alarm_at is not None:
        parts.append(f"alarm at {numbers.alarm_at:%Y-%m-%dT%H:%M:%SZ}")
    return "; ".join(parts)
