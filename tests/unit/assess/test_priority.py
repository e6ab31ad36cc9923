"""How urgent a target is (S2): both tables, with the reason and the date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from patching.advisory import Advisory, Finding
from patching.assess.priority import prioritise
from patching.target import Member, Target

PUBLISHED = datetime(2026, 11, 1, tzinfo=UTC)


def target(**labels: str) -> Target:
    return Target(name="web-1", labels=labels, members=(Member(address="127.0.0.1"),))


def finding(name: str) -> Finding:
    return Finding(advisory=name, target="web-1", component="tool", installed="1", fixed="2")


# rows and columns as CERTCC/SSVC cisa_bod_26_04_1_0_0 prints them: days, "F" where forensics come first
TABLE = {
    (False, False): [None, None, "60", "60"],
    (False, True): ["60", "14", "14", "3"],
    (True, False): ["14", "14", "14", "3F"],
    (True, True): ["14", "3F", "3", "3F"],
}
COLUMNS = [("false", "low"), ("false", "critical"), ("true", "low"), ("true", "critical")]


@pytest.mark.parametrize("exploited", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("column", range(4))
def test_bod_26_04_as_published(exploited: bool, exposed: bool, column: int) -> None:
    automatable, severity = COLUMNS[column]
    host = target(exposure="internet" if exposed else "internal", automatable=automatable)
    advisory = Advisory(id="A", severity=severity, exploited=exploited, published=PUBLISHED)
    said = prioritise(host, [finding("A")], {"A": advisory}, "cisa-bod-26-04")
    expected = TABLE[(exploited, exposed)][column]
    days = None if expected is None else int(expected.rstrip("F"))
    assert said.due == (PUBLISHED + timedelta(days=days) if days else None)
    assert ("traces before patching" in said.reason) == bool(expected and expected.endswith("F"))
    assert (f"within {days} days" if days else "with the next upgrade") in said.reason


def test_most_urgent_finding_ranks_the_target_and_the_others_are_counted() -> None:
    known = {
        "A": Advisory(id="A", severity="low"),
        "B": Advisory(id="B", severity="critical", score=9.8),
        "C": Advisory(id="C"),
    }
    said = prioritise(target(), [finding("A"), finding("B"), finding("B"), finding("C")], known, "severity")
    assert (said.rank, said.name, said.reason) == (0, "critical", "B is critical (CVSS 9.8) (and 2 more)")


def test_exploited_outranks_the_word_of_the_database() -> None:
    known = {"A": Advisory(id="A", severity="low", exploited=True)}
    assert prioritise(target(), [finding("A")], known, "severity").name == "exploited"


def test_without_findings_it_is_last_and_says_why() -> None:
    said = prioritise(target(), [], {}, "severity")
    assert said.rank == 4
    assert "no advisory matches" in said.reason
