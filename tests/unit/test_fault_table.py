"""docs/reference/faults.md: every row names tests and a runbook, the tests exist, those on real hosts are all in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/faults.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| fault ")
]
NAMED = re.compile(r"\[(test_\w+)\]\(([^)]+)\)")


def names_in(path: Path) -> set[str]:
    """Give the names of a file's tests, of its classes too."""
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")}


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) > 25
    assert all(len(row) == 4 for row in ROWS)


def test_every_fault_names_its_runbook_or_a_dash() -> None:
    assert [row[0] for row in ROWS if row[3] != "–" and "../runbooks/" not in row[3]] == []


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_fault_names_tests_that_exist(row: list[str]) -> None:
    named = NAMED.findall(row[2])
    assert named
    for name, link in named:
        assert name in names_in((PAGE.parent / link).resolve()), f"{link} has no {name}"


def test_every_fault_test_on_real_hosts_is_in_the_table() -> None:
    named = {name for row in ROWS for name, _ in NAMED.findall(row[2])}
    assert names_in(ROOT / "tests/adapters/test_faults_on_lab.py") - named == set()
