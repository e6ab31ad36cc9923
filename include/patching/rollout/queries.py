"""Queries are tried before the rollout starts: a renamed metric is found when planning, not in the night."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from patching.change import Refusal
from patching.errors import ConnectionMissing, MetricSourceUnavailable, PlanError
from patching.plan.document import CheckPower
from patching.plan.traffic import Traffic
from patching.policy import Check, Metric, Policy
from patching.rollout.measuring import called, counters, inverted
from patching.rollout.site import Site
from patching.target import Target
from patching.value import Value


class Tried(Value):
    """What trying the queries gave: what people must know, and the traffic of each check's targets before."""

    said: tuple[CheckPower, ...]
    rates: dict[str, dict[str, Traffic]]


async def tried_queries(site: Site, policy: Policy, targets: Sequence[Target], now: datetime) -> Tried:
    """Try every metric check on the planned targets; give what people must know before they approve.

    A source that does not answer now, and targets without data now, do not stop the plan: the check would hold.
    Raises PlanError, with all refusals, for a query that is refused or a connection that does not exist.
    """
    said: list[CheckPower] = []
    rates: dict[str, dict[str, Traffic]] = {}
    wrong: list[str] = []
    for check in policy.spec.verify if targets else ():
        if check.metric is None:
            continue
        try:
            refusals = await _tried(site, check, check.metric, targets, now)
            if not any(item.blocking for item in refusals):
                rates[check.name] = await _traffic(site, check, targets, now)
        except ConnectionMissing as error:
            wrong.append(f'check "{check.name}": {error}')
        except MetricSourceUnavailable as error:
            said.append(_statement(check, f"its query could not be tried: {error}"))
        else:
            wrong += [f'check "{check.name}": {_text(item)}' for item in refusals if item.blocking]
            said += [_statement(check, item.message) for item in refusals if not item.blocking]
    if wrong:
        raise PlanError(f"nothing was planned, because the rollout could not be judged: {'; '.join(wrong)}")
    return Tried(said=tuple(said), rates=rates)


async def _traffic(site: Site, check: Check, targets: Sequence[Target], now: datetime) -> dict[str, Traffic]:
    """Read what the targets counted in the time before, as long as the judge will look back; a gauge counts nothing."""
    rules = check.prometheus
    if rules is None or rules.gauge:
        return {}
    failed, asked, invert = counters(rules)
    found = {target.name: called(target, rules) for target in targets}
    start = now - timedelta(seconds=rules.before)
    samples = await site.metrics(rules.connection).increases(found, failed, asked, start, now)
    return {
        one.target: Traffic(errors=(one.errors or 0.0) / rules.before, requests=one.requests / rules.before)
        for one in (inverted(sample) if invert else sample for sample in samples)
        if one.requests is not None
    }


async def _tried(site: Site, check: Check, rules: Metric, targets: Sequence[Target], now: datetime) -> list[Refusal]:
    if check.http_json is not None:
        return await site.polled(check.http_json).validate(targets)
    found = {target.name: called(target, rules) for target in targets}
    if check.sql is not None:
        return await site.databases(check.sql.connection).validate_gauge(found, check.sql.query, now)
    if check.prometheus is None:
        return []
    source = site.metrics(check.prometheus.connection)
    if check.prometheus.query is not None:
        return await source.validate_gauge(found, check.prometheus.query, now)
    failed, asked, _ = counters(check.prometheus)
    return await source.validate(found, failed, asked, now)


def _statement(check: Check, text: str) -> CheckPower:
    return CheckPower(check=check.name, wave=1, comparison="none", statement=text)


def _text(refusal: Refusal) -> str:
    return f"{refusal.message}; {refusal.remedy}" if refusal.remedy else refusal.message
