"""Plan: the frozen, digested document that a rollout carries out; approval binds to its digest."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Self

from pydantic import Field, PrivateAttr, ValidationError

from patching.advisory import Finding, Priority
from patching.canary.error_budget import BudgetView
from patching.canary.weights import guarded, looks_of
from patching.change import Patch, Refusal, Undo
from patching.errors import PlanRefused
from patching.plan.dependents import dependents
from patching.plan.load import Loads
from patching.policy import Policy
from patching.target import Target
from patching.value import JsonValue, Value, digest, not_valid

SCHEMA = 1


class PlannedTarget(Value):
    """One target of a plan: its wave, the whole transaction, the state it was planned for, and why it is here."""

    target: Target
    wave: int
    patches: tuple[Patch, ...]
    before: dict[str, str | None]
    findings: tuple[Finding, ...]
    priority: Priority
    reboot: bool
    undo: Undo
    reason: str
    warnings: tuple[Refusal, ...] = ()
    download_bytes: int = 0


class Exclusion(Value):
    """One target that the policy selects but the plan leaves out, with a stable code and the reason."""

    target: str
    code: str
    reason: str


class PlannedWave(Value):
    """One ordered part of a plan; ``control`` is None in plans of releases that chose it when the wave began."""

    index: int
    canary: bool
    targets: tuple[str, ...]
    soak: float = 0.0
    control: tuple[str, ...] | None = None


class CheckPower(Value):
    """What one check can and cannot detect in one wave, and which comparison it will use; said before approval."""

    check: str
    wave: int
    comparison: str
    statement: str


class Plan(Value):
    """What will be done, where, in which order and why; nothing in it changes after it is frozen.

    ``domain_limits`` maps a failure domain (``-`` for targets without one) to how many of its targets may be
    unavailable at once, those that were down when planning taken off already; ``service_limits`` does so for services,
    ``shared_limits`` and ``shared_reboots`` for the domains of limits.yaml (``az=eu-1``). ``scrapes`` gives the seconds
    between the samples of a check's counters, as found when planning: looks are fixed by it before anything starts.
    ``loads`` are those by which the controls were chosen, None where none was known and in plans of older releases.
    """

    schema_version: int = SCHEMA
    rollout: str
    policy: Policy
    policy_digest: str
    created_at: datetime
    emergency: bool = False
    requested_by: str | None = None
    limit_to: tuple[str, ...] = ()
    targets: tuple[PlannedTarget, ...]
    exclusions: tuple[Exclusion, ...]
    waves: tuple[PlannedWave, ...]
    power: tuple[CheckPower, ...] = ()
    blocked_domains: tuple[str, ...] = ()
    domain_limits: dict[str, int] = Field(default_factory=dict)
    service_limits: dict[str, int] = Field(default_factory=dict)
    shared_limits: dict[str, int] = Field(default_factory=dict)
    shared_reboots: dict[str, int] = Field(default_factory=dict)
    scrapes: dict[str, float] = Field(default_factory=dict)
    loads: Loads | None = None
    error_budgets: tuple[BudgetView, ...] = ()
    approval_required: int = 0
    approval_reason: str = ""
    advisories: tuple[str, ...] = Field(default=())

    _frozen_as: str | None = PrivateAttr(default=None)
    _at_once: int | None = PrivateAttr(default=None)

    @classmethod
    def frozen(cls, document: JsonValue, name: str) -> Self:
        """Load a plan from its document, which is kept under the digest ``name``.

        The digest stays the one that people approved, whatever fields a later release adds to a plan. Raises
        PlanRefused where this release cannot read it.
        """
        try:
            plan = cls.model_validate(document)
        except ValidationError as error:
            raise PlanRefused(not_valid(error)) from error
        plan._frozen_as = name
        return plan

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the plan, as it was frozen."""
        return self._frozen_as or digest(self)

    @property
    def at_once(self) -> int:
        """How many of its targets may be unavailable at once in all, see ``eased``."""
        return max(len(self.targets), 1) if self._at_once is None else self._at_once

    def eased(self, at_once: int) -> Self:
        """Give the same plan, of which no more than so many targets are changed at once for now."""
        plan = self.model_copy()
        plan._at_once = at_once
        return plan

    @property
    def looks(self) -> int:
        """How many shares the bound of false alarms has, see ``canary.weights``."""
        spec = self.policy.spec
        sizes, affected = [len(wave.targets) for wave in self.waves], 0
        if spec.rollout.depends_on:
            affected = sum(len(self.dependents(wave.index)) for wave in self.waves)
        return looks_of(spec.verify, sizes, watched=bool(spec.rollout.watch), dependents=affected)

    def guarded(self, wave: int) -> bool:
        """Whether metrics are watched while a wave is applied: something must be left that could be stopped."""
        found = self.wave(wave)
        return found is not None and guarded(self.policy.spec.verify, len(found.targets))

    def scrape(self, check: str) -> float:
        """Seconds between the samples of a check, also of a service that depends (``errors of web``); 0 = not known."""
        return next((every for name, every in self.scrapes.items() if f"{check} ".startswith(f"{name} ")), 0.0)

    def dependents(self, wave: int) -> dict[str, tuple[str, ...]]:
        """Services that depend on what a wave changes, each with its targets, see ``plan.dependents``."""
        found = self.wave(wave)
        targets = [item.target for item in self.targets]
        return dependents(self.policy.spec.rollout, targets, found.targets) if found is not None else {}

    def control(self, wave: int) -> tuple[str, ...]:
        """Targets that a wave is compared with, as frozen; in older plans all later ones that do not depend on it."""
        found = self.wave(wave)
        if found is not None and found.control is not None:
            return found.control
        affected = {name for names in self.dependents(wave).values() for name in names}
        later = [item.target.name for item in self.targets if item.wave > wave]
        return tuple(name for name in later if name not in affected)

    def wave(self, index: int) -> PlannedWave | None:
        """Wave by its number from 1, None where the plan has fewer."""
        return next((wave for wave in self.waves if wave.index == index), None)

    def planned(self, name: str) -> PlannedTarget | None:
        """Planned target by name."""
        targets, found = self._by_name
        if targets is not self.targets:  # a copy with other targets took the index along
            found = {item.target.name: item for item in self.targets}
        return found.get(name)

    @cached_property
    def _by_name(self) -> tuple[tuple[PlannedTarget, ...], dict[str, PlannedTarget]]:
        return self.targets, {item.target.name: item for item in self.targets}
