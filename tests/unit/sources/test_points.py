"""Points in looks (S5): every value counts once, in the look in which it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from patching.sources.points import in_looks

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECONDS = st.integers(min_value=-50, max_value=350)


def looks(points: list[tuple[int, float]], number: int, length: int = 300) -> list[float | None]:
    seen = {"web": [(T0.timestamp() + second, value) for second, value in points]}
    return in_looks(seen, ["web"], T0, T0 + timedelta(seconds=length), number)["web"]


@given(SECONDS, st.integers(min_value=1, max_value=60))
def test_value_within_the_span_is_in_the_one_look_that_holds_its_moment(second: int, number: int) -> None:
    found = [index for index, value in enumerate(looks([(second, 1.0)], number)) if value is not None]
    step = 300 / number
    wanted = [index for index in range(number) if index * step + 1e-6 < second <= (index + 1) * step + 1e-6]
    assert found == wanted


@given(st.lists(st.tuples(SECONDS, st.floats(min_value=-1e6, max_value=1e6)), max_size=20))
def test_one_look_is_the_mean_of_what_is_within_the_span(points: list[tuple[int, float]]) -> None:
    inside = [value for second, value in points if 0 < second <= 300]
    (found,) = looks(points, 1)
    assert found == (sum(inside) / len(inside) if inside else None)


def test_infinite_and_no_number_are_no_data() -> None:
    assert looks([(10, float("nan")), (20, float("inf"))], 1) == [None]


def test_target_that_nobody_has_seen_has_no_data() -> None:
    assert in_looks({}, ["web", "db"], T0, T0 + timedelta(seconds=10), 2) == {"web": [None, None], "db": [None, None]}
