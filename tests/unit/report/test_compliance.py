"""Compliance (S7, U8, M9): where every target stands with every finding, from the record alone."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from patching.cli import main
from patching.plan.document import Plan
from patching.report import compliance_table
from patching.report.compliance import ComplianceRow, ComplianceState
from unit.rollout.fleet import START, Fleet
from unit.rollout.test_planning_of_runs import record, with_feed

pytestmark = pytest.mark.slow

SEVERE = {"database_specific": {"severity": "critical"}, "published": "2026-11-20T00:00:00Z"}


def told(fleet: Fleet, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """Run the command on the fleet's ledger; gives its JSON document."""
    assert main.run(["compliance", "--json", "--url", f"sqlite:///{fleet.folder}/ledger.sqlite", *more]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def states(document: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(row["target"], row["component"]): row["state"] for row in document["rows"]}


async def test_a_plan_that_nobody_carried_out_leaves_its_findings_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    await fleet.plan()
    document = told(fleet, capsys)
    assert document["schema"] == "patching/compliance/v1"
    assert {row["state"] for row in document["rows"]} == {"open"}
    row = next(item for item in document["rows"] if item["component"] == "shop")
    assert (row["advisory"], row["installed"], row["fixed"], row["priority"]) == ("DSA-1", "1.0", "1.1", "critical")
    assert (row["reason"][:13], row["rollout"]) == ("planned for w", fleet.rollout)
    (line,) = document["policies"]
    assert (line["targets"], line["open"], line["compliant"], line["share"]) == (6, 6, 0, 0.0)


async def test_only_what_was_applied_and_stands_is_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    await fleet.begin()
    await fleet.wave(1)
    (canary,) = fleet.frozen.waves[0].targets
    found = states(told(fleet, capsys))
    assert {name for (name, _), state in found.items() if state == "closed"} == {canary}
    assert {state for (name, _), state in found.items() if name != canary} == {"open"}


async def test_a_change_that_was_taken_back_is_open_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    await fleet.begin()
    (canary,) = fleet.frozen.waves[0].targets
    fleet.metrics.errors = {canary: 0.5}
    await fleet.wave(1)
    await fleet.finish()
    row = next(item for item in told(fleet, capsys)["rows"] if item["target"] == canary)
    assert row["state"] == "open"
    assert row["reason"].startswith("changed and taken back")


async def test_a_target_that_was_not_seen_is_unknown_and_never_counted_as_compliant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Fleet(tmp_path)
    fleet.hosts.change("web-02", offline=True)
    for name in fleet.names[2:]:
        fleet.hosts.change(name, installed={"shop": "1.1"})
    await fleet.plan()
    document = told(fleet, capsys)
    assert states(document)["web-02", ""] == "unknown"
    assert states(document)["web-03", ""] == "compliant"
    (line,) = document["policies"]
    assert (line["targets"], line["compliant"], line["unknown"], line["open"]) == (6, 4, 1, 1)
    assert line["share"] == 0.8


async def test_an_excluded_component_is_left_out_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Fleet(tmp_path, patches={"exclude": ["shop"]})
    await fleet.plan()
    rows = told(fleet, capsys)["rows"]
    assert {row["state"] for row in rows} == {"left_out"}
    assert all(row["reason"].startswith("excluded: ") for row in rows)


async def test_age_counts_from_the_first_plan_that_had_the_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """M9: a newer plan does not make an old finding young."""
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    await fleet.plan()
    fleet.clock.advance(days=9)
    fleet.new_run("second", replan=True)
    await fleet.plan()
    rows = [row for row in told(fleet, capsys)["rows"] if row["component"] == "shop"]
    assert {row["rollout"] for row in rows} == {fleet.rollout}
    assert {row["known_since"][:10] for row in rows} == {START.date().isoformat()}


async def test_a_run_for_some_targets_tells_only_of_those(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    await fleet.plan()
    first = fleet.rollout
    fleet.new_run("second", limit_to=("web-01",))
    await fleet.whole()
    document = told(fleet, capsys)
    by_target = {row["target"]: row["rollout"] for row in document["rows"]}
    assert set(by_target) == set(fleet.names)
    assert by_target.pop("web-01") == fleet.rollout
    assert set(by_target.values()) == {first}
    assert states(document)["web-01", "shop"] == "closed"


def unreadable(monkeypatch: pytest.MonkeyPatch, *rollouts: str) -> None:
    """Let this release refuse the plans of some rollouts."""
    works = Plan.frozen.__func__  # type: ignore[attr-defined]

    def refused(kind: type[Plan], document: dict[str, Any], name: str) -> Plan:
        return works(kind, {"unheard": 1} if document["rollout"] in rollouts else document, name)

    monkeypatch.setattr(Plan, "frozen", classmethod(refused))


async def test_a_plan_that_cannot_be_read_is_named_and_what_stood_before_it_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    assert (await fleet.whole()).good
    fleet.new_run("second")
    fleet.hosts.change("web-01", offers={"shop": "1.2"})
    await fleet.plan()
    refused = fleet.rollout
    metadata = fleet.policy.metadata.model_copy(update={"name": "zoo"})
    fleet.policy = fleet.policy.model_copy(update={"metadata": metadata})
    fleet.new_run("third")
    await fleet.plan()
    unreadable(monkeypatch, refused)
    assert main.run(["compliance", "--json", "--url", f"sqlite:///{tmp_path}/ledger.sqlite"]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    by_policy = {item["policy"]: item for item in document["policies"]}
    assert (by_policy["web"]["targets"], by_policy["web"]["unknown"]) == (6, 6)
    assert by_policy["zoo"]["unknown"] == 0
    assert document["unread"][0]["rollout"] == refused
    assert f"the plan of rollout {refused} cannot be read: what was frozen with it is not valid in this release" in err


async def test_a_plan_that_cannot_be_read_matters_no_more_once_a_newer_one_tells_of_the_whole_fleet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    await fleet.plan()
    old = fleet.rollout
    fleet.new_run("second", replan=True)
    await fleet.plan()
    assert fleet.rollout != old
    unreadable(monkeypatch, old)
    assert {row["state"] for row in told(fleet, capsys)["rows"]} == {"open"}


async def test_targets_that_only_an_unreadable_plan_tells_of_are_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path)
    await fleet.plan()
    unreadable(monkeypatch, fleet.rollout)
    assert main.run(["compliance", "--csv", "--url", f"sqlite:///{tmp_path}/ledger.sqlite"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [(row["target"], row["state"]) for row in rows] == [(name, "unknown") for name in fleet.names]


async def test_an_overdue_finding_has_an_exit_code_and_a_line_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"aliases": ["CVE-2020-1"], "published": "2020-01-01T00:00:00Z"}
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **old), priority={"table": "cisa-bod-26-04"})
    listed = {"vulnerabilities": [{"cveID": "CVE-2020-1", "dateAdded": "2020-01-02"}]}
    (tmp_path / "policies" / "known_exploited_vulnerabilities.json").write_text(json.dumps(listed))
    await fleet.plan()
    url = ["--url", f"sqlite:///{tmp_path}/ledger.sqlite"]
    assert main.run(["compliance", "--exit-code", *url]) == 3
    assert "  ! web-01  DSA-1 shop: due 2020-01-" in capsys.readouterr().out
    for number in (1, 2, 3):
        await fleet.approve()
        await fleet.wave(number)
    assert main.run(["compliance", "--exit-code", *url]) == 0
    assert "6 of 6 targets compliant (100.0% of those known)" in capsys.readouterr().out


async def test_an_unknown_policy_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = Fleet(tmp_path)
    await fleet.plan()
    assert main.run(["compliance", "--policy", "wbe", "--url", f"sqlite:///{tmp_path}/ledger.sqlite"]) == 1
    assert "no plan of wbe" in capsys.readouterr().err


async def test_csv_has_a_row_for_every_target_and_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = with_feed(tmp_path, record("DSA-1", "shop", "1.1", **SEVERE))
    await fleet.plan()
    assert main.run(["compliance", "--csv", "--url", f"sqlite:///{tmp_path}/ledger.sqlite"]) == 0
    text = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0]) == list(ComplianceRow.model_fields)
    assert len(rows) == len(told(fleet, capsys)["rows"])


def a_row(**more: Any) -> ComplianceRow:
    given = {"policy": "web", "target": "web-01", "state": "open", "reason": "x", "rollout": "r", "as_of": START}
    return ComplianceRow.model_validate({**given, **more})


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_csv_never_hands_a_formula_to_a_spreadsheet(text: str) -> None:
    """Versions and reasons come from hosts that may be hostile."""
    (row,) = csv.DictReader(io.StringIO(compliance_table.to_csv([a_row(installed=text)]), newline=""))
    assert row["installed"] == f"'{text}"


def test_a_target_stands_where_its_worst_finding_stands() -> None:
    order = list(ComplianceState)
    for place, worst in enumerate(order):
        better = order[place:]
        (line,) = compliance_table.summary([a_row(state=state, component=state.value) for state in better])
        key = "compliant" if worst in (ComplianceState.CLOSED, ComplianceState.COMPLIANT) else worst.value
        assert (line["targets"], line[key]) == (1, 1)


def test_without_a_row_the_table_keeps_its_columns() -> None:
    assert compliance_table.summary([]) == []
    assert compliance_table.to_csv([]).strip() == ",".join(ComplianceRow.model_fields)
