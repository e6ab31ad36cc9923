"""Undo with apt: a rehearsed downgrade of the whole closure, new dependencies removed, services restarted after."""

from __future__ import annotations

from collections.abc import Sequence

from patching.change import Irreversible, JobResult, Outcome, Patch, Phase, Step, Undo
from patching.drivers.apt_change import act, hand_back_script, old_of, restart_stale, transaction_script
from patching.drivers.apt_kernel import is_kernel
from patching.drivers.apt_options import AptOptions
from patching.drivers.apt_snapshot import NOT_OURS_TO_RESTART, ONLY_BY_REBOOT
from patching.drivers.apt_text import bare
from patching.target import Snapshot


def listed(names: Sequence[str], most: int = 4) -> str:
    """Name a few and count the rest."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def undoable(snapshot: Snapshot, patches: Sequence[Patch]) -> Undo:
    """Say whether every old version can be had and the change is one that a downgrade undoes."""
    total = len(patches)
    kernels = [bare(patch.component) for patch in patches if is_kernel(patch.component)]
    missing = set(snapshot.transaction.undo_missing) if snapshot.transaction else set()
    lost = [f"{component}={version}" for component, version in old_of(patches) if f"{component}={version}" in missing]
    found = _found([patch.component for patch in patches if is_kernel(patch.component)], lost)
    covered = total - len(lost) - len([patch for patch in patches if is_kernel(patch.component) and not patch.before])
    if kernels:
        reason = f"a kernel is undone by booting the previous entry, by hand: {listed(kernels)}"
        return Undo(possible=False, covered=covered, total=total, reason=reason, irreversible=found)
    if lost:
        reason = f"undo available for {covered} of {total}: no store, cache, index or archive has {listed(lost)}"
        return Undo(possible=False, covered=covered, total=total, reason=reason, irreversible=found)
    reason = "every old version is in our store, apt's cache, an index or the archive"
    return Undo(possible=True, covered=covered, total=total, reason=reason)


def _found(kernels: Sequence[str], lost: Sequence[str]) -> tuple[Irreversible, ...]:
    """Say of kernels, and of versions that nobody has any more, why a downgrade does not bring them back."""
    found = []
    if kernels:
        reason = "a kernel is undone by booting the previous entry, by hand"
        found.append(Irreversible(components=tuple(kernels), found_by="driver", reason=reason))
    if lost:
        names = tuple(item.split("=", 1)[0] for item in lost)
        reason = f"no store, cache, index or archive has {listed(lost)}"
        found.append(Irreversible(components=names, found_by="driver", reason=reason))
    return tuple(found)


def not_back(now: Snapshot, patches: Sequence[Patch]) -> list[str]:
    """Name the components that are not at their version from before the change."""
    return [patch.component for patch in patches if now.version(patch.component) != patch.before]


def half_way(now: Snapshot, patches: Sequence[Patch]) -> list[str]:
    """Name the components of the change that dpkg has not finished."""
    ours = {patch.component for patch in patches}
    return [component for component in now.half_installed if component in ours]


def undo_steps(options: AptOptions, now: Snapshot, patches: Sequence[Patch]) -> list[Step]:
    """Give the one step that brings the before-state back, [] when it is back."""
    if not not_back(now, patches) and not half_way(now, patches):
        return []
    script = transaction_script(options, patches, undo=True) + '[ "$code" -eq 0 ] || exit "$code"\n'
    if options.restart != "none":
        script += restart_stale((*ONLY_BY_REBOOT, *NOT_OURS_TO_RESTART))
    return [act("downgrade", Phase.UNDO, script + hand_back_script(), options.apply_timeout)]


def verify_undo(now: Snapshot, patches: Sequence[Patch]) -> JobResult:
    """Judge an undo by what dpkg says is installed."""
    wrong, half = not_back(now, patches), half_way(now, patches)
    if wrong or half:
        said = [f"not back at the old version: {listed(wrong)}"] if wrong else []
        said += [f"dpkg is half-way through {listed(half)}"] if half else []
        return JobResult(outcome=Outcome.FAILED, reason="; ".join(said), signature="undo:apt:not-back")
    active = not now.stale_services and not now.reboot_required
    reason = f"{len(patches)} packages are back at the version from before"
    if now.stale_services:
        reason += f"; still on replaced files: {listed(now.stale_services)}"
    return JobResult(outcome=Outcome.UNDONE, reason=reason, active=active)
