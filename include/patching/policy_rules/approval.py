"""Rules about approvers: known names, and enough of them."""

from __future__ import annotations

from collections.abc import Iterator

from patching.diagnostics import did_you_mean
from patching.people import People
from patching.policy import Approval, Spec
from patching.policy_rules.finding import Wrong


def breaches(spec: Spec, people: People | None) -> Iterator[Wrong]:
    """Check the policy's approval and its emergency's."""
    yield from _approval(("spec", "approval"), spec.approval, people)
    yield from _approval(("spec", "emergency", "approval"), spec.emergency.approval, people)


def _approval(at: tuple[str, ...], approval: Approval, people: People | None) -> Iterator[Wrong]:
    if approval.required == 0 and (approval.approvers or approval.when is not None):
        asked = "approvers" if approval.approvers else "when"
        message = f'nobody has to approve ("required" is 0), yet "{asked}" is given; remove one of the two'
        yield Wrong((*at, "required"), message, "approval-required")
    if approval.timeout is not None and approval.timeout <= 0:
        yield Wrong((*at, "timeout"), "an approval needs time; write for example 12h", "zero-timeout")
    if people is None or not approval.approvers:
        return
    known = {*people.groups, *people.known_users()}
    unknown = [(index, name) for index, name in enumerate(approval.approvers) if name not in known]
    for index, name in unknown:
        message = f'"{name}" is neither a group nor a user of people.yaml{did_you_mean(name, known)}'
        yield Wrong((*at, "approvers", index), message, "unknown-approver")
    able = len(people.resolve(approval.approvers))
    if not unknown and able < approval.required:
        named = "1 person" if able == 1 else f"{able} people"
        message = f'"required" is {approval.required}, but the approvers are only {named}'
        yield Wrong((*at, "required"), message, "approval-required")
