"""Snapshots × advisories → findings (S2): cases, what cannot be decided, and ten thousand hosts that share packages."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from patching.advisory import Advisory, AffectedRange
from patching.assess.matching import match, unmatched
from patching.errors import AdvisoryError
from patching.sources.osv import read_advisories
from patching.target import Component, Snapshot

CASES = sorted((Path(__file__).parents[2] / "cases" / "matching").glob("*.json"))
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def snapshot(name: str, installed: dict[str, Component], ecosystem: str = "Debian:12") -> Snapshot:
    return Snapshot(target=name, taken_at=NOW, installed=installed, ecosystem=ecosystem)


def test_there_are_cases() -> None:
    assert len(CASES) >= 17


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, tmp_path: Path) -> None:
    case = json.loads(path.read_text())
    (tmp_path / "feed.json").write_text(json.dumps(case["advisories"]))
    advisories = read_advisories(tmp_path)
    installed = {name: Component.model_validate(item) for name, item in case["installed"].items()}
    host = snapshot("web-1", installed, case["ecosystem"])
    found = match({"web-1": host}, advisories)["web-1"]
    assert sorted([item.advisory, item.component, item.fixed] for item in found) == sorted(case["findings"]), case[
        "says"
    ]
    assert all(item.target == "web-1" and item.installed == installed[item.component].version for item in found)
    assert list(unmatched(advisories, [host])) == case["unmatched"]


def test_version_that_cannot_be_ordered_stops_the_plan_and_names_the_record() -> None:
    bad = Advisory(id="A-1", affected=(AffectedRange(ecosystem="Debian:12", package="tool", fixed="??"),))
    host = snapshot("web-1", {"tool:amd64": Component(version="1.0", source="tool", source_version="1.0")})
    with pytest.raises(AdvisoryError, match=r"A-1, package tool.*correct it, or take it out"):
        match({"web-1": host}, [bad])
    assert match({"web-1": snapshot("web-1", {"other:amd64": Component(version="1")})}, [bad]) == {"web-1": ()}


def test_ten_thousand_hosts_that_share_packages_are_decided_once_per_version() -> None:
    """Work grows with distinct versions, not with hosts: 10,000 hosts × 100 packages in seconds."""
    packages = {
        f"pkg{number}:amd64": Component(version="1.0-1", source=f"pkg{number}", source_version="1.0-1")
        for number in range(100)
    }
    older = {**packages, "pkg7:amd64": Component(version="0.9-1", source="pkg7", source_version="0.9-1")}
    hosts = {f"h{number}": snapshot(f"h{number}", older if number % 2 else packages) for number in range(10_000)}
    feed = [
        Advisory(
            id=f"A-{number}",
            affected=(AffectedRange(ecosystem="Debian:12", package=f"pkg{number % 2000}", fixed="1.0-1"),),
        )
        for number in range(4000)
    ]
    began = time.process_time()
    found = match(hosts, feed)
    spent = time.process_time() - began
    assert sum(map(len, found.values())) == 5000 * 2
    assert [item.advisory for item in found["h1"]] == ["A-7", "A-2007"]
    assert found["h0"] == ()
    assert spent < 6
