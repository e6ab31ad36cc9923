"""Asked: every metric that a wave or a finished rollout is judged by: of what it changed, and of who depends on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from patching.canary.dependent import dependent_check, with_moment
from patching.canary.kept import judge_metric
from patching.canary.verdicts import CheckVerdict
from patching.canary.weights import share_of
from patching.change import Outcome
from patching.ledger.base import TargetRow
from patching.plan.dependents import dependents
from patching.plan.document import Plan
from patching.policy import Check
from patching.rollout.measuring import Measured, measure
from patching.rollout.site import Site
from patching.value import Value


class Asked(Value):
    """One metric: its check, and the targets of a dependent ``service``, which is empty for those of the wave."""

    check: Check
    service: str = ""
    targets: tuple[str, ...] = ()


def asked_of(plan: Plan, wave: int) -> list[Asked]:
    """Give the metrics of a wave: its own first, then those of each service that depends on it."""
    checks = [check for check in plan.policy.spec.verify if check.metric is not None]
    found = [Asked(check=check) for check in checks]
    # A service that only depends has no control, and a source without a past no time before.
    checks = [check for check in checks if check.metric is not None and check.metric.history]
    for service, names in plan.dependents(wave).items():
        found += [Asked(check=dependent_check(check, service), service=service, targets=names) for check in checks]
    return found


def asked_late(plan: Plan, changed: Sequence[str], left: Collection[str]) -> list[Asked]:
    """Give the metrics of a finished rollout: of the ``changed``, and of each service that depends on one of them.

    A service is measured on its targets that are still as the rollout ``left`` them, changed by it or not: what came
    later says nothing about this one. There is no control any more.
    """
    rules = plan.policy.spec.rollout
    # An hour before says nothing about a whole day after.
    checks = [check.looking_back(rules.watch) for check in plan.policy.spec.verify]
    # What has no past is only asked while the rollout is at work.
    checks = [check for check in checks if check.metric is not None and check.metric.history]
    found = [Asked(check=check) for check in checks]
    services = dependents(rules, [item.target for item in plan.targets], changed, changed_too=True)
    for service, names in services.items():
        still = tuple(name for name in names if name in left)
        found += [Asked(check=dependent_check(check, service), service=service, targets=still) for check in checks]
    return [one for one in found if one.targets or not one.service]


async def measure_asked(
    site: Site, plan: Plan, asked: Asked, applied: Sequence[TargetRow], control: Sequence[str]
) -> Measured:
    """Read a metric since the last change and before the first; raises MetricSourceUnavailable."""
    if not asked.service:
        return await measure(site, plan, asked.check, applied, control)
    rows = {row.target: row for row in site.ledger.targets(plan.rollout)}
    begun = min(row.began_at for row in applied if row.began_at is not None)
    # Who is changed by this or another rollout meanwhile says nothing about the patched service any more.
    still = [name for name in asked.targets if (began := rows[name].began_at) is None or began < begun]
    still = [name for name in still if rows[name].outcome is not Outcome.SUPERSEDED]
    return await measure(site, plan, asked.check, applied, [], of=still)


def judge_asked(plan: Plan, asked: Asked, measured: Measured, looks: int, *, last: bool = True) -> CheckVerdict:
    """Judge a metric with its share of the bound, ``looks`` being among how many it is shared."""
    share = share_of(asked.check, plan.policy.spec.verify, looks)
    verdict = judge_metric(asked.check, measured.evidence, share, last=last)
    return with_moment(verdict) if asked.service else verdict
