"""Placeholders of a policy (S5)."""

from __future__ import annotations

import shlex

from patching.placeholders import fill
from patching.target import Member, Target


def target(name: str) -> Target:
    return Target(name=name, labels={"az": "b"}, members=(Member(address="10.0.0.1"),))


def test_name_address_and_labels_are_filled() -> None:
    assert fill("{name}@{address}:{label:az}", target("web")) == "web@10.0.0.1:b"


def test_other_braces_and_missing_labels_stay() -> None:
    text = 'up{job="x"} {label:none} {Name}'
    assert fill(text, target("web")) == text


def test_name_that_looks_like_a_placeholder_is_not_filled_again() -> None:
    assert fill("{name}", target("{address}")) == "{address}"


def test_values_are_quoted_where_asked() -> None:
    assert fill("echo {name}", target("a b;c"), shlex.quote) == "echo 'a b;c'"
