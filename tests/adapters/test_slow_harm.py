"""Harm that takes hours to show, judged from samples that a real Prometheus was given in one go (S5, F5).

Sparse errors: one in ten minutes and host becomes one a minute, and a host's error series begins with its first error.
Slow leak: memory grows by one percent a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from adapters.backfilled import backfilled
from patching.canary.comparison import judge_check
from patching.canary.gauges import judge_levels
from patching.canary.levels import LevelMeasurements, Levels
from patching.canary.verdicts import CheckVerdict
from patching.policy import Check, Compare, PrometheusCheck
from patching.rollout.answers import VerdictName
from patching.sources.base import Connection
from patching.sources.prometheus import PrometheusSource

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STEP, BEFORE, AFTER = 30, 240, 120
BAD, GOOD, REST = ("w0", "w1"), ("w2", "w3"), tuple(f"w{number}" for number in range(4, 12))
HOSTS = (*BAD, *GOOD, *REST)
ERRORS, REQUESTS = 'http_requests_total{code=~"5..",$series}', "http_requests_total{$series}"
MEMORY = "process_resident_memory_bytes{$series}"


def openmetrics() -> str:
    """Write two hours before and one hour after the change of the bad hosts, with chance that is always the same."""
    random = np.random.default_rng(11)
    counts, memory = ["# TYPE http_requests counter"], ["# TYPE process_resident_memory_bytes gauge"]
    for host in HOSTS:
        answered = failed = 0
        for look in range(-BEFORE, AFTER + 1):
            stamp = START.timestamp() + look * STEP
            changed = host in BAD and look > 0
            answered += 30
            failed += int(random.poisson(0.5 if changed else 0.05))
            labels = f'{{instance="{host}",code='
            counts.append(f'http_requests_total{labels}"200"}} {answered} {stamp}')
            if failed:
                counts.append(f'http_requests_total{labels}"500"}} {failed} {stamp}')
            grown = 1.01 ** (look * STEP / 60) if changed else 1.0
            size = 5e8 * grown * float(np.exp(random.normal() * 0.02))
            memory.append(f'process_resident_memory_bytes{{instance="{host}"}} {size:.0f} {stamp}')
    return "\n".join([*counts, *memory, "# EOF", ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    folder: Path = tmp_path_factory.mktemp("slow")
    with backfilled(folder, openmetrics()) as connection:
        yield connection


def at(look: int) -> datetime:
    return START + timedelta(seconds=look * STEP)


def tell(what: str, found: datetime) -> None:
    print(f"{what}: found {(found - START).total_seconds() / 60:.0f} min after the change")  # noqa: T201 - a figure


async def errors_of(connection: Connection, treated: tuple[str, ...], looks: int) -> CheckVerdict:
    source = PrometheusSource(connection)
    sides = [{name: {"instance": name} for name in names} for names in (treated, REST)]
    now = [await source.points(side, ERRORS, REQUESTS, at(0), at(looks), looks) for side in sides]
    then = [await source.points(side, ERRORS, REQUESTS, at(1 - BEFORE), at(0), BEFORE - 1) for side in sides]
    check = Check(name="errors", prometheus=PrometheusCheck(connection="p", errors=ERRORS, requests=REQUESTS))
    return judge_check(check, canary=now[0], control=now[1], before=then[0], control_before=then[1], share=1 / 3)


async def memory_of(connection: Connection, treated: tuple[str, ...], looks: int) -> CheckVerdict:
    source = PrometheusSource(connection)

    async def levels(names: tuple[str, ...], first: int, last: int) -> Levels:
        wanted = {name: {"instance": name} for name in names}
        values = await source.values(wanted, MEMORY, at(first), at(last), last - first)
        ends = np.array([at(look).timestamp() for look in range(first + 1, last + 1)])
        return Levels(tuple(values), ends, np.array(list(values.values()), dtype=float))

    spans = [(0, looks), (-BEFORE, 0)]
    sides = [await levels(names, *span) for span in spans for names in (treated, REST)]
    compare = Compare(max_relative_increase="10%")
    check = Check(name="memory", prometheus=PrometheusCheck(connection="p", query=MEMORY), compare=compare)
    return judge_levels(check, LevelMeasurements(*sides), share=1 / 3)


async def test_sparse_errors_are_found_within_the_hour(prometheus: Connection) -> None:
    verdict = await errors_of(prometheus, BAD, AFTER)
    assert (verdict.verdict, verdict.comparison) == (VerdictName.UNDO, "control"), verdict.reason
    assert verdict.numbers is not None
    assert verdict.numbers.alarm_at is not None
    tell("sparse errors", verdict.numbers.alarm_at)


async def test_leak_is_not_seen_in_five_minutes_and_is_found_within_the_hour(prometheus: Connection) -> None:
    """Why the soak has to be as long as the harm takes, and a rollout is watched after its end."""
    assert (await memory_of(prometheus, BAD, 10)).verdict is not VerdictName.UNDO
    verdict = await memory_of(prometheus, BAD, AFTER)
    assert (verdict.verdict, verdict.comparison) == (VerdictName.UNDO, "control"), verdict.reason
    assert verdict.numbers is not None
    assert verdict.numbers.alarm_at is not None
    tell("leak", verdict.numbers.alarm_at)


async def test_hosts_that_are_as_before_are_promoted(prometheus: Connection) -> None:
    for found in (await errors_of(prometheus, GOOD, AFTER), await memory_of(prometheus, GOOD, AFTER)):
        assert found.verdict is VerdictName.PROMOTE, found.reason
