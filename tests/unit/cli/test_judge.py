"""``patching judge`` on files (S5, F3, F5, F9): exit codes, both formats, and every way to be wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patching.cli.main import run

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STEP, BEFORE, AFTER = 15, 80, 40
POLICY = """apiVersion: patching/v1alpha1
kind: PatchPolicy
metadata: {{name: web}}
spec:
  driver: {{name: apt, connection: ssh_prod}}
  targets: {{inventory: fleet.yaml}}
  rollout:
    waves:
      - {{canary: {{count: 3}}, soak: 10m}}
      - {{size: 100%, soak: 10m}}
  verify:
{checks}
"""
ERRORS = """    - name: errors
      prometheus:
        connection: prom
        series: {instance: "{address}:9100"}
        errors: 'http_requests_total{code=~"5..",$series}'
        requests: 'http_requests_total{$series}'
"""
LATENCY = """    - name: latency
      prometheus:
        connection: prom
        series: {instance: "{address}:9100"}
        good: 'http_request_duration_seconds_bucket{le="0.5",$series}'
        requests: 'http_request_duration_seconds_count{$series}'
"""
QUEUE = """    - name: queue
      prometheus: {connection: prom, series: {instance: "{address}:9100"}, query: 'queue_length{$series}'}
"""

Row = tuple[str, int, str, str, str, str, float]


def fleet(share: float, *, wave: int = 1, controls: int = 9, silent: int = 0, metric: str = "errors") -> list[Row]:
    """Three canaries whose share of errors becomes ``share``; 1 % before and elsewhere; counters that reset once."""
    random = np.random.default_rng(7)
    rows: list[Row] = []
    for host in range(3 + controls):
        role = "canary" if host < 3 else "control"
        failed = asked = 1000.0 * host
        for look in range(BEFORE + AFTER):
            phase = "before" if look < BEFORE else "after"
            if look == 30 and host == 4:
                failed = asked = 0.0
            requests = float(random.poisson(60))
            asked += requests
            failed += float(random.binomial(int(requests), share if role == "canary" and phase == "after" else 0.01))
            if phase == "after" and host < silent:
                continue
            at = (START + timedelta(seconds=STEP * (look - BEFORE))).isoformat()
            rows.append((at, wave, f"w{host}", role, phase, f"{metric}_errors", failed))
            rows.append((at, wave, f"w{host}", role, phase, f"{metric}_requests", asked))
    return rows


def written(path: Path, rows: list[Row]) -> Path:
    lines = ["time,wave,target,role,phase,metric,value", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(rows: list[Row] | Path, *more: str, checks: str = ERRORS) -> tuple[int, str, str]:
        policy = tmp_path / "web.yaml"
        policy.write_text(POLICY.format(checks=checks))
        file = rows if isinstance(rows, Path) else written(tmp_path / "series.csv", rows)
        code = run(["judge", "--policy", str(policy), "--series", str(file), *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_healthy_canary_is_promoted(judged: Any) -> None:
    code, out, _ = judged(fleet(0.01))
    assert (code, out.splitlines()[0], out.splitlines()[-1]) == (0, "wave 1: promote", "Verdict: promote"), out


def test_bad_canary_is_undone_and_the_trace_says_how(judged: Any) -> None:
    """F3: with the moment of the alarm, long before the soak's end."""
    code, out, _ = judged(fleet(0.05))
    assert code == 1, out
    assert "worse than the tolerated 1.50 ×" in out
    assert "against control: e-process of counts" in out
    assert "alarm at 2026-03-01T12:0" in out


def test_silent_canary_holds(judged: Any) -> None:
    """F9: no data is never a pass."""
    code, out, _ = judged(fleet(0.01, silent=1))
    assert code == 3
    assert "w0 gave no data after the change" in out


def test_last_wave_without_control_is_compared_with_before(judged: Any) -> None:
    code, out, _ = judged(fleet(0.01, wave=2, controls=0))
    assert (code, "not used: control: the control has no data" in out) == (0, True), out
    code, out, _ = judged(fleet(0.06, wave=2, controls=0))
    assert code == 1


def test_worst_wave_decides(judged: Any) -> None:
    rows = [*fleet(0.01), *fleet(0.06, wave=2, controls=0)]
    code, out, _ = judged(rows)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith("wave")] == ["wave 1: promote", "wave 2: undo"]


def test_json_is_one_versioned_document(judged: Any) -> None:
    code, out, _ = judged(fleet(0.05), "--json")
    document = json.loads(out)
    assert (document["schema"], document["verdict"], document["exit_code"], code) == ("patching/judge/v1", "undo", 1, 1)
    check = document["waves"][0]["checks"][0]
    assert check["numbers"]["evidence"] >= check["numbers"]["evidence_needed"]
    assert check["numbers"]["ratio_low"] > 1


def test_no_error_series_at_all_is_zero_errors_while_requests_move(judged: Any) -> None:
    rows = [row for row in fleet(0.01) if not row[5].endswith("_errors")]
    assert judged(rows)[0] == 0


def test_no_request_series_is_no_data_and_names_what_was_recorded(judged: Any) -> None:
    rows = [row for row in fleet(0.01) if not row[5].endswith("_requests")]
    code, out, _ = judged(rows)
    assert code == 3
    assert "errors_requests was not recorded in wave 1 (there are: errors_errors)" in out


def test_check_that_was_not_recorded_holds(judged: Any) -> None:
    code, out, _ = judged(fleet(0.01), checks=ERRORS + QUEUE)
    assert code == 3
    assert "queue was not recorded" in out


def test_values_that_are_no_numbers_are_no_data(judged: Any) -> None:
    rows = [(*row[:6], float("nan")) if row[4] == "after" and row[3] == "canary" else row for row in fleet(0.01)]
    assert judged(rows)[0] == 3


def test_gauge_needs_one_metric(judged: Any) -> None:
    random = np.random.default_rng(3)
    for factor, code in ((1.0, 0), (3.0, 1)):
        rows: list[Row] = []
        for host in range(12):
            for look in range(BEFORE + AFTER):
                phase = "before" if look < BEFORE else "after"
                value = 20 * np.exp(random.normal() * 0.1) * (factor if host < 2 and phase == "after" else 1.0)
                at = (START + timedelta(seconds=STEP * (look - BEFORE))).isoformat()
                rows.append((at, 1, f"w{host}", "canary" if host < 2 else "control", phase, "queue", value))
        assert judged(rows, checks=QUEUE)[0] == code


def test_slow_requests_of_a_histogram_are_what_is_not_good(judged: Any) -> None:
    """p99 up with the median unchanged: the share of slow requests is a count."""
    for share, code in ((0.01, 0), (0.06, 1)):
        rows, asked = [], {}
        for row in fleet(share, metric="latency"):
            if row[5] == "latency_errors":
                asked[row[0], row[2]] = row[6]
        for row in fleet(share, metric="latency"):
            if row[5] == "latency_requests":
                rows += [row, (*row[:5], "latency_good", row[6] - asked[row[0], row[2]])]
        assert judged(rows, checks=LATENCY)[0] == code


def answer(rows: list[Row], labels: Any) -> dict[str, Any]:
    series: dict[str, dict[str, Any]] = {}
    for row in rows:
        metric = labels(row)
        at = datetime.fromisoformat(row[0]).timestamp()
        series.setdefault(json.dumps(metric), {"metric": metric, "values": []})["values"].append([at, str(row[6])])
    return {"status": "success", "data": {"resultType": "matrix", "result": list(series.values())}}


def labelled(row: Row) -> dict[str, str]:
    return {"wave": str(row[1]), "target": row[2], "role": row[3], "phase": row[4], "metric": row[5]}


def plain(row: Row) -> dict[str, str]:
    code = "500" if row[5].endswith("errors") else "200"
    return {"__name__": "http_requests_total", "instance": f"{row[2]}:9100", "job": "web", "code": code}


@pytest.mark.parametrize(("share", "code"), [(0.01, 0), (0.05, 1)])
def test_saved_answer_with_the_same_labels_gives_the_same_verdict(
    judged: Any, tmp_path: Path, share: float, code: int
) -> None:
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(answer(fleet(share), labelled)))
    assert judged(file, "--json")[1] == judged(fleet(share), "--json")[1]
    assert judged(file)[0] == code


@pytest.mark.parametrize(("share", "code"), [(0.01, 0), (0.05, 1)])
def test_plain_answer_is_read_by_the_policys_selectors(judged: Any, tmp_path: Path, share: float, code: int) -> None:
    """As Prometheus gives it: errors are the series of their codes, requests are all."""
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(answer(fleet(share), plain)))
    told = [part for host in range(3) for part in ("--canary", f"w{host}")]
    assert judged(file, *told, "--start", (START - timedelta(seconds=STEP)).isoformat())[0] == code


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column time, wave"),
        ("time,wave,target,role,phase,metric\n", "no column value"),
        ("time,wave,target,role,phase,metric,value\n", "has no row"),
        ("time,wave,target,role,phase,metric,value\nyesterday,1,a,canary,after,m,1\n", 'csv:2: time "yesterday"'),
        ("time,wave,target,role,phase,metric,value\n2026-03-01T12:00:00,1,a,canary,after,m,1\n", "no zone"),
        ("time,wave,target,role,phase,metric,value\n2026-03-01T12:00:00Z,0,a,canary,after,m,1\n", 'wave "0"'),
        ("time,wave,target,role,phase,metric,value\n2026-03-01T12:00:00Z,1,a,treated,after,m,1\n", 'role is "treated"'),
        ("time,wave,target,role,phase,metric,value\n2026-03-01T12:00:00Z,1,a,canary,during,m,1\n", 'phase is "during"'),
        ("time,wave,target,role,phase,metric,value\n2026-03-01T12:00:00Z,1,a,canary,after,m,x\n", 'value "x"'),
        ("time,wave,target,role,phase,metric,value\n2026-03-01T12:00:00Z,1,,canary,after,m,1\n", "target is empty"),
        ("{", "no JSON"),
        ('{"status": "success", "data": {"resultType": "vector", "result": []}}', "no answer of query_range"),
        ('{"status": "error", "error": "timed out"}', "timed out"),
    ],
)
def test_file_that_cannot_be_read_is_wrong_use_and_says_where(
    judged: Any, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "series.csv"
    file.write_text(text)
    code, out, err = judged(file)
    assert (code, out) == (2, "")
    assert words in err


def test_plain_answer_without_being_told_says_what_is_missing(judged: Any, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(answer(fleet(0.01), plain)))
    assert "--canary" in judged(file)[2]
    assert "--start" in judged(file, "--canary", "w0")[2]


def test_wrong_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "web.yaml"
    policy.write_text(POLICY.format(checks=ERRORS))
    missing = str(tmp_path / "nothing.csv")
    assert run(["judge"]) == 2
    assert run(["judge", "--policy", str(policy)]) == 2
    assert run(["judge", "--policy", str(policy), "--series", missing]) == 2
    assert run(["judge", "--policy", str(policy), "--series", missing, "--rollout", "r"]) == 2
    assert run(["judge", "--policy", missing, "--series", missing]) == 2
    policy.write_text(POLICY.format(checks="    - {name: unit, unit: {active: [nginx.service]}}"))
    assert run(["judge", "--policy", str(policy), "--series", missing]) == 2
    assert "no metric check" in capsys.readouterr().err
    policy.write_text("nonsense: 1\n")
    assert run(["judge", "--policy", str(policy), "--series", missing]) == 2
