"""How much hosts with nothing wrong differ, and what the time before says of the control (S5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from patching.canary.panel import Panel
from patching.canary.spread import (
    ASSUMED,
    LEAST,
    LEAST_VARIANCE,
    _freedom,
    between_hosts,
    over_time,
    raised,
    reference,
    within_hosts,
    worth,
)


def panel(errors: Any, requests: float = 1000.0, prefix: str = "h") -> Panel:
    rows = np.asarray(errors, dtype=float)
    names = tuple(f"{prefix}{index}" for index in range(len(rows)))
    return Panel(names, 0.0, np.arange(1.0, rows.shape[1] + 1), rows, np.full_like(rows, requests))


def drawn(seed: int, hosts: int, looks: int, lasting: float, moving: float, errors: float = 200.0) -> Any:
    random = np.random.default_rng(seed)
    logs = random.normal(size=(hosts, 1)) * lasting + random.normal(size=(hosts, looks)) * moving
    return random.poisson(errors * np.exp(logs))


@pytest.mark.parametrize(("hosts", "quantile"), [(3, 0.446), (9, 4.594), (31, 23.364)])
def test_upper_limit_uses_the_published_quantiles_of_chi_squared(hosts: int, quantile: float) -> None:
    assert raised(0.04, hosts - 1) == pytest.approx(0.04 * (hosts - 1) / quantile, rel=0.04)
    assert raised(0.04, 0) == float("inf")


def test_lasting_and_moving_differences_are_told_apart() -> None:
    found = panel(drawn(1, 40, 20, 0.5, 0.2))
    between, known = between_hosts(found)
    assert known
    assert 0.4 < between < 0.8
    within, known = within_hosts(found)
    assert known
    assert 0.18 < within < 0.24


def test_alike_hosts_still_have_the_least_spread() -> None:
    found = panel(drawn(2, 40, 20, 0.0, 0.0, errors=2000))
    assert within_hosts(found) == (LEAST, True)
    assert between_hosts(found)[0] == LEAST


@pytest.mark.parametrize("errors", [np.zeros((9, 10)), np.full((9, 2), 5.0), np.full((1, 10), 5.0)])
def test_too_little_to_tell_is_assumed(errors: Any) -> None:
    assert within_hosts(panel(errors)) == (ASSUMED, False)


def test_sparse_errors_cannot_show_that_hosts_are_alike() -> None:
    """Four errors in all say nothing about how hosts move."""
    errors = np.zeros((9, 6))
    errors[0, 0] = errors[3, 2] = errors[5, 5] = errors[7, 1] = 1
    assert within_hosts(panel(errors))[0] == ASSUMED


def test_placebo_windows_contain_the_autocorrelation() -> None:
    """Single scrapes of an AR(1) series suggest too little: windows of 20 scrapes show how a host really wanders."""
    random = np.random.default_rng(3)
    series = np.empty((20, 400))
    series[:, 0] = random.normal(size=20) * 0.3
    for look in range(1, 400):
        series[:, look] = 0.95 * series[:, look - 1] + random.normal(size=20) * 0.3 * (1 - 0.95**2) ** 0.5
    found = panel(random.poisson(200 * np.exp(series)))
    shown = within_hosts(found.windows(20))[0]
    independent = 0.3 / 20**0.5
    assert shown > 2 * independent


def test_shocks_that_all_share_are_no_spread_of_hosts_but_of_time() -> None:
    random = np.random.default_rng(4)
    errors = random.poisson(300 * np.exp(random.normal(size=(1, 20)) * 0.5) * np.ones((20, 20)))
    assert within_hosts(panel(errors))[0] < 0.15
    assert over_time(panel(errors))[0] > 0.35


def test_many_errors_before_make_r_the_measured_ratio() -> None:
    found = reference(panel(np.full((3, 30), 300.0), prefix="w"), panel(np.full((9, 30), 100.0), prefix="c"), 5)
    assert np.exp(found.log_ratio) == pytest.approx(3.0, rel=0.05)
    assert found.ratio_variance == pytest.approx(1 / 27_000 + 1 / 27_000, rel=0.1)


def test_no_error_before_leaves_r_at_one_with_the_variance_of_unlike_hosts() -> None:
    found = reference(panel(np.zeros((3, 30)), prefix="w"), panel(np.zeros((9, 30)), prefix="c"), 5)
    assert found.log_ratio == pytest.approx(0.0, abs=0.1)
    assert found.ratio_variance == pytest.approx(ASSUMED**2 * (1 / 3 + 1 / 9), rel=0.1)
    assert not found.known


def test_many_hosts_never_make_the_variance_vanish() -> None:
    found = reference(panel(drawn(5, 500, 30, 0, 0), prefix="w"), panel(drawn(6, 500, 30, 0, 0), prefix="c"), 5)
    assert found.variance(500, 500) == LEAST_VARIANCE


def test_without_any_time_before_the_control_itself_says_how_hosts_differ() -> None:
    empty = panel(np.empty((0, 0)))
    found = reference(empty, empty, 5, now=panel(drawn(7, 40, 1, 0.5, 0.0)))
    assert found.log_ratio == 0.0
    assert 0.4 < found.between < 0.8
    few = reference(empty, empty, 5, now=panel(drawn(7, 2, 1, 0.0, 0.0)))
    assert few.between >= ASSUMED


def test_side_is_worth_as_many_hosts_as_vary_alike() -> None:
    """One host with most of the errors: the sum varies almost as it does, however many others there are."""
    even, odd = panel(np.full((10, 60), 5.0)), panel(np.array([[91.0] * 60] + [[1.0] * 60] * 9))
    assert worth(even, 0.5) == pytest.approx(10)
    assert worth(odd, 3.0) == pytest.approx(1.21, abs=0.02)
    assert worth(panel(np.zeros((10, 60))), 0.3) == pytest.approx(10)
    found = reference(odd, even, 20)
    alike = reference(even, even, 20)
    assert found.worth[0] < 2 < 9 < found.worth[1]
    assert found.variance(10, 10) > alike.variance(10, 10)
    assert found.variance(1, 10) == pytest.approx(found.variance(10, 10), rel=1.0)


def test_estimate_that_one_host_carries_is_raised_more() -> None:
    random = np.random.default_rng(4)
    moving = np.exp(random.normal(size=(8, 6)) * 0.3)
    even = random.poisson(200 * moving).astype(float)
    odd = random.poisson(np.array([[1400.0]] + [[30.0]] * 7) * moving).astype(float)
    assert _freedom(even, 35) > 25
    assert _freedom(odd, 35) < 8
    assert _freedom(np.array([1.0, 1e9]), 1) == 1.0
