"""Queries are tried before the rollout starts: a renamed metric is found when planning, not in the night."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from patching.canary.sides import FIRST_LOOK
from patching.change import Refusal
from patching.errors import ConnectionMissing, MetricSourceUnavailable, PlanError
from patching.plan.document import CheckPower, PlannedWave
from patching.plan.load import Loads, by_requests, by_value, compares_with_control
from patching.plan.traffic import Rates, Traffic
from patching.policy import Check, ErrorBudget, Metric, Policy, PrometheusCheck
from patching.quantity import format_duration
from patching.rollout.measuring import called, counters, inverted, kept_gauge
from patching.rollout.site import Site
from patching.sources.base import MetricSource
from patching.target import Target
from patching.value import Value

LOAD_LOOKS = 12
"""Values of the time before whose mean is the load that a gauge tells."""


class Tried(Value):
    """What trying the queries gave: what people must know, each check's traffic before, and seconds between samples.

    ``loads`` is how busy the targets were, None where no check that compares with a control could tell.
    """

    said: tuple[CheckPower, ...]
    rates: dict[str, dict[str, Traffic]]
    scrapes: dict[str, float]
    loads: Loads | None


async def tried_queries(site: Site, policy: Policy, targets: Sequence[Target], now: datetime) -> Tried:
    """Try every metric check on the planned targets; give what people must know before they approve.

    A source that does not answer now, and targets without data now, do not stop the plan: the check would hold.
    Raises PlanError, with all refusals, for a query that is refused, a counter whose name nobody knows, or a connection
    that does not exist.
    """
    said: list[CheckPower] = []
    rates: dict[str, dict[str, Traffic]] = {}
    scrapes: dict[str, float] = {}
    wrong: list[str] = []
    usable: list[Check] = []
    for check in policy.spec.verify if targets else ():
        if check.metric is None:
            continue
        try:
            refusals = await _tried(site, check, check.metric, targets, now)
        except ConnectionMissing as error:
            wrong.append(f'check "{check.name}": {error}')
        except MetricSourceUnavailable as error:
            said.append(_statement(check.name, f"its query could not be tried: {error}"))
        else:
            wrong += [f'check "{check.name}": {_text(item)}' for item in refusals if item.blocking]
            said += [_statement(check.name, item.message) for item in refusals if not item.blocking]
            if not any(item.blocking for item in refusals):
                usable.append(check)
                rates[check.name], unread = await _traffic(site, check, targets, now)
                said += [_statement(check.name, unread)] if unread else []
                scrapes |= {} if unread else await _interval(site, check, targets, now)
    for budget in policy.spec.error_budgets if targets else ():
        try:
            refusals = await _unknown(site.metrics(budget.connection), budget, ("errors", budget.errors), now)
        except (ConnectionMissing, MetricSourceUnavailable):
            continue  # ``look_at_budgets`` says so in the plan, with why
        wrong += [f'error budget "{budget.name}": {_text(item)}' for item in refusals if item.blocking]
        said += [_statement(budget.name, item.message) for item in refusals if not item.blocking]
    if wrong:
        raise PlanError(f"nothing was planned, because the rollout could not be judged: {'; '.join(wrong)}")
    loads = await _loads(site, usable, rates, targets, now)
    return Tried(said=tuple(said), rates=rates, scrapes=scrapes, loads=loads)


async def _loads(
    site: Site, checks: Sequence[Check], rates: Rates, targets: Sequence[Target], now: datetime
) -> Loads | None:
    """Take the load from what is counted beside a control, else from the first gauge with a past that tells it.

    A number without a past tells none: there, nothing but the control says how much hosts differ, and controls chosen
    by that very number would look more alike than hosts are.
    """
    requests = {check: {name: one.requests for name, one in found.items()} for check, found in rates.items()}
    loads = by_requests(checks, requests)
    for check in checks:
        rules = check.metric
        if loads is not None or rules is None or not compares_with_control(check):
            continue
        matching = {target.name: called(target, rules) for target in targets}
        start = now - timedelta(seconds=rules.before)
        try:
            kept = kept_gauge(site, check)
            if kept is not None:
                values = await kept[0].values(matching, kept[1], start, now, LOAD_LOOKS)
                loads = by_value(check, values)
        except (ConnectionMissing, MetricSourceUnavailable) as error:
            site.log(f"{check.name}: how busy the targets are could not be read: {error}")
    return loads


async def _traffic(
    site: Site, check: Check, targets: Sequence[Target], now: datetime
) -> tuple[dict[str, Traffic], str]:
    """Read what the targets counted in the time before, as long as the judge will look back, or say why not.

    A gauge counts nothing.
    """
    rules = check.prometheus
    if rules is None or rules.gauge:
        return {}, ""
    failed, asked, invert = counters(rules)
    found = {target.name: called(target, rules) for target in targets}
    start = now - timedelta(seconds=rules.before)
    try:
        samples = await site.metrics(rules.connection).increases(found, failed, asked, start, now)
    except MetricSourceUnavailable as error:
        return {}, f"how much traffic there is could not be read: {error}"
    return {
        one.target: Traffic(errors=(one.errors or 0.0) / rules.before, requests=one.requests / rules.before)
        for one in (inverted(sample) if invert else sample for sample in samples)
        if one.requests is not None
    }, ""


async def _interval(site: Site, check: Check, targets: Sequence[Target], now: datetime) -> dict[str, float]:
    """Give the seconds between scrapes, in tenths; nothing where they cannot be read.

    A gauge has none: its expression has no samples of its own.
    """
    rules = check.prometheus
    if rules is None or rules.requests is None:
        return {}
    found = {target.name: called(target, rules) for target in targets}
    try:
        every = await site.metrics(rules.connection).interval(found, rules.requests, now)
    except MetricSourceUnavailable:
        return {}
    return {} if not every else {check.name: round(every, 1)}


def short_soaks(waves: Sequence[PlannedWave], scrapes: Mapping[str, float]) -> list[CheckPower]:
    """Say of each wave whose soak is too short for how often a check is scraped: its one look is a short one."""
    said = []
    for name, every in scrapes.items():
        wanted = FIRST_LOOK * every
        for wave in waves:
            if 0 < wave.soak < wanted:
                text = (
                    f"it is scraped every {format_duration(every)}, so a soak of {format_duration(wave.soak)} has "
                    f"{int(wave.soak / every)} scrapes and is judged at its end only; {format_duration(wanted)} would "
                    f"have the {FIRST_LOOK} that a first look should contain"
                )
                said.append(CheckPower(check=name, wave=wave.index, comparison="none", statement=text))
    return said


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
    failed, asked, good = counters(check.prometheus)
    refusals = await source.validate(found, failed, asked, now)
    if any(item.blocking for item in refusals):
        return refusals
    return refusals + await _unknown(source, check.prometheus, ("good" if good else "errors", failed), now)


async def _unknown(
    source: MetricSource, rules: PrometheusCheck | ErrorBudget, counter: tuple[str, str], now: datetime
) -> list[Refusal]:
    """Refuse counters of a name that the source does not know: a renamed one would count nothing, for ever.

    Only a counter of errors that the policy lets appear with its first error is said instead.
    """
    found = []
    for key, selector in (counter, ("requests", str(rules.requests))):
        name = await source.unknown(selector, now)
        if name is None:
            continue
        later = key == "errors" and rules.errors_may_be_missing
        message = f'"{key}": there is no series of {name} at all'
        remedy = "correct the name, or see that it is scraped"
        if later:
            message += ", as the policy expects until the first error; if it was renamed, no error will be seen"
        elif key == "errors":
            remedy += "; if it appears only with its first error, say errorsMayBeMissing: true"
        found.append(Refusal(code="metrics-unknown", message=message, remedy=remedy, blocking=not later))
    return found


def _statement(check: str, text: str) -> CheckPower:
    return CheckPower(check=check, wave=1, comparison="none", statement=text)


def _text(refusal: Refusal) -> str:
    return f"{refusal.message}; {refusal.remedy}" if refusal.remedy else refusal.message
