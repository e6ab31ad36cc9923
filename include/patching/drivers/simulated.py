"""Driver `simulated`: versions in a file instead of packages on a host; for drills, tests and the labelled demo tier.

It obeys the same protocol as every driver and works with channel ``simulated`` only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from patching.change import (
    IfInterrupted,
    Irreversible,
    JobResult,
    Outcome,
    Patch,
    Phase,
    Refusal,
    Reply,
    Step,
    StepKind,
    Undo,
)
from patching.drivers.base import DriverOptions
from patching.target import Component, Offer, Snapshot, Target, Transaction
from patching.value import JsonValue

PROBE = "probe"


class SimulatedOptions(DriverOptions):
    """Options of the simulated driver: none."""


def _step(step: str, phase: Phase, kind: StepKind, **call: JsonValue) -> Step:
    return Step(name=step, phase=phase, kind=kind, call=call, channel="simulated", deadline=60.0)


class SimulatedDriver:
    """Patches hosts that are files; every rule of the loop holds, only the package manager is missing."""

    name = "simulated"
    options = SimulatedOptions

    def probe(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> list[Step]:
        """Read the host's file once."""
        return [] if PROBE in replies else [_step(PROBE, Phase.PROBE, StepKind.READ, op="read")]

    def parse(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> Snapshot:
        """Turn the host's file into a Snapshot; wanted patches are rehearsed by looking at what is offered."""
        state = json.loads(replies[PROBE].stdout)
        actions = {patch.component: (state["installed"].get(patch.component), patch.after) for patch in wanted}
        missing = tuple(f"{name}={old}" for name, (old, _) in actions.items() if old in state.get("no_undo", []))
        return Snapshot(
            target=target.name,
            taken_at="1970-01-01T00:00:00Z",  # type: ignore[arg-type]
            installed={
                name: Component(version=version, source=name, source_version=version)
                for name, version in state["installed"].items()
            },
            offers={
                name: (Offer(version=version, origins=("Lab-Security:simulated-security",)),)
                for name, version in state.get("offers", {}).items()
            },
            boot_id=state["boot_id"],
            reboot_required=bool(state.get("reboot_required")),
            ecosystem="Debian:12",
            transaction=Transaction(actions=actions, undo_missing=missing) if wanted else None,
        )

    def preflight(self, snapshot: Snapshot) -> list[Refusal]:
        """Nothing stands against a simulated change."""
        return []

    def transaction(self, snapshot: Snapshot, wanted: Sequence[Patch]) -> list[Patch] | Refusal:
        """Give the wanted patches: a simulated host has no dependencies."""
        return list(wanted)

    def undoable(self, snapshot: Snapshot, patches: Sequence[Patch]) -> Undo:
        """Say that every old version is kept, except those the host's file lists in ``no_undo``."""
        missing = snapshot.transaction.undo_missing if snapshot.transaction else ()
        total = len(patches)
        covered = total - len(missing)
        if not missing:
            reason = "old versions are kept in the host's file"
            return Undo(possible=True, covered=covered, total=total, reason=reason)
        reason = f"no source for {', '.join(missing)}"
        names = tuple(item.split("=", 1)[0] for item in missing)
        found = Irreversible(components=names, found_by="driver", reason=reason)
        return Undo(possible=False, covered=covered, total=total, reason=reason, irreversible=(found,))

    def reboots(self, snapshot: Snapshot, patches: Sequence[Patch]) -> str | None:
        """Say whether a patch wants a reboot: those of component ``kernel``."""
        return "a kernel is replaced" if any(patch.component == "kernel" for patch in patches) else None

    def drift(self, before: Mapping[str, str | None], now: Snapshot, patches: Sequence[Patch]) -> JobResult | None:
        """Compare versions exactly."""
        if all(now.version(patch.component) == patch.after for patch in patches):
            return JobResult(outcome=Outcome.NOTHING_TO_DO, reason="every planned version is installed already")
        changed = [name for name, version in before.items() if now.version(name) != version]
        if changed:
            return JobResult(outcome=Outcome.DRIFTED, reason=f"{', '.join(changed)} changed since planning")
        return None

    def steps(
        self, target: Target, phase: Phase, before: Snapshot, now: Snapshot, patches: Sequence[Patch]
    ) -> list[Step]:
        """Install what is not installed yet; reboot where the file says so."""
        if phase is Phase.PREPARE:
            return []
        if phase is Phase.ACTIVATE:
            return self._activate(now)
        return [
            _step(f"install-{patch.component}", phase, StepKind.ACT, op="set", name=patch.component, to=patch.after)
            for patch in patches
            if now.version(patch.component) != patch.after
        ]

    def _activate(self, now: Snapshot) -> list[Step]:
        if not now.reboot_required:
            return []
        step = _step("reboot", Phase.ACTIVATE, StepKind.ACTIVATE, op="reboot")
        return [step.model_copy(update={"expects_reboot": True, "if_interrupted": IfInterrupted.SUCCESS})]

    def verify(self, before: Snapshot, after: Snapshot, patches: Sequence[Patch]) -> JobResult:
        """Compare what is installed with what was planned."""
        wrong = [patch.component for patch in patches if after.version(patch.component) != patch.after]
        if wrong:
            return JobResult(outcome=Outcome.FAILED, reason=f"not at the planned version: {', '.join(wrong)}")
        return JobResult(outcome=Outcome.APPLIED, reason=f"{len(patches)} components at the planned version")

    def undo(self, target: Target, now: Snapshot, patches: Sequence[Patch]) -> list[Step]:
        """Bring the old versions back, the last change first."""
        return [
            _step(f"undo-{patch.component}", Phase.UNDO, StepKind.ACT, op="set", name=patch.component, to=patch.before)
            for patch in reversed(patches)
            if now.version(patch.component) != patch.before
        ]

    def verify_undo(self, now: Snapshot, patches: Sequence[Patch]) -> JobResult:
        """Compare what is installed with what was there before."""
        wrong = [patch.component for patch in patches if now.version(patch.component) != patch.before]
        if wrong:
            return JobResult(outcome=Outcome.FAILED, reason=f"not back at the old version: {', '.join(wrong)}")
        return JobResult(outcome=Outcome.UNDONE, reason=f"{len(patches)} components are back")
