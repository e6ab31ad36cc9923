"""The name in a selector, as PromQL writes it (S5)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.sources.promql import by_name, quote_value

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ('http_requests_total{code=~"5..",$series}', "http_requests_total"),
        ("http_requests_total", "http_requests_total"),
        ("job:errors:total {$series}", "job:errors:total"),
        ('# errors of the shop\nshop_errors_total{path!="/{id},"}', "shop_errors_total"),
        ('{__name__="shop_errors_total",$series}', '{__name__="shop_errors_total"}'),
        ('{ $series , __name__ =~ "shop_.*" , code = "5{}," }', '{__name__=~"shop_.*"}'),
        ("{'shop.errors',$series}", "{__name__='shop.errors'}"),
        ('{path="\\"__name__=,",__name__="a"}', '{__name__="a"}'),
        ('{__name__=~"a.*",__name__!="ab",$series}', '{__name__=~"a.*",__name__!="ab"}'),
        ('{code="200",$series}', None),
        ("sum(rate(x{$series}[1m]))", None),
        ("", None),
        ("$series", None),
    ],
)
def test_name_in_a_selector(selector: str, name: str | None) -> None:
    assert by_name(selector) == name


@settings(max_examples=100, deadline=None)
@given(NAMES, st.dictionaries(NAMES.filter(lambda label: label != "__name__" and ":" not in label), st.text()))
def test_name_is_found_whatever_the_other_matchers_say(name: str, labels: dict[str, str]) -> None:
    matchers = ",".join(f"{label}={quote_value(value)}" for label, value in labels.items())
    assert by_name(f"{name}{{{matchers}}}") == name
    assert by_name(f"{{{matchers},__name__={quote_value(name)}}}") == f"{{__name__={quote_value(name)}}}"
