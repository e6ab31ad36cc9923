"""Queries are tried when planning (S3, S5): a refused one is an error of the plan that names its check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patching.change import Refusal
from patching.errors import ConnectionMissing, MetricSourceUnavailable, PlanError
from patching.sources.base import MetricSource, Sample
from unit.rollout.fleet import Fleet, Metrics

REFUSED = Refusal(code="metrics-query", message='"errors": parse error', remedy="write a selector")
SILENT = Refusal(code="metrics-no-data", message="no current request counter for web-02", blocking=False)


async def test_refused_query_is_an_error_of_the_plan_that_names_the_check(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.metrics.refusals = [REFUSED]
    with pytest.raises(PlanError, match='check "errors": "errors": parse error; write a selector'):
        await fleet.plan()
    assert fleet.ledger.find(fleet.rollout, "plan") is None


async def test_target_without_data_is_said_before_approval(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.metrics.refusals = [SILENT]
    await fleet.plan()
    assert "no current request counter for web-02" in [item.statement for item in fleet.frozen.power]


async def test_prometheus_that_is_down_when_planning_is_said_and_stops_no_plan(tmp_path: Path) -> None:
    """F9: the check would hold; the plan may still be looked at."""
    fleet = Fleet(tmp_path)
    fleet.metrics.down = True
    await fleet.plan()
    assert any("could not be tried: the metric source does not answer" in item.statement for item in fleet.frozen.power)


async def test_plan_speaks_of_the_traffic_that_came_before(tmp_path: Path) -> None:
    """1,000 requests an hour on each of six targets, and for the canary what its soak will bring (S6)."""
    fleet = Fleet(tmp_path, rollout={"waves": [{"canary": {"count": 1}, "soak": "30m"}, {"size": "100%"}]})
    await fleet.plan()
    said = [item.statement for item in fleet.frozen.power]
    assert any("100 requests a minute came before on 6 targets" in text for text in said)
    assert any("with 0 errors in 500 requests, as before" in text for text in said)
    fleet = Fleet(tmp_path / "silent")
    fleet.metrics.silent = set(fleet.names)
    await fleet.plan()
    assert any("how many requests come is not known" in item.statement for item in fleet.frozen.power)


async def test_traffic_that_cannot_be_read_hides_nothing_else(tmp_path: Path) -> None:
    """An hour of a large fleet may be more than a source gives; what trying the query found is said all the same."""

    class Small(Metrics):
        async def increases(self, *_: Any) -> list[Sample]:
            raise MetricSourceUnavailable("query processing would load too many samples")

    fleet = Fleet(tmp_path)
    fleet.metrics = Small(refusals=[SILENT])
    await fleet.plan()
    said = [item.statement for item in fleet.frozen.power]
    assert "no current request counter for web-02" in said
    assert "how much traffic there is could not be read: query processing would load too many samples" in said
    assert any("how many requests come is not known" in text for text in said)


async def test_plan_keeps_how_busy_the_targets_were_and_says_how_the_control_compares(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.metrics.silent = {fleet.names[0]}
    await fleet.plan()
    loads = fleet.frozen.loads
    assert loads is not None
    assert loads.of == dict.fromkeys(sorted(fleet.names[1:]), 0.2778)
    said = [item.statement for item in fleet.frozen.power if item.check == "control"]
    assert any("0.278 requests a second a host before, 0.278 at the control (1 ×)" in text for text in said)


async def test_load_that_nobody_knows_stops_no_plan_and_is_said(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.metrics.down = True
    await fleet.plan()
    said = [item.statement for item in fleet.frozen.power if item.check == "control"]
    assert said
    assert all("load not known, so chosen by service, zone and lot" in text for text in said)
    assert fleet.frozen.loads is None


async def test_connection_that_does_not_exist_is_an_error_of_the_plan(tmp_path: Path) -> None:
    def missing(name: str) -> MetricSource:
        raise ConnectionMissing(f'connection "{name}" is not defined')

    fleet = Fleet(tmp_path)
    fleet.site = replace(fleet.site, metrics=missing)
    with pytest.raises(PlanError, match='check "errors": connection "prom" is not defined'):
        await fleet.plan()


def counted(may_be_missing: bool = False) -> dict[str, object]:
    metric = {"connection": "prom", "errors": "e{$series}", "requests": "r{$series}"}
    return {"verify": [{"name": "errors", "prometheus": {**metric, "errorsMayBeMissing": may_be_missing}}]}


@pytest.mark.parametrize("renamed", ["e{$series}", "r{$series}"])
async def test_counter_whose_name_nobody_knows_is_an_error_of_the_plan(tmp_path: Path, renamed: str) -> None:
    """S5: an empty vector counts as no error, so a renamed counter of errors would pass every canary."""
    fleet = Fleet(tmp_path, **counted())
    fleet.metrics.renamed = {renamed}
    with pytest.raises(PlanError, match=r'check "errors": "(errors|requests)": there is no series of'):
        await fleet.plan()


async def test_counter_that_appears_with_its_first_error_is_said_where_the_policy_expects_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, **counted(may_be_missing=True))
    fleet.metrics.renamed = {"e{$series}"}
    await fleet.plan()
    assert any("as the policy expects until the first error" in item.statement for item in fleet.frozen.power)


async def test_requests_must_be_known_whatever_the_policy_expects_of_errors(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, **counted(may_be_missing=True))
    fleet.metrics.renamed = {"r{$series}"}
    with pytest.raises(PlanError, match='"requests": there is no series'):
        await fleet.plan()


@pytest.mark.parametrize("renamed", ["errors_total", "requests_total"])
async def test_counter_of_an_error_budget_must_be_known_too(tmp_path: Path, renamed: str) -> None:
    budget = {"name": "web", "connection": "prom", "objective": "99.9%"}
    fleet = Fleet(tmp_path, errorBudgets=[{**budget, "errors": "errors_total", "requests": "requests_total"}])
    fleet.metrics.renamed = {renamed}
    with pytest.raises(PlanError, match=f'error budget "web": .*there is no series of {renamed} at all'):
        await fleet.plan()
