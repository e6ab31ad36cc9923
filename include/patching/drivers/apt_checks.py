"""What stands against a change of a host with apt: refusals with stable codes and the command that mends each.

Codes: sudo_refused, unreadable, half_installed, apt_locked, repository_unreachable, competing_patcher, disk_space,
boot_space, clock_skew; needrestart_missing does not block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from patching.change import Refusal
from patching.drivers.apt_options import AptOptions
from patching.target import Snapshot

CLOCK_TOLERANCE = 120.0


def preflight(options: AptOptions, snapshot: Snapshot) -> list[Refusal]:
    """Run every check; an unread host has just one answer."""
    unread = snapshot.facts.get("unread")
    if unread:
        return [_unread(bool(snapshot.facts.get("sudo")), str(unread))]
    return [found for check in CHECKS for found in check(options, snapshot)]


def _unread(sudo: bool, said: str) -> Refusal:
    if sudo:
        return Refusal(code="unreadable", message=f"the host's package state could not be read: {said}")
    return Refusal(
        code="sudo_refused",
        message=f"the login user may not become root: {said}",
        remedy="add USER ALL=(root) NOPASSWD: /bin/sh to its sudoers, or set sudo_password in the connection "
        "(docs/how-to/add-hosts.md)",
    )


def _half(_: AptOptions, snapshot: Snapshot) -> Iterator[Refusal]:
    if snapshot.half_installed:
        words: dict[str, str] = snapshot.facts.get("half", {})
        names = ", ".join(f"{name} ({words.get(name, 'half-way')})" for name in snapshot.half_installed)
        yield Refusal(
            code="half_installed",
            message=f"dpkg is half-way through {names}",
            remedy="on the host: dpkg --configure -a && apt-get -f install",
        )


def _locked(_: AptOptions, snapshot: Snapshot) -> Iterator[Refusal]:
    for path, pid, *name in snapshot.facts.get("locks", []):
        holder = f"{name[0]} (pid {pid})" if name else f"pid {pid}"
        yield Refusal(
            code="apt_locked",
            message=f"{path} is held by {holder}",
            remedy="wait for it to end; never remove the lock file",
        )
        return


def _repository(_: AptOptions, snapshot: Snapshot) -> Iterator[Refusal]:
    update: dict[str, Any] = snapshot.facts.get("update", {})
    if not update.get("code"):
        return
    said = str(update.get("said", ""))
    if "lock" in said.lower() and "could not get" in said.lower():
        yield Refusal(code="apt_locked", message=f"apt-get update: {said}", remedy="wait for the other apt to end")
        return
    yield Refusal(
        code="repository_unreachable",
        message=f"apt-get update fails: {said}",
        remedy="on the host: apt-get update; then mend the source or the network that it names",
    )


def _competing(options: AptOptions, snapshot: Snapshot) -> Iterator[Refusal]:
    for name in snapshot.competing_patchers:
        if options.takeover:
            yield Refusal(
                code="competing_patcher",
                message=f"{name} is active; it is stopped during the change only, and may change hosts in the soak",
                blocking=False,
            )
        else:
            yield Refusal(
                code="competing_patcher",
                message=f"{name} is active: it changes hosts and reboots them on its own",
                remedy="systemctl disable --now apt-daily-upgrade.timer, or options: {takeover: true}"
                " (docs/runbooks/competing-patcher.md)",
            )


def _disk(options: AptOptions, snapshot: Snapshot) -> Iterator[Refusal]:
    disk: dict[str, Any] = snapshot.facts.get("disk", {})
    planned = snapshot.transaction.download_bytes if snapshot.transaction else 0
    # A package is there three times while it is installed: in the store, in apt's hands, unpacked.
    needed = options.min_free_mb + 3 * planned // 1_000_000
    var = disk.get("/var", {}).get("free_kb")
    if var is not None and var < needed * 1000:
        yield Refusal(
            code="disk_space",
            message=f"/var has {var // 1000} MB free, {needed} MB are needed",
            remedy="on the host: apt-get clean; journalctl --vacuum-size=200M; df -h /var",
        )
    boot = disk.get("/boot", {})
    if boot.get("mounted") and boot["free_kb"] < options.min_boot_mb * 1000:
        yield Refusal(
            code="boot_space",
            message=f"/boot has {boot['free_kb'] // 1000} MB free, {options.min_boot_mb} MB are needed for a kernel",
            remedy="on the host: apt-get autoremove --purge removes kernels that are no longer needed",
        )


def _notes(_: AptOptions, snapshot: Snapshot) -> Iterator[Refusal]:
    if snapshot.facts.get("needrestart") is False:
        yield Refusal(
            code="needrestart_missing",
            message="needrestart is not installed: services that go on running replaced files are not seen",
            remedy="apt-get install needrestart",
            blocking=False,
        )


Check = Callable[[AptOptions, Snapshot], Iterator[Refusal]]
CHECKS: tuple[Check, ...] = (_half, _locked, _repository, _competing, _disk, _notes)


def clock_skew(snapshot: Snapshot, now: datetime, tolerance: float = CLOCK_TOLERANCE) -> Refusal | None:
    """Compare the host's clock, read last in the probe, with ours; more than ``tolerance`` seconds is refused."""
    epoch = snapshot.facts.get("epoch")
    if not epoch:
        return None
    skew = float(epoch) - now.timestamp()
    if abs(skew) <= tolerance:
        return None
    side = "ahead of" if skew > 0 else "behind"
    return Refusal(
        code="clock_skew",
        message=f"the host's clock is {abs(skew):.0f} s {side} ours: signatures and windows would be judged wrongly",
        remedy="on the host: timedatectl set-ntp true",
    )
