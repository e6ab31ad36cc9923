"""OSV records → advisories (S2, I3): severity, exploited ones, and every malformed record with its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patching.advisory import Advisory
from patching.errors import AdvisoryError
from patching.sources.cvss import base_score, severity_of
from patching.sources.osv import read_advisories


def record(name: str = "DSA-1", **more: Any) -> dict[str, Any]:
    package = {"ecosystem": "Debian:12", "name": "tool"}
    events = [{"introduced": "0"}, {"fixed": "1.1"}]
    return {"id": name, "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}], **more}


def read(folder: Path, *records: Any) -> tuple[Advisory, ...]:
    (folder / "feed.json").write_text(json.dumps(records if len(records) != 1 else records[0]))
    return read_advisories(folder)


def test_folder_of_records_and_lists_in_order_of_ids(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.json").write_text(json.dumps(record("DSA-3")))
    (tmp_path / ".half-written.json").write_text("{")
    found = read(tmp_path, record("DSA-2", upstream=["CVE-1"], aliases=["X"]), record("DSA-1"))
    assert [item.id for item in found] == ["DSA-1", "DSA-2", "DSA-3"]
    assert found[1].aliases == ("X", "CVE-1")
    assert read_advisories(tmp_path / "feed.json") == found[:2]


def test_known_exploited_list_marks_by_alias(tmp_path: Path) -> None:
    known = {"title": "KEV", "vulnerabilities": [{"cveID": "CVE-2026-1"}]}
    (tmp_path / "known_exploited_vulnerabilities.json").write_text(json.dumps(known))
    found = read(tmp_path, record("DSA-1", upstream=["CVE-2026-1"]), record("DSA-2", upstream=["CVE-2026-2"]))
    assert [(item.id, item.exploited) for item in found] == [("DSA-1", True), ("DSA-2", False)]
    assert read_advisories(tmp_path / "feed.json")[0].exploited


def test_feed_may_say_that_a_fix_cannot_be_taken_back(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        record("DSA-1", database_specific={"irreversible": "a fuse is blown"}),
        record("DSA-2", database_specific={"irreversible": True}),
        record("DSA-3", database_specific={"irreversible": False}),
    )
    assert [item.irreversible for item in found] == ["a fuse is blown", "its advisory says so", None]


def test_later_modified_of_two_records_counts(tmp_path: Path) -> None:
    old, new = (
        record(summary="old", modified="2026-01-01T00:00:00Z"),
        record(summary="new", modified="2026-02-01T00:00:00Z"),
    )
    assert read(tmp_path, new, old)[0].summary == "new"
    assert read(tmp_path, old, new)[0].summary == "new"


@pytest.mark.parametrize(
    ("more", "severity"),
    [
        ({"database_specific": {"severity": "MODERATE"}}, "medium"),
        ({"database_specific": {"severity": "Important"}}, "high"),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]}, "critical"),
        ({"severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L"}]}, None),
        ({"database_specific": {"severity": "low"},
          "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]}, "low"),
        ({}, None),
    ],
)  # fmt: skip
def test_severity_is_the_databases_word_else_the_score(tmp_path: Path, more: dict[str, Any], severity: str) -> None:
    assert read(tmp_path, record(**more))[0].severity == severity


def test_debian_urgency_is_a_severity_and_not_yet_assigned_is_none(tmp_path: Path) -> None:
    urgent, unknown = record("A"), record("B")
    urgent["affected"][0]["ecosystem_specific"] = {"urgency": "high**"}
    unknown["affected"][0]["ecosystem_specific"] = {"urgency": "not yet assigned"}
    assert [item.severity for item in read(tmp_path, urgent, unknown)] == ["high", None]


@pytest.mark.parametrize(
    ("vector", "score"),
    [  # as published by NVD
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
        ("CVSS:3.0/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4),
        ("CVSS:3.0/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1),
        ("CVSS:3.1/AV:L/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H", 7.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
        ("CVSS:3.1/AV:N/AC:L", None),
        ("AV:N/AC:L/Au:N/C:P/I:P/A:P", None),
    ],
)
def test_cvss_base_score(vector: str, score: float | None) -> None:
    assert base_score(vector) == score


def test_bands_of_scores() -> None:
    assert [severity_of(score) for score in (9.0, 8.9, 6.9, 3.9, 0.0)] == ["critical", "high", "medium", "low", None]


def test_git_ranges_name_no_package_and_are_left_out(tmp_path: Path) -> None:
    git = {"ranges": [{"type": "GIT", "repo": "x", "events": [{"introduced": "0"}]}]}
    made = record()
    made["affected"].append(git)
    assert len(read(tmp_path, made)[0].affected) == 1


BROKEN = [
    ("[]x", r"feed\.json:1:3: this is no JSON"),
    ('["text"]', "record 1 has no id"),
    ('[{"id": "A"}, {"affected": []}]', "record 2 has no id"),
    ('{"id": "A", "affected": "all"}', r"record 1 \(A\) is no OSV record"),
    ('{"id": "A", "affected": [{"package": {"name": "x"}, "ranges": []}]}', r"\(A\) is no OSV record: 'ecosystem'"),
    ('{"id": "A", "published": "yesterday"}', r"\(A\) is no OSV record: published"),
    ('{"id": "A", "affected": [{"package": {"ecosystem": "Debian:12", "name": "x"}, "ranges": '
     '[{"type": "ECOSYSTEM", "events": [{"fixed": "1"}]}]}]}', "a range has no `introduced` event"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
def test_malformed_record_names_its_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "feed.json").write_text(text)
    with pytest.raises(AdvisoryError, match=message) as caught:
        read_advisories(tmp_path)
    assert str(tmp_path / "feed.json") in str(caught.value)


def test_missing_feed_and_wrong_list_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AdvisoryError, match=r"no advisories at .*/feed: put OSV records there"):
        read_advisories(tmp_path / "feed")
    (tmp_path / "known_exploited_vulnerabilities.json").write_text("[]")
    with pytest.raises(AdvisoryError, match="this is not CISA's list"):
        read_advisories(tmp_path)
