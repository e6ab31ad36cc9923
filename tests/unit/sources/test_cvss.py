"""CVSS v3 base scores (S2) against the scores that FIRST and NVD publish for their vectors."""

from __future__ import annotations

from itertools import product

import pytest

from patching.sources.cvss import base_score, severity_of

# FIRST, "CVSS v3.1 Examples", and the scores NVD published for well-known CVEs.
PUBLISHED = [
    ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4),  # CVE-2013-0375 MySQL
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),  # CVE-2013-1937 phpMyAdmin
    ("CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1),  # CVE-2014-3566 POODLE
    ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:H/I:H/A:H", 9.9),  # CVE-2012-1516 VMware
    ("CVSS:3.1/AV:L/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H", 7.8),  # CVE-2009-0658 Adobe Reader
    ("CVSS:3.1/AV:A/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 8.8),  # CVE-2011-1265 Bluetooth
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5),  # CVE-2014-0160 Heartbleed
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),  # CVE-2014-6271 Shellshock
    ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),  # CVE-2021-44228 Log4Shell
    ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
]


@pytest.mark.parametrize(("vector", "score"), PUBLISHED)
def test_published_vectors(vector: str, score: float) -> None:
    assert base_score(vector) == score


@pytest.mark.parametrize(
    "vector",
    [
        "",
        "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N",
        "AV:N/AC:L/Au:N/C:P/I:P/A:P",
        "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H",
        "CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
        "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:Z/C:H/I:H/A:H",
    ],
)
def test_other_versions_and_malformed_vectors_have_no_score(vector: str) -> None:
    assert base_score(vector) is None


def test_every_vector_has_one_decimal_in_0_to_10_and_more_impact_never_lowers_it() -> None:
    for av, ac, pr, ui, scope, c, i in product("NALP", "LH", "NLH", "NR", "UC", "NLH", "NLH"):
        lead = f"CVSS:3.1/AV:{av}/AC:{ac}/PR:{pr}/UI:{ui}/S:{scope}/C:{c}/I:{i}/A:"
        scores = [base_score(lead + a) for a in "NLH"]
        assert all(score is not None and 0 <= score <= 10 and round(score, 1) == score for score in scores)
        assert scores == sorted(scores, key=lambda score: score or 0.0)


@pytest.mark.parametrize(
    ("score", "word"),
    [(0.0, None), (0.1, "low"), (3.9, "low"), (4.0, "medium"), (6.9, "medium"), (7.0, "high"), (9.0, "critical")],
)
def test_bands_of_the_specification(score: float, word: str | None) -> None:
    assert severity_of(score) == word
