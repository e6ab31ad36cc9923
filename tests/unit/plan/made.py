"""Small values of planning that tests are made of: targets, snapshots, policies, candidates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from patching.advisory import Advisory, AffectedRange, Priority
from patching.change import Patch, Undo
from patching.plan.freeze import Candidate
from patching.policy import Policy
from patching.target import Component, Member, Offer, Snapshot, Target

NOW = datetime(2026, 11, 24, 14, 2, tzinfo=UTC)
SECURITY, UPDATES = "Debian-Security:stable-security", "Debian:stable-updates"
BEFORE, AFTER = "6.1.90-1", "6.1.94-1"


def target(name: str, **labels: str) -> Target:
    return Target(name=name, labels=labels, members=(Member(address=f"{name}.example"),))


def fleet(sizes: Sequence[int], label: str = "az") -> list[Target]:
    """Make one target for every place of every domain: sizes (3, 2) give az-0 three targets and az-1 two."""
    return [
        target(f"web-{domain}-{number}", **{label: f"{label}-{domain}"})
        for domain, size in enumerate(sizes)
        for number in range(size)
    ]


def policy(name: str = "web", **spec: Any) -> Policy:
    """Make a policy; keys of ``spec`` are those of the YAML."""
    body = {
        "driver": {"name": "apt", "connection": "ssh"},
        "targets": {"inventory": "lab"},
        "approval": {"required": 0},
        **spec,
    }
    return Policy.model_validate(
        {"apiVersion": "patching/v1alpha1", "kind": "PatchPolicy", "metadata": {"name": name}, "spec": body}
    )


def snapshot(
    name: str = "web-1",
    installed: dict[str, str | tuple[str, str, str]] | None = None,
    offers: dict[str, list[tuple[str, str]]] | None = None,
    **more: Any,
) -> Snapshot:
    """Make a snapshot; installed is a version or (version, source, source version), offers are (version, origin)."""
    return Snapshot(
        target=name,
        taken_at=NOW,
        ecosystem=more.pop("ecosystem", "Debian:12"),
        installed={key: _component(value) for key, value in (installed or {}).items()},
        offers={
            key: tuple(Offer(version=version, origins=(origin,)) for version, origin in found)
            for key, found in (offers or {}).items()
        },
        **more,
    )


def _component(value: str | tuple[str, str, str]) -> Component:
    if isinstance(value, str):
        return Component(version=value)
    return Component(version=value[0], source=value[1], source_version=value[2])


def advisory(name: str = "DSA-1", package: str = "openssl", fixed: str | None = "3.0.15-1", **more: Any) -> Advisory:
    affected = AffectedRange(
        ecosystem=more.pop("ecosystem", "Debian:12"),
        package=package,
        introduced=more.pop("introduced", "0"),
        fixed=fixed,
        last_affected=more.pop("last_affected", None),
    )
    return Advisory(id=name, affected=(affected,), **more)


def patch(component: str = "linux-image:amd64", before: str | None = BEFORE, after: str | None = AFTER) -> Patch:
    return Patch(component=component, before=before, after=after, origin=SECURITY, advisories=("DSA-1",))


def candidate(chosen: Target, **more: Any) -> Candidate:
    return Candidate(
        **{
            "target": chosen,
            "patches": (patch(),),
            "priority": Priority(rank=1, name="high", reason="DSA-1 is high"),
            "undo": Undo(possible=True, covered=1, total=1),
            **more,
        }
    )
