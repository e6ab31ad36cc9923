"""How the replies of a host with apt become its Snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from patching.change import Reply
from patching.drivers.apt_kernel import kernel_reasons
from patching.drivers.apt_reading import REHEARSE, STATE, AptReading, pairs
from patching.drivers.apt_text import Packages, bare, complaint, matching, parse_candidates, parse_needrestart
from patching.target import Snapshot, Target
from patching.value import JsonValue

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Restarting these does harm; only a reboot renews them.
ONLY_BY_REBOOT = ("dbus.service", "dbus-broker.service", "systemd-logind.service")
NOT_OURS_TO_RESTART = ("user@*.service", "getty@*.service", "serial-getty@*.service", "*dm.service")


def parse_snapshot(target: Target, replies: Mapping[str, Reply]) -> Snapshot:
    """Turn the replies of all rounds into a Snapshot; a refused sudo leaves it empty but for ``facts["sudo"]``."""
    reply = replies.get(STATE)
    reading = AptReading(replies)
    if reply is None or not reading.packages.installed:
        return Snapshot(target=target.name, taken_at=EPOCH, facts=_unread(reply))
    parts, packages = reading.parts, reading.packages
    kernel, build = reading.host.get("kernel"), reading.host.get("build", "")
    stale = parse_needrestart(parts.get("needrestart", ""))
    flag = parts.get("reboot", "").split()
    reasons = [*_flagged(flag), *kernel_reasons(kernel or "", build, packages.installed)]
    reasons += [
        f"{unit} runs replaced files and is only renewed by a reboot" for unit in matching(stale, ONLY_BY_REBOOT)
    ]
    not_restarted = set(matching(stale, (*ONLY_BY_REBOOT, *NOT_OURS_TO_RESTART)))
    return Snapshot(
        target=target.name,
        taken_at=EPOCH,
        installed=packages.installed,
        offers=reading.offers(),
        kernel=kernel,
        boot_id=reading.host.get("boot"),
        reboot_required=bool(reasons),
        reboot_reasons=tuple(reasons),
        stale_services=tuple(unit for unit in stale if unit not in not_restarted),
        held=packages.held,
        half_installed=tuple(packages.half),
        competing_patchers=_competing(parts.get("patchers", ""), packages),
        transaction=reading.transaction(),
        ecosystem=_ecosystem(pairs(parts.get("os", ""))),
        facts=_facts(reading),
    )


def _unread(reply: Reply | None) -> dict[str, JsonValue]:
    said = (reply.stderr.strip().splitlines() or [f"exit code {reply.exit_code}"])[-1] if reply else "not read"
    return {"sudo": "sudo:" not in said, "unread": said}


def _facts(reading: AptReading) -> dict[str, JsonValue]:
    parts = reading.parts
    code, _, said = parts.get("update", "").partition("\n")
    failed = int(code.strip() or 0)
    because = reading.rehearsal.because if REHEARSE in reading.replies else {}
    patchers = parts.get("patchers", "").splitlines()
    return {
        "sudo": True,
        "arch": reading.host.get("arch"),
        "uptime": float(reading.host.get("uptime", "0") or 0),
        "epoch": int(parts.get("clock", "0").strip() or 0),
        "update": {"code": failed, "said": (complaint(said) or _last(said)) if failed else ""},
        "disk": _disk(parts.get("disk", "")),
        "locks": [line.split(maxsplit=2) for line in parts.get("locks", "").splitlines() if line.strip()],
        "interrupted": bool(parts.get("interrupted", "").strip()),
        "half": reading.packages.half,
        "store": parts.get("store", "").split(),
        "conffiles": parts.get("conffiles", "").splitlines(),
        "needrestart": "NEEDRESTART-VER" in parts.get("needrestart", ""),
        "candidates": _candidates(reading),
        "because": because,
        "takeover": "takeover" in patchers,
    }


def _candidates(reading: AptReading) -> dict[str, str]:
    """What apt itself would choose; where it is not the newest version, a pin is the reason."""
    found = parse_candidates(reading.parts.get("versions", ""))
    return {reading.names.get(name, name): version for name, version in found.items()}


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _flagged(flag: Sequence[str]) -> list[str]:
    if not flag:
        return []
    asked = ", ".join(dict.fromkeys(flag[1:]))
    return [f"asked for by {asked}" if asked else "the host asks for it (/var/run/reboot-required)"]


def _ecosystem(release: Mapping[str, str]) -> str:
    if release.get("ID") == "ubuntu":
        lts = ":LTS" if "LTS" in release.get("VERSION", "") else ""
        return f"Ubuntu:{release.get('VERSION_ID', '')}{lts}"
    return f"Debian:{release.get('VERSION_ID', '')}".rstrip(":")


def _competing(text: str, packages: Packages) -> tuple[str, ...]:
    """Name unattended-upgrades where it is installed, switched on, and something starts it."""
    if not any(bare(name) == "unattended-upgrades" for name in packages.installed):
        return ()
    lines = [line.split() for line in text.splitlines()]
    settings = {words[0]: words[1].strip('";') for words in lines if len(words) == 2 and words[0].startswith("APT::")}
    units = {words[1]: set(words[2:]) for words in lines if words[:1] == ["unit"]}
    switched_on = settings.get("APT::Periodic::Unattended-Upgrade", "0") not in ("", "0")
    switched_on = switched_on and settings.get("APT::Periodic::Enable", "1") != "0"
    timer = units.get("apt-daily-upgrade.timer", set())
    running = {"active", "activating"} & units.get("apt-daily-upgrade.service", set())
    started = bool({"enabled", "active"} & timer) or not any(units.values())
    return ("unattended-upgrades",) if (switched_on and started) or running else ()


def _disk(text: str) -> dict[str, JsonValue]:
    """Read ``df -Pk``: the directory asked for → free kilobytes, and which are file systems of their own."""
    found: dict[str, JsonValue] = {}
    rows = [line.split() for line in text.splitlines()[1:]]
    for asked, row in zip(("/", "/var", "/boot"), (row for row in rows if len(row) >= 6), strict=False):
        found[asked] = {"free_kb": int(row[3]), "mounted": row[5] == asked}
    return found
