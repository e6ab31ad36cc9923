"""README and docs: what they show is valid, what they link is there, and the README opens as it should."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
import yaml

from patching.cli.main import available, typer_command
from patching.policy_files import load_text
from patching.sources.inventory_file import InventoryFile

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))
BESIDE = [ROOT / "tests/lab/README.md", ROOT / "dags/policies/README.md"]


def fenced(text: str, language: str) -> list[str]:
    """Give the fenced blocks of a language, without the indentation of a list around them."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) + "\n" for indent, block in blocks]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", html.unescape(heading).lower()).replace(" ", "-") for heading in headings]
    return set(plain)


@pytest.mark.parametrize("path", PAGES + BESIDE, ids=name)
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = link.partition("#")
        found = (path.parent / place).resolve() if place else path
        if "://" in link or (found.exists() and (not anchor or found.suffix != ".md" or anchor in anchors(found))):
            continue
        missing.append(link)
    assert missing == []


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "docs/tutorial/first-policy.md"], ids=name)
def test_policies_that_are_shown_are_valid(path: Path) -> None:
    policies = [block for block in fenced(path.read_text(), "yaml") if "kind: PatchPolicy" in block]
    assert policies
    for text in policies:
        load_text(text, "shown.yaml")


def test_tutorials_policy_is_still_valid_after_its_second_step() -> None:
    first, more = fenced((ROOT / "docs/tutorial/first-policy.md").read_text(), "yaml")
    whole = yaml.safe_load(first)
    whole["spec"] |= yaml.safe_load(more)["spec"]
    assert load_text(yaml.safe_dump(whole), "first.yaml").spec.mode == "apply"


def test_readmes_inventory_is_read_as_it_is_shown(tmp_path: Path) -> None:
    (text,) = [block for block in fenced(README, "yaml") if block.startswith("targets:")]
    (tmp_path / "fleet.yaml").write_text(text)
    assert [target.name for target in InventoryFile(tmp_path / "fleet.yaml").targets()] == ["web-01", "web-02"]


def test_readme_says_in_its_first_forty_lines_what_it_is_shows_a_policy_and_a_picture() -> None:
    top = "\n".join(README.splitlines()[:40])
    assert "Patches hosts from Apache Airflow" in top
    assert "<!-- plan -->" in top
    assert "docs/images/held-wave-in-airflow.png" in top


def test_every_promise_links_a_test() -> None:
    promises = README.split("## Five promises")[1].split("\n## ")[0]
    items = re.split(r"^\d\. ", promises, flags=re.MULTILINE)[1:]
    assert len(items) == 5
    for item in items:
        assert re.search(r"\]\(tests/[\w/]+\.py\)", item), item


def test_every_page_can_be_found_from_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text()
    linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)\s#]+)\)", index)}
    lost = [name(path) for path in PAGES if path.parent != ROOT and path.resolve() not in linked]
    folders = ("docs/decisions/", "docs/index.md")
    assert [path for path in lost if not path.startswith(folders)] == []


def commands() -> set[str]:
    """Give the commands that there are, those of a group with the group's name before them."""
    found = set(available())
    for one in available():
        found |= {f"{one} {sub}" for sub in getattr(typer_command(one), "commands", {})}
    return found


@pytest.mark.parametrize("path", RUNBOOKS, ids=name)
def test_runbook_names_commands_that_exist_and_is_reached_from_its_fault(path: Path) -> None:
    text = path.read_text()
    (shown,) = re.findall(r"^\*\*Shows it:\*\* (.*)$", text, flags=re.MULTILINE)
    known = commands()
    groups = {one.split()[0] for one in known if " " in one}
    named = re.findall(r"patching ([a-z-]+)(?: ([a-z]+)\b)?", shown)
    assert named
    assert [one for one, sub in named if (f"{one} {sub}" if one in groups else one) not in known] == []
    assert [one for one in re.findall(r"`patching ([a-z-]+)", text) if one not in known] == []
    assert f"../runbooks/{path.name}" in (ROOT / "docs/reference/faults.md").read_text()
