"""Canonical JSON: whatever way is taken, the bytes are those of RFC 8785, because every hash covers them."""

from __future__ import annotations

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from patching.value import canonical

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


@given(JSON)
@example({"b": 1, "a": {"Z": [], "a": {}}})
@example('\x00\x1f\x7f\u2028\ud7ff"\\/\b\f\n\r\t')
@example({"\U00010000": 1, "\ufb33": 2})
@example([1.0, 1e21, 1e-7, -0.0, 2**53 - 1, -(2**53 - 1), True])
@example(2**53)
def test_the_bytes_are_those_of_the_reference_implementation(value):
    try:
        expected = rfc8785.dumps(value)
    except rfc8785.CanonicalizationError:
        with pytest.raises(ValueError):
            canonical(value)
    else:
        assert canonical(value) == expected


@pytest.mark.parametrize("value", ["\ud800", {"a": ["\udfff"]}, {"\ud800": 1}, {1: 2}, b"x"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        canonical(value)
