"""Driver ``apt``: Debian and Ubuntu hosts, by the rules of docs/explanation/apt.md; every function is pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from patching.change import JobResult, Outcome, Patch, Phase, Refusal, Reply, Step, Undo
from patching.drivers import apt_checks, apt_undo
from patching.drivers.apt_change import (
    hand_back_step,
    install_step,
    new_of,
    old_of,
    prepare_step,
    reboot_step,
    restart_step,
    takeover_step,
)
from patching.drivers.apt_kernel import is_kernel
from patching.drivers.apt_options import AptOptions
from patching.drivers.apt_probe import probe_steps
from patching.drivers.apt_shell import deb_name
from patching.drivers.apt_snapshot import parse_snapshot
from patching.drivers.apt_text import bare
from patching.drivers.apt_undo import half_way, listed
from patching.target import Snapshot, Target
from patching.version_order import compare

UNSET = datetime(1971, 1, 1, tzinfo=UTC)
"""A snapshot as ``parse`` gives it has no moment yet: the caller, who has a clock, sets it."""


class AptDriver:
    """Patches hosts with apt: one rehearsed transaction, verified by dpkg's status, undone by downgrade."""

    name = "apt"
    options = AptOptions

    def __init__(self, options: AptOptions | None = None) -> None:
        self.chosen = options or AptOptions()

    def probe(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> list[Step]:
        """Read the host; with ``wanted`` rehearse the whole transaction and look for the old versions."""
        return probe_steps(self.chosen, wanted, replies)

    def parse(self, target: Target, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> Snapshot:
        """Turn the replies of all rounds into a Snapshot; what else was seen is in its ``facts``."""
        return parse_snapshot(target, replies)

    def preflight(self, snapshot: Snapshot) -> list[Refusal]:
        """Run every check of ``apt_checks``, whose codes are stable; clocks are compared at ``taken_at``."""
        found = apt_checks.preflight(self.chosen, snapshot)
        skew = apt_checks.clock_skew(snapshot, snapshot.taken_at) if snapshot.taken_at > UNSET else None
        return [*found, skew] if skew is not None else found

    def transaction(self, snapshot: Snapshot, wanted: Sequence[Patch]) -> list[Patch] | Refusal:
        """Give the rehearsed closure; codes of refusals: held, rehearsal_failed."""
        rehearsed = snapshot.transaction
        held = [patch.component for patch in wanted if patch.component in snapshot.held]
        if held:
            return Refusal(
                code="held",
                message=f"held on the host by apt-mark hold: {listed(held)}",
                remedy="exclude it in the policy, or on the host: apt-mark unhold " + " ".join(map(bare, held)),
            )
        if rehearsed is None:
            return Refusal(code="rehearsal_failed", message="the transaction was not rehearsed")
        if rehearsed.error is not None:
            return _rehearsal_refused(snapshot, rehearsed.error)
        asked = {patch.component: patch for patch in wanted}
        return [
            asked[component].model_copy(update={"before": before, "after": after})
            if component in asked
            else Patch(component=component, before=before, after=after, reason=_because(snapshot, component, wanted))
            for component, (before, after) in rehearsed.actions.items()
        ]

    def undoable(self, snapshot: Snapshot, patches: Sequence[Patch]) -> Undo:
        """Count how much of the transaction can be brought back."""
        return apt_undo.undoable(snapshot, patches)

    def reboots(self, snapshot: Snapshot, patches: Sequence[Patch]) -> str | None:
        """Say why a reboot is expected: a kernel among the patches, or one that the host waits for already."""
        kernels = [bare(patch.component) for patch in patches if is_kernel(patch.component) and patch.after]
        if kernels:
            return f"a kernel is installed: {listed(kernels)}"
        return (
            f"the host waits for a reboot already: {snapshot.reboot_reasons[0]}" if snapshot.reboot_required else None
        )

    def drift(self, before: Mapping[str, str | None], now: Snapshot, patches: Sequence[Patch]) -> JobResult | None:
        """Compare the planned before-state per package: None = go, else nothing_to_do or drifted."""
        if all(_reached(now, patch) for patch in patches):
            return JobResult(outcome=Outcome.NOTHING_TO_DO, reason="every package is at or above its planned version")
        changed = [
            f"{patch.component} is {now.version(patch.component) or 'absent'}, planned from {_was(before, patch)}"
            for patch in patches
            if now.version(patch.component) not in (before.get(patch.component, patch.before), patch.after)
        ]
        if not changed:
            return None
        return JobResult(
            outcome=Outcome.DRIFTED, reason=f"changed since planning: {listed(changed)}", signature="drift"
        )

    def steps(
        self, target: Target, phase: Phase, before: Snapshot, now: Snapshot, patches: Sequence[Patch]
    ) -> list[Step]:
        """Fetch, install in one transaction, restart or reboot; [] when the phase has converged."""
        if phase is Phase.PREPARE:
            return [] if _prepared(now, patches) else [prepare_step(self.chosen, patches)]
        if phase is Phase.APPLY:
            return self._apply(now, patches)
        return self._activate(now) if phase is Phase.ACTIVATE else []

    def _apply(self, now: Snapshot, patches: Sequence[Patch]) -> list[Step]:
        if all(now.version(patch.component) == patch.after for patch in patches) and not half_way(now, patches):
            return []
        install = install_step(self.chosen, patches)
        return [takeover_step(), install] if self.chosen.takeover and now.competing_patchers else [install]

    def _activate(self, now: Snapshot) -> list[Step]:
        steps: list[Step] = []
        if self.chosen.restart == "needed" and now.stale_services:
            steps.append(restart_step(now.stale_services))
        elif not isinstance(self.chosen.restart, str) and self.chosen.restart:
            steps.append(restart_step(self.chosen.restart))
        if now.facts.get("takeover"):
            steps.append(hand_back_step())
        if now.reboot_required:
            steps.append(reboot_step())
        return steps

    def verify(self, before: Snapshot, after: Snapshot, patches: Sequence[Patch]) -> JobResult:
        """Judge per package by dpkg's status; services on replaced files leave it applied but not active."""
        half = half_way(after, patches)
        if half:
            reason = f"dpkg is half-way through {listed(half)}: on the host, dpkg --configure -a"
            return JobResult(outcome=Outcome.FAILED, reason=reason, signature=f"apt:half:{bare(half[0])}")
        wrong = [patch for patch in patches if not _reached(after, patch)]
        if wrong:
            names = [f"{each.component} is {after.version(each.component) or 'absent'}" for each in wrong]
            reason = f"not at the planned version: {listed(names)}"
            return JobResult(outcome=Outcome.FAILED, reason=reason, signature=f"apt:version:{bare(wrong[0].component)}")
        return _applied(before, after, patches)

    def undo(self, target: Target, now: Snapshot, patches: Sequence[Patch]) -> list[Step]:
        """Downgrade the whole closure and remove what it added, rehearsed first; [] when it is back."""
        return apt_undo.undo_steps(self.chosen, now, patches)

    def verify_undo(self, now: Snapshot, patches: Sequence[Patch]) -> JobResult:
        """Judge an undo per package by dpkg's status."""
        return apt_undo.verify_undo(now, patches)


def _rehearsal_refused(snapshot: Snapshot, error: str) -> Refusal:
    held = [component for component in snapshot.held if re.search(rf"\b{re.escape(bare(component))}\b", error)]
    if held:
        names = " ".join(map(bare, held))
        return Refusal(
            code="held",
            message=f"the transaction needs what is held on the host ({listed(held)}): {error}",
            remedy=f"exclude it in the policy, or on the host: apt-mark unhold {names}",
        )
    return Refusal(
        code="rehearsal_failed",
        message=f"apt refuses the transaction: {error}",
        remedy="on the host: apt-get -s install with these versions shows why (docs/runbooks/apt-broken.md)",
    )


def _because(snapshot: Snapshot, component: str, wanted: Sequence[Patch]) -> str:
    """Name the package that brings an extra one along, where apt's resolver said which."""
    parent = snapshot.facts.get("because", {}).get(bare(component))
    removed = snapshot.transaction is not None and snapshot.transaction.actions[component][1] is None
    names = parent or ", ".join(sorted(bare(patch.component) for patch in wanted)[:3])
    return f"removed: it conflicts with {names}" if removed else f"dependency of {names}"


def _was(before: Mapping[str, str | None], patch: Patch) -> str:
    return before.get(patch.component, patch.before) or "absent"


def _reached(now: Snapshot, patch: Patch) -> bool:
    """Whether a component is at its planned version or above (absent where it was to be removed)."""
    version = now.version(patch.component)
    if version is None or patch.after is None:
        return version == patch.after
    return compare(now.ecosystem or "Debian", version, patch.after) >= 0


def _prepared(now: Snapshot, patches: Sequence[Patch]) -> bool:
    """Whether our store has all new versions, and every old one or the mark that it can't be had."""
    store = set(now.facts.get("store", ()))
    new = [deb_name(*each) for each in new_of(patches)]
    old = [deb_name(*each) for each in old_of(patches)]
    return all(file in store for file in new) and all(file in store or f"{file}.missing" in store for file in old)


def _applied(before: Snapshot, after: Snapshot, patches: Sequence[Patch]) -> JobResult:
    reason = f"{len(patches)} packages at the planned version"
    if after.stale_services:
        reason += f"; applied, not active: {listed(after.stale_services)} still run replaced files"
    elif after.reboot_required:
        reason += f"; applied, not active until a reboot: {after.reboot_reasons[0]}"
    kept = [path for path in after.facts.get("conffiles", ()) if path not in before.facts.get("conffiles", ())]
    if kept:
        reason += f"; edited settings were kept, the new ones lie beside: {listed(kept)}"
    active = not after.stale_services and not after.reboot_required
    return JobResult(outcome=Outcome.APPLIED, reason=reason, active=active)
