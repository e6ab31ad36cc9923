"""Which patches one target gets (S2), as cases: and every offer and finding left alone has its reason."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from patching.assess.matching import match
from patching.plan.patches import wanted_patches
from patching.policy import Patches
from unit.plan.made import NOW, advisory, snapshot

CASES = sorted((Path(__file__).parents[2] / "cases" / "patches").glob("*.json"))


def test_there_are_cases() -> None:
    assert len(CASES) >= 28


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    known = [advisory(item.pop("id"), item.pop("package"), **item) for item in case["advisories"]]
    host = snapshot(
        "web-1",
        {name: tuple(parts) for name, parts in case["installed"].items()},
        case["offers"],
        held=tuple(case.get("held", ())),
        facts={"candidates": case["candidates"]} if "candidates" in case else {},
    )
    found = match({"web-1": host}, known)["web-1"]
    rules = Patches.model_validate(case["rules"])
    seen = {name: datetime.fromisoformat(at) for name, at in case.get("firstSeen", {}).items()}
    wanted = wanted_patches(host, found, {item.id: item for item in known}, rules, NOW, seen)
    got = [[item.component, item.before, item.after, item.origin, list(item.advisories)] for item in wanted.patches]
    assert got == case["patches"], case["says"]
    assert [item.code for item in wanted.left] == [code for code, _ in case["left"]], case["says"]
    for item, (_, text) in zip(wanted.left, case["left"], strict=True):
        assert text in item.message
    assert all(item.reason for item in wanted.patches)


def test_hundreds_of_findings_without_a_fix_are_one_sentence() -> None:
    known = [advisory(f"CVE-{number}", "openssl", fixed=None) for number in range(200)]
    host = snapshot("web-1", {"openssl:amd64": ("1.0-1", "openssl", "1.0-1")})
    found = match({"web-1": host}, known)["web-1"]
    wanted = wanted_patches(host, found, {item.id: item for item in known}, Patches(), NOW)
    assert [item.code for item in wanted.left] == ["no_fix"]
    assert wanted.left[0].message.endswith(" and 197 more")
    assert not wanted.left[0].blocking
