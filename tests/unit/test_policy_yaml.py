"""YAML 1.2 core: scalars mean what they say; no text ends in a traceback or in a place outside of the file."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.cli.rule_examples import EXAMPLES, whole_file
from patching.diagnostics import Diagnostic, PolicyError, render
from patching.policy import Policy
from patching.policy_files import load_text, policy_digest
from patching.policy_yaml import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:30", "22:30"),
        ("no", "no"),
        ("On", "On"),
        ("y", "y"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("2026-12-18", "2026-12-18"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("+12", 12),
        ("-0", 0),
        ("10%", "10%"),
        ("1.2.3", "1.2.3"),
        ("'10'", "10"),
        ('"true"', "true"),
        ("!!str 10", "10"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_scalar_means_what_the_core_schema_says(text: str, value: object) -> None:
    document = read(f"x: {text}\n", "x.yaml")
    assert document.errors == []
    assert document.data == {"x": value}
    assert type(document.data["x"]) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9007199254740992", "9" * 5000])
def test_number_that_json_cannot_carry_is_refused(text: str) -> None:
    assert [error.rule for error in read(f"x: {text}\n", "x.yaml").errors] == ["yaml-number"]


def test_byte_order_mark_is_accepted_and_moves_no_column() -> None:
    with pytest.raises(PolicyError) as caught:
        load_text(b"\xef\xbb\xbf" + b"apiVersions: patching/v1alpha1\n")
    first = next(item for item in caught.value.diagnostics if item.rule == "unknown-key")
    assert (first.line, first.col, first.end_col) == (1, 1, 12)


def test_alias_is_the_same_value_and_its_error_is_at_the_anchor() -> None:
    text = whole_file("reboot: {timeout: &long 0s}\nhooks: [{command: {name: a, enter: x, timeout: *long}}]")
    with pytest.raises(PolicyError) as caught:
        load_text(text)
    assert {(item.rule, item.line) for item in caught.value.diagnostics} == {("zero-timeout", 7)}


def test_shared_alias_below_the_limit_is_allowed() -> None:
    document = read("a: &a [1, 2]\nb: [*a, *a]\n", "x.yaml")
    assert document.errors == []
    assert document.data == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_tab_inside_of_text_is_allowed() -> None:
    hook = "hooks:\n  - command:\n      name: a\n      enter: |\n        if true; then\n        \techo in\n        fi"
    policy = load_text(whole_file(hook))
    assert policy.spec.hooks[0].command.enter == "if true; then\n\techo in\nfi\n"


def test_digest_depends_on_meaning_and_not_on_writing() -> None:
    plain = load_text(whole_file("reboot: {timeout: 15m}"))
    other = load_text("# a comment\n" + whole_file("reboot:\n  timeout: 900s"))
    changed = load_text(whole_file("reboot: {timeout: 16m}"))
    assert policy_digest(plain) == policy_digest(other) != policy_digest(changed)


def test_policy_read_back_from_canonical_json_is_the_same() -> None:
    """A frozen plan holds the policy: durations become plain seconds there and must be read again."""
    from patching.value import canonical

    policy = load_text(whole_file("reboot: {timeout: 15m}\nschedule: {planAhead: 24h}"))
    assert Policy.model_validate_json(canonical(policy)) == policy


plain = (
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=20)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(plain | words, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4))
)
def test_json_is_read_as_json(value: object) -> None:
    """Every JSON text is a YAML document with the same meaning, but for escaped pairs of surrogates (libyaml)."""
    import json

    document = read(json.dumps({"x": value}, ensure_ascii=False), "x.yaml")
    assert document.errors == []
    assert document.data == {"x": value}


@settings(max_examples=300, deadline=None)
@given(st.from_regex(r"[-+.0-9a-fA-FoxXeEnNuUlLtTrRsSyYIA:%_]{1,12}", fullmatch=True))
def test_plain_scalar_is_a_number_only_if_it_looks_like_one(text: str) -> None:
    document = read(f"x: {text}\n", "x.yaml")
    if document.errors or document.root is None:
        return
    value = (document.data or {}).get("x", text)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        assert text.startswith(("0o", "0x")) or math.isclose(float(text), value)
    elif isinstance(value, str):
        assert value == text


def assert_place_is_in(text: str, item: Diagnostic) -> None:
    import re

    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text.removeprefix("\ufeff"))
    assert 1 <= item.line <= len(lines)
    assert 1 <= item.col <= len(lines[item.line - 1]) + 1
    assert item.source == lines[item.line - 1] or not item.source
    assert "\n" not in item.message
    assert "\x1b" not in render(item)


def assert_policy_or_places(text: str) -> None:
    errors: tuple[Diagnostic, ...] = ()
    try:
        assert len(policy_digest(load_text(text, "x.yaml"))) == 64
    except PolicyError as error:
        errors = error.diagnostics
        assert_some(errors)
    for item in errors:
        assert_place_is_in(text, item)


def assert_some(errors: tuple[Diagnostic, ...]) -> None:
    assert errors


GOOD = [
    EXAMPLES[name].right if EXAMPLES[name].whole else whole_file(EXAMPLES[name].right)
    for name in ("check-threshold", "window-frozen", "selector-values", "wave-order", "dns-label")
]
PIECES = [
    "",
    " ",
    "\n",
    "\t",
    ":",
    "-",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!int ",
    '"',
    "'",
    "0",
    "%",
    "#",
    "~",
    "no",
    "é",
]
PIECES += [
    "\x00",
    "\x1b",
    "\u2028",
    "|\n",
    "? ",
    "---\n",
    "...",
    "<<: ",
    "99999999999999999999",
    "10%",
    "@",
    ",",
    "null",
]


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_any_mutation_of_a_good_file_is_a_policy_or_has_errors_with_places(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(st.sampled_from(PIECES) | words) + text[stop:]
    assert_policy_or_places(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_errors(raw: bytes) -> None:
    with pytest.raises(PolicyError) as caught:
        load_text(raw, "x.yaml")
    assert caught.value.diagnostics


values = st.recursive(
    plain | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_in_any_field_is_a_policy_or_has_errors(data: st.DataObject) -> None:
    import json

    tree = read(data.draw(st.sampled_from(GOOD)), "x.yaml").data
    here, path = tree, []
    while isinstance(here, (dict, list)) and here:
        part = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        path.append((here, part))
        here = here[part]
        if data.draw(st.booleans()):
            break
    holder, part = path[-1]
    holder[part] = data.draw(values)
    text = json.dumps(tree, indent=1, ensure_ascii=False)
    assert_policy_or_places(text)
