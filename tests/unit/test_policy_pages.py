"""What is made from the models is current, complete and true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from patching.cli.reference import pages
from patching.cli.rule_examples import EXAMPLES, whole_file
from patching.diagnostics import PolicyError, render_all
from patching.policy_fields import MEANING
from patching.policy_files import load_text
from patching.policy_schema import schema
from patching.policy_yaml import read

ROOT = Path(__file__).parents[2]
GUIDE = tuple(
    ROOT / f"docs/how-to/{name}.md" for name in ("write-a-policy", "maintenance-windows", "hooks", "notifications")
)
WHOLE = [name for name, item in EXAMPLES.items() if not item.in_people and item.wrong_bytes is None]
SCHEMA = jsonschema.Draft202012Validator(schema())
PAGES = pages()


@pytest.mark.parametrize("path", sorted(PAGES))
def test_committed_page_is_what_the_code_says(path: str) -> None:
    committed = (ROOT / path).read_text(encoding="utf-8")
    assert committed == PAGES[path], "run python -m patching.cli.reference"


def test_every_meaning_belongs_to_a_field_that_exists() -> None:
    made = schema()
    fields = {name: set(model["properties"]) for name, model in (("Policy", made), *made["$defs"].items())}
    assert {name: set(words) for name, words in MEANING.items()} == fields


@pytest.mark.parametrize("rule", WHOLE)
def test_json_schema_accepts_what_the_loader_accepts(rule: str) -> None:
    example = EXAMPLES[rule]
    text = example.right if example.whole else whole_file(example.right)
    SCHEMA.validate(read(text, "x.yaml").data)


@pytest.mark.parametrize(
    "rule", ["unknown-key", "missing-key", "wrong-type", "unknown-value", "invalid-value", "dns-label"]
)
def test_json_schema_refuses_wrong_fields_too(rule: str) -> None:
    example = EXAMPLES[rule]
    text = example.wrong if example.whole else whole_file(example.wrong)
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(read(text, "x.yaml").data)


def test_json_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema())))


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_every_policy_in_the_guide_is_valid(page: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    policies = [text for text in blocks if "apiVersion" in text]
    parts = [text for text in blocks if "apiVersion" not in text and not text.startswith("groups:")]
    assert policies or parts
    for text in policies:
        load_text(text)
    for text in parts:
        load_text(whole_file(text))


def test_error_shown_in_the_guide_is_what_the_loader_says() -> None:
    page = GUIDE[0].read_text(encoding="utf-8")
    first = page.split("```yaml\n")[1].split("```")[0]
    with pytest.raises(PolicyError) as caught:
        load_text(first + "  rollout: {maxUnavailble: 2}\n", "dags/policies/web.yaml")
    assert render_all(caught.value.diagnostics, 1) in page
