"""What apt, dpkg and needrestart print, as values. Components are named ``name:arch``; architecture ``all`` is one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from patching.target import Component

SECTION = "@@"
_INST = re.compile(r"^Inst (\S+) (?:\[([^\]]*)\] )?\((\S+)(?: (.*?))? \[([^\]]+)\]\)")
_REMV = re.compile(r"^Remv (\S+) \[([^\]]*)\]")
_BECAUSE = re.compile(r"^\s+(?:Installing|Upgrading) (\S+?)(?: <.*>)? (?:as (\w+) of|due to) (\S+)")
_VERSION_LINE = re.compile(r"^ (?:\*\*\*|   ) (\S+) (-?\d+)")
_FILE_LINE = re.compile(r"^\s+(-?\d+) (\S.*)$")
_URI_LINE = re.compile(r"^'[^']*' (\S+) (\d+)")
NOT_INSTALLED = "nc"
HALF = {"H": "half-installed", "U": "unpacked, not configured", "F": "half-configured", "W": "awaits triggers"}


@dataclass(frozen=True)
class Packages:
    """Dpkg's status: what is installed, what is held, what is half-way (with the word for it)."""

    installed: dict[str, Component] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    half: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VersionRow:
    """One version in apt's table for a package, with the ``Label:Suite`` of every index that offers it."""

    version: str
    priority: int
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Rehearsal:
    """What ``apt-get -s install`` would do: component → (before, after), why extras come along, and apt's complaint."""

    actions: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    because: dict[str, str] = field(default_factory=dict)
    download_bytes: int = 0
    error: str | None = None


def sections(text: str) -> dict[str, str]:
    """Split the output of a probe at its ``@@name`` lines."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(SECTION):
            lines = found.setdefault(line[len(SECTION) :], [])
        else:
            lines.append(line)
    return {name: "\n".join(body) for name, body in found.items()}


def bare(component: str) -> str:
    """Name of a component without its architecture."""
    return component.partition(":")[0]


def parse_dpkg(text: str) -> Packages:
    """Read ``package, architecture, version, status, source, source version`` lines, separated by tabs."""
    installed: dict[str, Component] = {}
    held: list[str] = []
    half: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) != 6 or parts[3][1:2] in NOT_INSTALLED:
            continue
        package, architecture, version, status, source, source_version = parts
        name = f"{bare(package)}:{architecture}"
        installed[name] = Component(version=version, source=source, source_version=source_version)
        if status.startswith("h"):
            held.append(name)
        if status[1:2] in HALF or status[2:3] == "R":
            half[name] = HALF.get(status[1:2], "needs to be reinstalled")
    return Packages(installed, tuple(held), half)


def parse_policy_files(text: str) -> dict[str, str]:
    """Read ``apt-cache policy``: index (as the version tables name it) → ``Label:Suite`` of its Release file."""
    found: dict[str, str] = {}
    index = ""
    for line in text.splitlines():
        release = re.match(r"^\s+release (.*)$", line)
        if release:
            words = dict(item.partition("=")[::2] for item in re.split(r",(?=\w=)", release[1]))
            label, suite = words.get("l") or words.get("o", ""), words.get("a") or words.get("n", "")
            found[index] = f"{label}:{suite}"
            continue
        named = _FILE_LINE.match(line)
        index = named[2] if named else index
    return found


def parse_policy_tables(text: str, origins: Mapping[str, str]) -> dict[str, list[VersionRow]]:
    """Read ``apt-cache policy PACKAGE…``: package → its versions; dpkg's own status file is no origin."""
    tables: dict[str, list[VersionRow]] = {}
    rows: list[VersionRow] = []
    for line in text.splitlines():
        if line and not line.startswith(" ") and line.endswith(":"):
            rows = tables.setdefault(line[:-1], [])
            continue
        version, file = _VERSION_LINE.match(line), _FILE_LINE.match(line)
        if version:
            rows.append(VersionRow(version[1], int(version[2]), ()))
        elif file and rows and not file[2].startswith("/var/lib/dpkg/"):
            last = rows.pop()
            seen = dict.fromkeys([*last.origins, origins.get(file[2], f"{file[2].split()[0]}:")])
            rows.append(VersionRow(last.version, last.priority, tuple(seen)))
    return tables


def parse_candidates(text: str) -> dict[str, str]:
    """Read the ``Candidate:`` lines of ``apt-cache policy PACKAGE…``."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line.startswith(" ") and line.endswith(":"):
            name = line[:-1]
        elif line.startswith("  Candidate: ") and "(none)" not in line:
            found[name] = line.removeprefix("  Candidate: ").strip()
    return found


def component_names(installed: Iterable[str], native: str) -> dict[str, str]:
    """Map the names that apt prints (bare for native and ``all``) to components."""
    found: dict[str, str] = {}
    for component in installed:
        name, _, architecture = component.partition(":")
        found[component] = component
        if architecture in (native, "all"):
            found[name] = component
    return found


def parse_rehearsal(text: str, exit_code: int | None, names: Mapping[str, str]) -> Rehearsal:
    """Read a simulation: Inst and Remv lines, the resolver's reasons, and the last complaint when it failed."""
    actions: dict[str, tuple[str | None, str | None]] = {}
    origins: dict[str, str] = {}
    because: dict[str, str] = {}
    size = 0
    for line in text.splitlines():
        change = _INST.match(line)
        if change:
            component = f"{bare(change[1])}:{change[5]}"
            actions[component] = (change[2], change[3])
            origins[component] = _release(change[4] or "")
        elif removed := _REMV.match(line):
            actions[names.get(removed[1], removed[1])] = (removed[2], None)
        elif reason := _BECAUSE.match(line):
            because.setdefault(bare(reason[1]), bare(reason[3]))
        elif uri := _URI_LINE.match(line):
            size += int(uri[2])
    error = None if exit_code == 0 else complaint(text) or f"apt-get ended with {exit_code}"
    return Rehearsal(actions, origins, because, size, error)


def _release(text: str) -> str:
    """Turn apt's ``Debian-Security:12/stable-security, Debian:12.8/stable`` into the first ``Label:Suite``."""
    label, _, suite = text.partition(",")[0].partition(":")
    return f"{label}:{suite.rpartition('/')[2]}" if suite else label


def complaint(text: str) -> str:
    """Find what apt complains about: its unmet dependencies and E: lines, in one sentence."""
    lines = [line.strip() for line in text.splitlines()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    unmet = [re.sub(r"\s+", " ", line) for line in lines if re.match(r"^\S+ : |^(Depends|PreDepends|Breaks): ", line)]
    return "; ".join([*unmet[:4], *errors[:2]])


def parse_needrestart(text: str) -> tuple[str, ...]:
    """Read the services of ``needrestart -b`` that still run replaced files."""
    prefix = "NEEDRESTART-SVC: "
    return tuple(sorted({line[len(prefix) :].strip() for line in text.splitlines() if line.startswith(prefix)}))


def matching(names: Iterable[str], patterns: Iterable[str]) -> Iterator[str]:
    """Give the names that match any of the patterns (as file names do)."""
    chosen = tuple(patterns)
    return (name for name in names if any(fnmatchcase(name, pattern) for pattern in chosen))
