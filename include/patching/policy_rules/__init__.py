"""Rules about what a policy means, beyond the type of each field; every breach has a place in the file.

A rule is a function from a Policy to the breaches it finds. Rules that need the moment or the people get them as
parameters, so that a check today and a replay in a year give the same answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

from pydantic import ValidationError

from patching.diagnostics import Diagnostic, did_you_mean
from patching.people import People
from patching.policy import Policy
from patching.policy_rules import approval, error_budgets, hooks, irreversible, order, schedule, targets, verify, waves
from patching.policy_rules.finding import Wrong
from patching.policy_schema_errors import explain
from patching.policy_yaml import Document
from patching.registry import DRIVERS, options_class


def check_policy(
    policy: Policy, document: Document, *, people: People | None = None, now: datetime | None = None
) -> list[Diagnostic]:
    """Apply every rule; [] when the policy is sound. Without ``people`` names of approvers are taken as users."""
    found = [document.report(*wrong[:3], key=wrong.key) for wrong in breaches(policy, people, now)]
    return found + _driver_options(policy, document)


def breaches(policy: Policy, people: People | None = None, now: datetime | None = None) -> Iterator[Wrong]:
    """Give every breach of a rule, without positions in a file."""
    spec = policy.spec
    if spec.driver.name not in DRIVERS:
        message = f'unknown driver "{spec.driver.name}"{did_you_mean(spec.driver.name, DRIVERS)}'
        yield Wrong(("spec", "driver", "name"), message, "unknown-driver")
    yield from targets.breaches(spec)
    yield from schedule.breaches(spec.schedule, now)
    yield from waves.breaches(spec)
    yield from order.breaches(spec.rollout)
    yield from hooks.breaches(spec)
    yield from irreversible.breaches(spec)
    yield from verify.breaches(spec)
    yield from error_budgets.breaches(spec)
    yield from approval.breaches(spec, people)


def _driver_options(policy: Policy, document: Document) -> list[Diagnostic]:
    driver = policy.spec.driver
    if driver.name not in DRIVERS or not driver.options:
        return []
    model = options_class(driver.name)
    try:
        written = json.dumps(driver.options)
        model.model_validate_json(written, strict=True, context={"units": True}, by_alias=True, by_name=False)
    except ValidationError as error:
        return explain(error, model, document, ("spec", "driver", "options"))
    return []
