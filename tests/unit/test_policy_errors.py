"""Wrong policy files: each gives exactly the expected text, with the right place, and never a traceback."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from patching.cli.rule_examples import EXAMPLES, whole_file
from patching.diagnostics import PolicyError, render_all
from patching.people import load_people
from patching.policy_files import load_all, load_policy, load_text

CASES = Path(__file__).parents[1] / "cases" / "policy_errors"
NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yaml")), ids=lambda case: case.stem)
def test_wrong_file_is_refused_with_place_and_advice(case: Path) -> None:
    """S2: to renew after a wanted change, run with RENEW=1 and read the difference."""
    with pytest.raises(PolicyError) as caught:
        load_text(case.read_bytes(), case.name, now=NOW)
    text = render_all(caught.value.diagnostics, 1) + "\n"
    expected = case.with_suffix(".out")
    if os.environ.get("RENEW"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", [name for name in EXAMPLES if name != "file"])
def test_wrong_example_of_each_rule_breaks_it_and_right_one_keeps_it(rule: str, tmp_path: Path) -> None:
    example = EXAMPLES[rule]
    complete = str if example.whole or example.in_people else whole_file
    file = tmp_path / ("people.yaml" if example.in_people else "policy.yaml")
    load = (lambda: load_people(tmp_path)) if example.in_people else (lambda: load_policy(file, now=NOW))
    if example.people is not None:
        (tmp_path / "people.yaml").write_text(example.people)
    file.write_bytes(example.wrong_bytes or complete(example.wrong).encode())
    with pytest.raises(PolicyError) as caught:
        load()
    assert rule in {item.rule for item in caught.value.diagnostics}
    if example.wrong_bytes is None:
        file.write_text(complete(example.right))
        load()


def test_every_rule_that_the_code_can_give_has_an_example() -> None:
    import re

    import patching

    root = Path(patching.__file__).parent
    # A model gives no rule, and one of its events is called as if it were one.
    models = {root / "policy_hooks.py"}
    files = [*(set(root.glob("policy_*.py")) - models), *root.glob("policy_rules/*.py"), root / "people.py"]
    pattern = re.compile(r'"((?:yaml|window|wave|check|approval|unknown|duplicate|freeze|canary|empty|last)-[a-z-]+)"')
    found = {rule for file in files for rule in pattern.findall(file.read_text())}
    assert len(found) > 25
    assert found - set(EXAMPLES) == set()


def test_missing_file_is_an_error_with_the_rule_file(tmp_path: Path) -> None:
    policies, errors = load_all([tmp_path / "none.yaml"])
    assert policies == {}
    assert [error.rule for error in errors] == ["file"]


def test_same_name_in_two_files_is_an_error_of_the_second(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(whole_file("mode: plan"))
    policies, errors = load_all([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert [Path(path).name for path in policies] == ["a.yaml"]
    assert [(Path(error.path).name, error.line, error.col, error.rule) for error in errors] == [
        ("b.yaml", 3, 18, "duplicate-name")
    ]


def test_broken_file_does_not_touch_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("spec: [")
    (tmp_path / "b.yaml").write_text(whole_file("mode: plan"))
    policies, errors = load_all([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert [Path(path).name for path in policies] == ["b.yaml"]
    assert {Path(error.path).name for error in errors} == {"a.yaml"}


def test_broken_people_file_is_told_once_for_many_policies(tmp_path: Path) -> None:
    (tmp_path / "people.yaml").write_text("groups: {a: [b], a: [c]}")
    for name in "xy":
        (tmp_path / f"{name}.yaml").write_text(whole_file("mode: plan").replace("web", name))
    _, errors = load_all([tmp_path / "x.yaml", tmp_path / "y.yaml"])
    assert [error.rule for error in errors] == ["duplicate-key"]


def test_more_approvals_than_people_are_refused(tmp_path: Path) -> None:
    (tmp_path / "people.yaml").write_text("groups: {leads: [alice, bob], more: [bob]}")
    file = tmp_path / "p.yaml"
    file.write_text(whole_file("approval: {required: 3, approvers: [leads, more]}"))
    with pytest.raises(PolicyError, match=r'"required" is 3, but the approvers are only 2 people'):
        load_policy(file)
