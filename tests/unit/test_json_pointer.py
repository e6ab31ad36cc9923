"""JSON Pointer: the examples of RFC 6901 (section 5), what is no pointer, and what is said of a place that is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.json_pointer import PointerUnresolved, escape, is_pointer, resolve

RFC = json.loads(
    r'{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}'
)


@pytest.mark.parametrize(
    ("pointer", "wanted"),
    [
        ("", RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_examples_of_the_standard(pointer: str, wanted: Any) -> None:
    assert is_pointer(pointer)
    assert resolve(RFC, pointer) == wanted


@given(st.lists(st.text(), max_size=4), st.integers())
def test_any_names_lead_to_what_is_under_them(names: list[str], value: int) -> None:
    document: Any = value
    for name in reversed(names):
        document = {name: document}
    pointer = "".join(f"/{escape(name)}" for name in names)
    assert is_pointer(pointer)
    assert resolve(document, pointer) == value


@pytest.mark.parametrize("text", ["foo", "$.foo", "/a~2", "/a~", "foo/0"])
def test_what_is_no_pointer(text: str) -> None:
    assert not is_pointer(text)


@pytest.mark.parametrize(
    ("pointer", "words"),
    [
        ("/queue/length", 'there is no "length" at "/queue", but depth, oldest'),
        ("/hosts/2", 'there is no "2" at "/hosts", but a list of 2'),
        ("/hosts/01", "a list of 2"),
        ("/hosts/-", "a list of 2"),
        ("/queue/depth/x", r"but a value \(int\)"),
        ("/empty/x", "but an empty object"),
    ],
)
def test_place_that_is_not_there_is_told_from_its_neighbours(pointer: str, words: str) -> None:
    document = {"queue": {"depth": 3, "oldest": 9}, "hosts": [1, 2], "empty": {}}
    with pytest.raises(PointerUnresolved, match=words):
        resolve(document, pointer)
