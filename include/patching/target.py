"""Target and Snapshot: what is patched, and what it runs at one moment."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from patching.value import JsonValue, Value


class Member(Value):
    """One address of a target, by its role in it."""

    role: str = "main"
    address: str
    port: int | None = None
    user: str | None = None


class Target(Value):
    """What is leased, counted and judged as one: a host, a node, a cluster, a BMC, an image."""

    name: str
    labels: dict[str, str] = Field(default_factory=dict)
    members: tuple[Member, ...]

    @property
    def address(self) -> str:
        """Address of the first member."""
        return self.members[0].address

    def domain(self, label: str | None) -> str:
        """Failure domain of the target by the label that the policy names; ``-`` where it has none."""
        return self.labels.get(label, "-") if label else "-"


class Reach(StrEnum):
    """Whether a target answered when the snapshot was taken, and if not, in which way."""

    ONLINE = "online"
    OFFLINE = "offline"
    LOGIN_REFUSED = "login_refused"
    HOST_KEY_UNKNOWN = "host_key_unknown"
    HOST_KEY_CHANGED = "host_key_changed"


class Offer(Value):
    """One version that a target's sources offer, with the origins (``Label:Suite``) that offer it."""

    version: str
    origins: tuple[str, ...] = ()


class Component(Value):
    """One installed component: its version and, for matching advisories, the source package it was built from."""

    version: str
    source: str | None = None
    source_version: str | None = None


class Transaction(Value):
    """A rehearsed change: everything the package system would do, and what an undo would need.

    ``actions`` maps component (``name:arch``) to (version before or None, version after or None).
    ``undo_missing`` names ``component=version`` that no store, cache, index or archive still has.
    """

    actions: dict[str, tuple[str | None, str | None]]
    undo_missing: tuple[str, ...] = ()
    download_bytes: int = 0
    error: str | None = None


class Snapshot(Value):
    """What a target runs at one moment, as far as it answered."""

    target: str
    taken_at: datetime
    reach: Reach = Reach.ONLINE
    reach_detail: str = ""
    installed: dict[str, Component] = Field(default_factory=dict)
    offers: dict[str, tuple[Offer, ...]] = Field(default_factory=dict)
    kernel: str | None = None
    boot_id: str | None = None
    reboot_required: bool = False
    reboot_reasons: tuple[str, ...] = ()
    stale_services: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    half_installed: tuple[str, ...] = ()
    competing_patchers: tuple[str, ...] = ()
    transaction: Transaction | None = None
    ecosystem: str | None = None
    facts: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def online(self) -> bool:
        """Whether the target answered."""
        return self.reach is Reach.ONLINE

    def version(self, component: str) -> str | None:
        """Installed version of a component, None where it is not installed."""
        found = self.installed.get(component)
        return found.version if found else None
