"""The judge on real hosts, real traffic and a real Prometheus: what the patch did shows, and launching stops (S5, F9).

That a good patch is promoted on the same metrics: test_faults_on_lab.py. ``-rP`` shows the times that are printed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.lab_fleet import MEASURED, LabFleet
from lab import Lab
from patching.ledger.entry import EntryKind
from patching.rollout.answers import GateState, VerdictName
from patching.sources.base import Connection

pytest_plugins = ["lab.fixtures"]
pytestmark = pytest.mark.lab

V1 = "1.0.0-1"
ERRORS = MEASURED[-1]
LATENCY: dict[str, Any] = {
    "name": "latency",
    "prometheus": {
        "connection": "prom_lab",
        "series": {"instance": "{name}"},
        "good": 'http_request_duration_seconds_bucket{le="0.25",$series}',
        "requests": "http_request_duration_seconds_count{$series}",
        "before": "20s",
    },
}
CANARY = {"waves": [{"canary": {"count": 1}, "soak": "20s"}, {"size": "100%"}]}
ONE_BY_ONE = {"maxUnavailable": 1, "waves": [{"size": "100%", "soak": "60s"}]}

Make = Callable[..., LabFleet]


@pytest.fixture
def fleet_of(lab: Lab, tmp_path: Path) -> Make:
    """Make a fleet of hosts that are as new, with a release published."""

    def make(*hosts: str, release: str, **spec: Any) -> LabFleet:
        lab.repository.replace({})
        lab.restore(*hosts)
        lab.publish(release)
        return LabFleet(lab, tmp_path / "fleet", hosts, **spec)

    return make


def first_bad(fleet: LabFleet, bad: str, since: datetime) -> datetime:
    """Give the second in which Prometheus first saw a bad answer of this fleet."""
    seconds = int((fleet.clock() - since).total_seconds()) + 1
    when = f"timestamp(({bad}) > 0)"
    (found,) = fleet.lab.prometheus(f"min(min_over_time({when}[{seconds}s:1s]))")
    return datetime.fromtimestamp(float(found["value"][1]), since.tzinfo)


def share(fleet: LabFleet, quantile: float, host: str) -> float:
    """Give a quantile of a host's answer times in the last 15 seconds."""
    rate = f'rate(http_request_duration_seconds_bucket{{instance="{host}"}}[15s])'
    (found,) = fleet.lab.prometheus(f"histogram_quantile({quantile}, sum by (le) ({rate}))")
    return float(found["value"][1])


def tell(what: str, bad: datetime, stopped: datetime, limit: str) -> None:
    seconds = (stopped - bad).total_seconds()
    print(f"{what}: launching stopped {seconds:.0f} s after the first bad answer ({limit})")  # noqa: T201 - a figure


async def test_errors_of_a_patch_stop_launching_in_the_middle_of_its_wave(fleet_of: Make) -> None:
    """S5: the guard's first complete block finds the errors; the hosts after that are never touched."""
    hosts = [f"web-{number:02d}" for number in range(1, 9)]
    # Eight hosts take a minute: some must be left when a block of twenty seconds has settled, filled and been judged.
    slow = {"command": {"name": "slow", "enter": "sleep 6"}}
    fleet = fleet_of(*hosts, release="v3", verify=[ERRORS], hooks=[slow], rollout=ONE_BY_ONE)
    fleet.site = replace(fleet.site, look_every=1.0)
    await fleet.begin()
    began = fleet.clock()
    await fleet.gate(1)
    summary = await fleet.apply(1)
    assert "stopped launching: errors: error share" in summary.sentence
    alarm = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.GUARD])[-1]
    assert alarm.body["verdict"]["verdict"] == "undo"
    rows = fleet.ledger.targets(fleet.rollout)
    assert all(row.began_at < alarm.at for row in rows if row.began_at is not None)
    spared = [row.target for row in rows if row.began_at is None]
    assert spared
    bad = first_bad(fleet, f'http_requests_total{{code="500",instance=~"{"|".join(hosts)}"}}', began)
    tell(f"5xx, {len(hosts) - len(spared)} of {len(hosts)} changed", bad, alarm.at, "blocks of 20 s")
    assert (await fleet.judge(1)).verdict is VerdictName.UNDO
    await fleet.undo(1)
    await fleet.finish()
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {V1}
    assert not any(fleet.intents(name) and fleet.outcomes()[name] == "applied" for name in spared)


async def test_slow_answers_are_found_although_median_and_errors_are_as_before(fleet_of: Make) -> None:
    """S5: p99 is judged as a share of slow answers."""
    hosts = ["web-01", "web-02", "web-03", "web-04", "web-05"]
    fleet = fleet_of(*hosts, release="v6", verify=[ERRORS, LATENCY], rollout=CANARY)
    await fleet.begin()
    began = fleet.clock()
    await fleet.gate(1)
    await fleet.apply(1)
    answer = await fleet.judge(1)
    canary = fleet.canary()
    others = [name for name in hosts if name != canary]
    assert answer.verdict is VerdictName.UNDO, answer.sentence
    assert answer.sentence.startswith("latency: ")
    verdict = fleet.ledger.entries(fleet.rollout, kinds=[EntryKind.VERDICT])[-1]
    assert {one["name"]: one["verdict"] for one in verdict.body["checks"]}["latency"] == "undo"
    assert share(fleet, 0.99, canary) > 0.25 > share(fleet, 0.99, others[0])
    assert share(fleet, 0.5, canary) < 0.1
    bad = first_bad(fleet, slow_answers(canary), began)
    tell("p99 up, median unchanged", bad, verdict.at, "canary, soak of 20 s")
    await fleet.undo(1)
    assert (await fleet.gate(2)).state is GateState.REFUSED
    await fleet.finish()
    assert fleet.state == "undone"
    assert set(fleet.versions().values()) == {V1}


def slow_answers(host: str) -> str:
    total = f'http_request_duration_seconds_count{{instance="{host}"}}'
    return f'{total} - ignoring (le) http_request_duration_seconds_bucket{{instance="{host}",le="0.25"}}'


async def test_prometheus_that_is_down_when_the_canary_is_judged_holds(fleet_of: Make) -> None:
    """F9: a good patch, and nobody who could say so."""
    rollout = {"waves": [{"canary": {"count": 1}, "soak": "2s"}, {"size": "100%"}]}
    fleet = fleet_of("web-06", "web-07", release="v2", verify=MEASURED, rollout=rollout)
    await fleet.begin()
    await fleet.gate(1)
    await fleet.apply(1)
    # Nothing listens on port 1.
    known = fleet.site.connections.known  # type: ignore[attr-defined]
    known["prom_lab"] = Connection(id="prom_lab", host=known["prom_lab"].host, port=1, schema_="http")
    answer = await fleet.judge(1)
    assert answer.verdict is VerdictName.HOLD
    assert "errors" in answer.sentence
    assert (await fleet.gate(2)).state is GateState.REFUSED
    await fleet.finish()
    assert fleet.state == "held"
    assert sorted(fleet.outcomes().values()) == ["applied", "pending"]
